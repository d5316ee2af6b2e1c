"""A trial as the sweep sees it: where it stands, what it was given, what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bbi_lightning.sweeps.conditions import Params

WAITING, RUNNING, FINISHED, DIVERGED, FAILED = "waiting", "running", "finished", "diverged", "failed"
PRUNED = "pruned"
"""`diverged` and `pruned` are results: the loss stayed non-finite; it fell behind the others and was stopped
early. `failed` raised an error or lost its process twice."""

ENDED = (FINISHED, DIVERGED, PRUNED, FAILED)
CANCELLED = "cancelled by hand"
"""The error of a trial that a user has given up. It runs again only if they name it."""

SEARCH, REPLICATE, ADDED = "search", "replicate", "added"
"""`added`: by hand; it is shown, and never selected for replicates: that would be a larger budget."""

_LETTER = {SEARCH: "", REPLICATE: "r", ADDED: "a"}


@dataclass(frozen=True)
class Job:
    """What a trial is asked to do.

    Attributes:
        arm: the arm's name.
        phase: search, replicate or added.
        index: 0, 1, … within its phase: the point's place in the sequence, or the replicate's number.
        of: the index of the search trial whose point a replicate has; otherwise the same as `index`.
        seed: the run's seed.
        params: config key to value; empty in a search that learns, until it begins.
        study: which of the arm's independent searches.
    """

    arm: str
    phase: str
    index: int
    of: int
    seed: int
    params: Params
    study: int = 0

    @property
    def place(self) -> tuple[str, int, int]:
        """What makes two jobs of one search the same."""
        return (self.phase, self.of, self.index)

    def labels(self, sweep: str) -> dict[str, Any]:
        """What its run folder is labelled with. `trial` is the search trial whose point it runs."""
        return {
            "sweep": sweep,
            "arm": self.arm,
            "study": self.study,
            "phase": self.phase,
            "trial": self.of,
            "replicate": self.index if self.phase == REPLICATE else None,
            "params": self.params,
        }

    @property
    def name(self) -> str:
        """How users call it: sgd/3 in the search, sgd/r3 a replicate, sgd/a3 by hand, sgd/1:3 in the arm's
        second search."""
        study = f"{self.study}:" if self.study else ""
        return f"{self.arm}/{study}{_LETTER[self.phase]}{self.index}"

    def __str__(self) -> str:
        return f"{self.arm} {self.phase} {self.index}"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: finished, diverged, pruned or failed.
        value: the objective's metric when finished; when pruned, the last there was.
        tie_breaker: the tie breaker's metric, if there is one and it is finite.
        seconds: wall time of its process.
        error: the last lines of the traceback, or a sentence, when failed.
    """

    state: str
    value: float | None = None
    tie_breaker: float | None = None
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Owner:
    """One life of a worker.

    Attributes:
        id: the worker's name; a job that SLURM requeues has the same again.
        incarnation: tells its lives apart.
    """

    id: str
    incarnation: str


@dataclass(frozen=True)
class Trial:
    """One trial of the study, read from the journal.

    Attributes:
        number: its number in the arm's study.
        key: the storage's own id, unique over all arms.
        job: what it is asked to do.
        state: waiting, running, finished, diverged, pruned or failed.
        outcome: None until it has ended.
        owner: the worker that has it, or had it last; None before the first, and once it was let go.
        run: the run's name, known once its process has started.
        worker: {"host", "pid", "since"} of the process that trains it, or did last.
        losses: how many of its processes died without a word.
    """

    number: int
    key: int
    job: Job
    state: str
    outcome: Outcome | None
    owner: Owner | None
    run: str | None
    worker: Mapping[str, Any]
    losses: int

    @property
    def ended(self) -> bool:
        """Whether there is an outcome."""
        return self.state in ENDED

    @property
    def is_cancelled(self) -> bool:
        """Whether a user has given it up."""
        return self.state == FAILED and self.outcome is not None and self.outcome.error == CANCELLED


def due(trials: Iterable[Trial], best: Trial | None) -> list[Trial]:
    """The trials of one search that count: the latest at each place, and of the replicates only the best's.

    A failed trial that is tried again is superseded by its successor; a longer search that finds a better
    point leaves the old one's replicates behind.
    """
    latest = {trial.job.place: trial for trial in trials}
    chosen = best.job.index if best else None
    return [t for t in latest.values() if t.job.phase != REPLICATE or t.job.of == chosen]
