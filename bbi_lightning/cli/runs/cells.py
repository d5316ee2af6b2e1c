"""Which columns a table of runs has, and how a field's value is written in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bbi_lightning.cli.live.words import metric_value, short_duration

if TYPE_CHECKING:
    from bbi_lightning.tracking.registry import IndexedRun

STYLES = {
    "finished": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "pruned": "dim",
    "diverged": "magenta",
    "failed": "red",
    "lost": "red",
    "unreadable": "red",
}
_DURATIONS = ("duration", "age", "wall_s")
_MOMENTS = ("created", "started", "ended")
_MOST_KEYS = 3  # config keys that get a column without being asked for
_SECTIONS = ("optim.", "scheduler.", "model.", "data.", "loss.", "trainer.")


def cell(name: str, value: Any) -> str:
    """A field's value for people; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(cell(name, element) for element in value)
    if name in _DURATIONS and isinstance(value, (int, float)):
        return f"{value:.1f} s" if value < 9.95 and isinstance(value, float) else short_duration(value)
    if name in _MOMENTS:
        return str(value)[:16].replace("T", " ")
    if name == "commit":
        return str(value)[:8]
    if isinstance(value, float):
        return metric_value(name, value) if "/" in name else plain_number(value)
    return f"{value:,}" if name in ("parameters", "steps") and isinstance(value, int) else str(value)


def plain_number(value: float) -> str:
    """A number of a config: four digits, without an exponent where it is short."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def chosen_columns(runs: Sequence[IndexedRun]) -> list[str]:
    """What a table of these runs shows by itself, the most wanted first."""
    there: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in run.fields.items():
            there.setdefault(name, []).append(value)
    columns = ["name", "state"]
    columns += [name for name in (_metric(there, "test"), _metric(there, "val")) if name]
    columns += ["arm"] if "arm" in there else ["optim"] if "optim" in there else []
    columns += _varying(there, len(runs))[:_MOST_KEYS]
    columns += ["tags"] if "tags" in there else []
    columns += ["imported"] if "imported" in there else []
    columns += ["age", "duration"]
    columns += [name for name in ("phase", "sweep") if _differs(there.get(name, ()), len(runs))]
    return columns


def _metric(there: dict[str, list[Any]], split: str) -> str | None:
    """The metric of a split that most runs have; an accuracy before others."""
    known = [name for name in there if name.startswith(f"{split}/")]
    return max(known, key=lambda name: (name.endswith(("/acc", "/accuracy")), len(there[name])), default=None)


def _varying(there: dict[str, list[Any]], count: int) -> list[str]:
    """Keys of the config that differ among the runs, those of the optimizer first, the liveliest first."""
    known = [
        name
        for name, values in there.items()
        if name.startswith(_SECTIONS)
        and not name.endswith(("_target_", ".seed"))
        and _differs(values, len(values) if name.startswith("optim.") else count)
    ]

    def rank(name: str) -> tuple[bool, bool, int, str]:
        lively = -len({str(value) for value in there[name]})
        return (not name.startswith("optim."), name != "optim.lr", lively, name)

    return sorted(known, key=rank)


def _differs(values: Sequence[Any], count: int) -> bool:
    return bool(values) and (len(values) < count or len({str(value) for value in values}) > 1)
