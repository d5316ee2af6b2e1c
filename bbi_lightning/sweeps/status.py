"""Where a sweep stands: counts per arm, the best so far, what failed, how long it will take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.spec import Arm, SweepSpec
from bbi_lightning.sweeps.study import Studies, best
from bbi_lightning.sweeps.trial import (
    ADDED,
    DIVERGED,
    FAILED,
    PRUNED,
    REPLICATE,
    RUNNING,
    SEARCH,
    Owner,
    Trial,
)
from bbi_lightning.sweeps.workers import Roster, WorkerInfo

_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class ArmStatus:
    """Where one arm stands.

    Attributes:
        arm: its description.
        searches: search trials there will be.
        searched: those that have ended, however.
        replicated: replicates of the best that have ended.
        replicates: how many there will be; 0 when the search is over and left nothing to replicate.
        added: trials by hand that have ended; added_in_all: all of them.
        running: trials under way.
        interrupted: trials that were begun and that nobody runs at the moment.
        diverged, pruned, cancelled, failed: ended trials of all phases.
        best: the best finished search trial, None before there is one.
        failures: the failed trials.
        seconds: mean wall time of the ended trials that ran, None before there is one.
    """

    arm: Arm
    searches: int
    searched: int
    replicated: int
    replicates: int
    added: int
    added_in_all: int
    running: int
    interrupted: int
    diverged: int
    pruned: int
    cancelled: int
    failed: int
    best: Trial | None
    failures: tuple[Trial, ...]
    seconds: float | None

    @property
    def ended(self) -> int:
        """Runs that have ended."""
        return self.searched + self.replicated + self.added

    @property
    def total(self) -> int:
        """Runs there will be."""
        return self.searches + self.replicates + self.added_in_all

    @property
    def best_value(self) -> float | None:
        """The best objective of the search so far."""
        return self.best.outcome.value if self.best and self.best.outcome else None


@dataclass(frozen=True)
class SweepStatus:
    """Where a sweep stands.

    Attributes:
        spec: its description.
        arms: in the order of the description.
        total: runs there will be, over both phases.
        ended: runs that have ended.
        running: runs under way.
        eta: seconds until the end, from the measured durations; None before the first run has ended.
        workers: who is at work.
    """

    spec: SweepSpec
    arms: tuple[ArmStatus, ...]
    total: int
    ended: int
    running: int
    eta: float | None
    workers: tuple[WorkerInfo, ...] = ()

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.ended == self.total

    @property
    def diverged(self) -> int:
        """Runs that diverged."""
        return sum(arm.diverged for arm in self.arms)

    @property
    def failures(self) -> tuple[Trial, ...]:
        """The failed trials of all arms."""
        return tuple(trial for arm in self.arms for trial in arm.failures)

    def failure_groups(self) -> list[tuple[str, list[Trial]]]:
        """The failed trials by the last line of their error, whatever numbers are in it; the most frequent
        first, each with the line of its first trial."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.failures:
            groups.setdefault(_NUMBER.sub("#", _last_line(trial)), []).append(trial)
        return [
            (_last_line(trials[0]), trials)
            for trials in sorted(groups.values(), key=lambda trials: -len(trials))
        ]

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.spec.name,
            "total": self.total,
            "ended": self.ended,
            "running": self.running,
            "done": self.done,
            "eta_s": self.eta,
            "workers": [asdict(worker) for worker in self.workers],
            "arms": {status.arm.name: _plain(status) for status in self.arms},
        }


def read_status(
    studies: Studies,
    ages: Mapping[int, float] | None = None,
    *,
    slots: int | None = None,
    living: Sequence[WorkerInfo] = (),
) -> SweepStatus:
    """Where the sweep stands.

    Args:
        studies: its studies.
        ages: seconds that each running trial (by its key) has run, where known: sharpens the ETA.
        slots: runs at a time while nobody works on it; the description's `workers` if not given.
        living: who works on it; a trial under way of anybody else is an interrupted one.
    """
    spec = studies.spec
    chosen = {arm.name: studies.due(arm.name) for arm in spec.arms}
    owners = {worker.owner for worker in living}
    arms = tuple(_arm_status(spec, arm, chosen[arm.name], owners) for arm in spec.arms)
    ended = sum(arm.ended for arm in arms)
    total = sum(arm.total for arm in arms)
    running = [t for trials in chosen.values() for t in trials if t.state == RUNNING and t.owner in owners]
    at_a_time = sum(worker.slots for worker in living) or slots or spec.workers
    eta = _eta(arms, running, ages or {}, at_a_time)
    return SweepStatus(spec, arms, total, ended, len(running), eta, tuple(living))


