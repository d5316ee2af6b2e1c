"""What an audit says: a finding, its weight, and how to mend it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bbi_lightning.comparison.results import Comparison

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")  # heaviest first


@dataclass(frozen=True)
class Finding:
    """One thing that makes a comparison wrong ("error"), doubtful ("warning"), or worth knowing ("note").

    Attributes:
        level: how much it weighs.
        code: its name for scripts, as "edge-of-space"; the same for every sweep.
        sentence: what was found, with the numbers.
        remedy: what to do about it, a command where there is one; empty where nothing can be done.
        arm: the arm it is about, "" when it is about several or all.
        evidence: the numbers, plain JSON.
    """

    level: Level
    code: str
    sentence: str
    remedy: str = ""
    arm: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".strip()

    def plain(self) -> dict[str, Any]:
        """As JSON has it, which knows no NaN: null."""
        return {**asdict(self), "evidence": {key: _plain(value) for key, value in self.evidence.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command(c: Comparison, verb: str, *words: object) -> str:
    """`bbi sweep VERB NAME …` as a user would type it; of a task joined from several sweeps, one for each.

    A sweep that was imported knows no commands: then it says so in words.
    """
    own = [run.folder.parent.parent.name for run in c.sweep.runs if not run.imported]
    if not own:
        return "do it where the runs were made, and import them again"
    names = list(dict.fromkeys(own)) if "+" in c.sweep.name else [c.sweep.name]
    end = "".join(f" {word}" for word in words)
    return ", ".join(f"`bbi sweep {verb} {name}{end}`" for name in names)
