"""What is known of one search, kept up to date trial by trial: to find the next one, ten thousand others need
not be gone through."""

from __future__ import annotations

from bbi_lightning.sweeps.samplers import Seen
from bbi_lightning.sweeps.spec import Objective
from bbi_lightning.sweeps.trial import (
    ADDED,
    FAILED,
    FINISHED,
    REPLICATE,
    RUNNING,
    SEARCH,
    WAITING,
    Trial,
    due,
)

Place = tuple[str, int, int]

_BEHIND_ALL = 10**9  # larger than any trial's number


class Ledger:
    """The trials of one arm in one of its searches.

    Attributes:
        waiting, running: those in these states, by their number, in their order.
        best: the best finished search trial: by the metric, then the tie breaker, then the earlier one.
    """

    def __init__(self, objective: Objective) -> None:
        self._all: dict[int, Trial] = {}
        self.waiting: dict[int, Trial] = {}
        self.running: dict[int, Trial] = {}
        self.best: Trial | None = None
        self._objective = objective
        self._latest: dict[Place, int] = {}
        self._open: set[Place] = set()  # of the search

    @property
    def trials(self) -> list[Trial]:
        """All of them, in the order they were written down."""
        return list(self._all.values())

    def has(self, phase: str, index: int, of: int | None = None) -> bool:
        """Whether there is a trial at this place; `of` is the index where it is not given."""
        return (phase, index if of is None else of, index) in self._latest

    @property
    def search_is_over(self) -> bool:
        """Whether every search trial that was written down has ended."""
        return not self._open

    @property
    def begun(self) -> int:
        """How many trials have begun."""
        return len(self._all) - len(self.waiting)

    def due(self) -> list[Trial]:
        """The trials that count (see `trial.due`)."""
        return due(self._all.values(), self.best)

    def history(self) -> list[Seen]:
        """What a sampler that learns is told."""
        latest = [self._all[number] for number in self._latest.values()]
        return [
            Seen(
                trial.job.index + (_BEHIND_ALL if trial.job.phase == ADDED else 0),
                trial.job.params,
                trial.outcome.value if trial.outcome else None,
                running=not trial.ended,
            )
            for trial in latest
            if trial.job.phase != REPLICATE and trial.state not in (WAITING, FAILED)
        ]

    def next_waiting(self) -> Trial | None:
        """The waiting trial that is to start next; replicates wait for the end of the search."""
        for trial in self.waiting.values():
            if trial.job.phase in (SEARCH, ADDED) or (self.search_is_over and self._counts(trial)):
                return trial
        return None

    def update(self, trial: Trial) -> None:
        """Take in a new trial, or a trial's new state."""
        self._all[trial.number] = trial
        for state, those in ((WAITING, self.waiting), (RUNNING, self.running)):
            if trial.state == state:
                those[trial.number] = trial
            else:
                those.pop(trial.number, None)
        place = trial.job.place
        if self._latest.setdefault(place, trial.number) < trial.number:
            self._latest[place] = trial.number
        if trial.job.phase != SEARCH or self._latest[place] != trial.number:
            return
        (self._open.discard if trial.ended else self._open.add)(place)
        if trial.state == FINISHED:
            self.best = max(filter(None, (self.best, trial)), key=self._merit)

    def _counts(self, trial: Trial) -> bool:
        return trial.job.phase != REPLICATE or (self.best is not None and trial.job.of == self.best.job.index)

    def _merit(self, trial: Trial) -> tuple[float, float, int]:
        return merit(trial, self._objective)


def merit(trial: Trial, objective: Objective) -> tuple[float, float, int]:
    """What the better of two finished trials has more of."""
    outcome = trial.outcome
    assert outcome is not None
    assert outcome.value is not None
    tie = float("-inf")
    if objective.tie_breaker and outcome.tie_breaker is not None:
        tie = objective.tie_breaker.sign * outcome.tie_breaker
    return (objective.sign * outcome.value, tie, -trial.job.index)