def sweep_status(folder: SweepFolder, *, slots: int | None = None) -> SweepStatus:
    """Where an existing sweep stands. Changes nothing; it may be running.

    Args:
        folder: the sweep's.
        slots: as for `read_status`.

    Raises:
        FileNotFoundError: there is no sweep.
        SweepError: it is damaged.
    """
    spec = folder.read_spec()
    if not folder.journal.is_file():
        raise FileNotFoundError(f"{folder.path} has no journal yet: start it with bbi sweep run")
    living = Roster(folder.workers, spec.lock).living()
    return read_status(Studies(folder.journal, spec), slots=slots, living=living)


def _arm_status(spec: SweepSpec, arm: Arm, trials: list[Trial], owners: Set[Owner]) -> ArmStatus:
    ended = [trial for trial in trials if trial.ended]
    searches = spec.search.trials * spec.search.studies
    searched = sum(trial.job.phase == SEARCH for trial in ended)
    planned = sum(trial.job.phase == REPLICATE for trial in trials)  # all, once the search is over
    winner = best(trials, spec.objective)
    begun = [trial for trial in trials if trial.state == RUNNING]
    running = sum(trial.owner in owners for trial in begun)
    failures = tuple(trial for trial in trials if trial.state == FAILED and not trial.is_cancelled)
    seconds = [t.outcome.seconds for t in ended if t.outcome and t.outcome.seconds > 0]
    return ArmStatus(
        arm=arm,
        searches=searches,
        searched=searched,
        replicated=sum(trial.job.phase == REPLICATE for trial in ended),
        replicates=planned if searched == searches else spec.replicates.count * spec.search.studies,
        added=sum(trial.job.phase == ADDED for trial in ended),
        added_in_all=sum(trial.job.phase == ADDED for trial in trials),
        running=running,
        interrupted=len(begun) - running,
        diverged=sum(trial.state == DIVERGED for trial in trials),
        pruned=sum(trial.state == PRUNED for trial in trials),
        cancelled=sum(trial.is_cancelled for trial in trials),
        failed=len(failures),
        best=winner,
        failures=failures,
        seconds=sum(seconds) / len(seconds) if seconds else None,
    )


def _last_line(trial: Trial) -> str:
    lines = ((trial.outcome and trial.outcome.error) or "").strip().splitlines()
    return lines[-1] if lines else "unknown"


def _eta(
    arms: tuple[ArmStatus, ...], running: list[Trial], ages: Mapping[int, float], slots: int
) -> float | None:
    measured = [arm.seconds for arm in arms if arm.seconds is not None]
    if not measured:
        return None
    overall = sum(measured) / len(measured)
    mean = {status.arm.name: status.seconds if status.seconds is not None else overall for status in arms}
    work = sum(mean[status.arm.name] * (status.total - status.ended) for status in arms)
    work -= sum(min(ages.get(trial.key, 0.0), mean[trial.job.arm]) for trial in running)
    return work / slots


def _plain(status: ArmStatus) -> dict[str, Any]:
    best_trial, outcome = status.best, status.best.outcome if status.best else None
    return {
        "searched": status.searched,
        "replicated": status.replicated,
        "replicates": status.replicates,
        "running": status.running,
        "interrupted": status.interrupted,
        "diverged": status.diverged,
        "pruned": status.pruned,
        "cancelled": status.cancelled,
        "failed": status.failed,
        "mean_seconds": status.seconds,
        "best": None
        if best_trial is None or outcome is None
        else {"value": outcome.value, "params": best_trial.job.params, "run": best_trial.run},
        "failures": [
            {
                "trial": trial.job.name,
                "run": trial.run,
                "host": trial.worker.get("host"),
                "error": trial.outcome.error if trial.outcome else None,
            }
            for trial in status.failures
        ],
    }
