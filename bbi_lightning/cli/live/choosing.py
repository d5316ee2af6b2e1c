"""Which runs are shown, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bbi_lightning.tracking.live.run_watch import RunView

_RANKS = ("running", "lost", "damaged", "failed", "interrupted", "diverged", "pruned", "finished")

_Key = Callable[[RunView], Any]


def _last_if_none(value: float | None, *, falling: bool = False) -> tuple[bool, float]:
    """Numbers in order, what is missing or NaN at the end."""
    if value is None or math.isnan(value):
        return (True, 0.0)
    return (False, -value if falling else value)


def _by_state(run: RunView) -> Any:
    rank = _RANKS.index(run.state) if run.state in _RANKS else len(_RANKS)
    worst = 2 if run.is_in_trouble else 1 if run.alarms else 0
    return (rank, -worst, _last_if_none(run.since, falling=True), run.name)


def _by_value(run: RunView) -> Any:
    falling = not run.metric.endswith(("loss", "error"))
    return (_last_if_none(run.best if run.best is not None else run.newest, falling=falling), run.name)


ORDERS: dict[str, _Key] = {
    "state": _by_state,
    "eta": lambda run: (_last_if_none(run.eta), run.name),
    "loss": lambda run: (_last_if_none(run.loss), run.name),
    "best": _by_value,
    "speed": lambda run: (_last_if_none(run.steps_per_second, falling=True), run.name),
    "name": lambda run: (
        run.sweep,
        run.arm,
        run.phase,
        run.number if run.number is not None else -1,
        run.name,
    ),
}
"""Orders by name: what needs attention first, or by a number, the best first."""

VIEWS = ("all", "running", "alarms")


@dataclass(frozen=True)
class Choice:
    """What the user has chosen.

    Attributes:
        order: one of `ORDERS`.
        view: one of `VIEWS`.
        words: a run must contain all of them (one that begins with "!" none of it).
        cursor: the run that is chosen, counted from 0.
        typing: whether the filter is being typed.
        detail: whether the chosen run is shown at length, in the place of the alarms.
    """

    order: str = "state"
    view: str = "all"
    words: str = ""
    cursor: int = 0
    typing: bool = False
    detail: bool = False

    def pressed(self, key: str, page: int, count: int) -> Choice | None:
        """The choice after a key; None to leave.

        Args:
            key: as `Keys.next` names it.
            page: runs that one screen shows.
            count: runs there are to choose from.
        """
        if self.typing:
            return self._typed(key)
        if key in ("q", "Q", "interrupt", "end of input"):
            return None
        if key in ("f", "/"):
            return replace(self, typing=True)
        if key == "enter":
            return replace(self, detail=not self.detail)
        if key == "escape":
            return replace(self, detail=False) if self.detail else replace(self, words="", cursor=0)
        if key in ("s", "S"):
            return replace(self, order=_after(tuple(ORDERS), self.order, 1 if key == "s" else -1), cursor=0)
        if key == "a":
            return replace(self, view=_after(VIEWS, self.view, 1), cursor=0)
        return self._moved(key, page, count)

    def _moved(self, key: str, page: int, count: int) -> Choice:
        steps = {
            "up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "b": -page, "page down": page, " ": page,
            "home": -count, "g": -count, "end": count, "G": count,
        }  # fmt: skip
        return replace(self, cursor=max(0, min(count - 1, self.cursor + steps.get(key, 0))))

    def _typed(self, key: str) -> Choice | None:
        if key == "end of input":
            return None
        if key == "enter":
            return replace(self, typing=False)
        if key == "escape":
            return replace(self, typing=False, words="", cursor=0)
        if key == "backspace":
            return replace(self, words=self.words[:-1], cursor=0)
        return (
            replace(self, words=self.words + key, cursor=0) if len(key) == 1 and key.isprintable() else self
        )

    def of(self, runs: Iterable[RunView]) -> list[RunView]:
        """The runs that are chosen, in order."""
        words = self.words.lower().split()
        chosen = [run for run in runs if self._is_in_view(run) and _matches(run, words)]
        return sorted(chosen, key=ORDERS[self.order])

    def _is_in_view(self, run: RunView) -> bool:
        return self.view == "all" or (run.runs if self.view == "running" else bool(run.alarms))


def _matches(run: RunView, words: Sequence[str]) -> bool:
    if not words:
        return True
    codes = " ".join(alarm.code for alarm in run.alarms)
    text = f"{run.name} {run.sweep} {run.arm} {run.phase} {run.state} {run.host} {label(run)} {codes}".lower()
    return all((word[1:] not in text) if word[0] == "!" and word[1:] else word in text for word in words)


def _after(names: Sequence[str], name: str, steps: int) -> str:
    return names[(names.index(name) + steps) % len(names)]


def label(run: RunView, *, with_sweep: bool = False) -> str:
    """A run in short: `bbi t12` is the arm's trial 12, `bbi r3` its replicate 3; else the folder's name."""
    if not run.arm:
        return run.name
    letter = {"replicate": "r", "added": "a"}.get(run.phase, "t")
    short = f"{run.arm} {letter}{run.number}" if run.number is not None else run.arm
    return f"{run.sweep}/{short}" if with_sweep and run.sweep else short
