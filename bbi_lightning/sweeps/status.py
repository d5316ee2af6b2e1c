"""Where a sweep stands: counts per arm, the best so far, what failed, how long it will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bbi_lightning.sweeps.spec import Arm, SweepSpec
from bbi_lightning.sweeps.study import Studies, best
from bbi_lightning.sweeps.trial import DIVERGED, FAILED, REPLICATE, RUNNING, SEARCH, Trial, due


@dataclass(frozen=True)
class ArmStatus:
    """Where one arm stands.

    Attributes:
        arm: its description.
        searched: search trials that have ended, however.
        replicated: replicates of the best that have ended.
        replicates: how many there will be; 0 when the search is over and left nothing to replicate.
        running: trials under way.
        interrupted: trials that were begun and that nobody runs at the moment.
        diverged, failed: ended trials of both phases.
        best: the best finished search trial, None before there is one.
        failures: the failed trials.
        seconds: mean wall time of the ended trials that ran, None before there is one.
    """

    arm: Arm
    searched: int
    replicated: int
    replicates: int
    running: int
    interrupted: int
    diverged: int
    failed: int
    best: Trial | None
    failures: tuple[Trial, ...]
    seconds: float | None

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
    """

    spec: SweepSpec
    arms: tuple[ArmStatus, ...]
    total: int
    ended: int
    running: int
    eta: float | None

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

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.spec.name,
            "total": self.total,
            "ended": self.ended,
            "running": self.running,
            "done": self.done,
            "eta_s": self.eta,
            "arms": {status.arm.name: _plain(status) for status in self.arms},
        }


def read_status(
    studies: Studies, ages: Mapping[int, float] | None = None, *, slots: int | None = None, alive: bool = True
) -> SweepStatus:
    """Where the sweep stands.

    Args:
        studies: its studies.
        ages: seconds that each running trial (by its key) has run, where known: sharpens the ETA.
        slots: runs at a time; the description's `workers` if not given.
        alive: whether somebody runs the sweep; if not, a trial under way is an interrupted one.
    """
    spec = studies.spec
    chosen = {
        arm.name: due(trials := studies.trials(arm.name), best(trials, spec.objective)) for arm in spec.arms
    }
    arms = tuple(_arm_status(spec, arm, chosen[arm.name], alive) for arm in spec.arms)
    ended = sum(arm.searched + arm.replicated for arm in arms)
    total = sum(spec.search.trials + arm.replicates for arm in arms)
    running = [trial for trials in chosen.values() for trial in trials if alive and trial.state == RUNNING]
    return SweepStatus(
        spec, arms, total, ended, len(running), _eta(spec, arms, running, ages or {}, slots or spec.workers)
    )


def _arm_status(spec: SweepSpec, arm: Arm, trials: list[Trial], alive: bool) -> ArmStatus:
    ended = [trial for trial in trials if trial.ended]
    searched = sum(trial.job.phase == SEARCH for trial in ended)
    winner = best(trials, spec.objective)
    begun = sum(trial.state == RUNNING for trial in trials)
    seconds = [t.outcome.seconds for t in ended if t.outcome and t.outcome.seconds > 0]
    return ArmStatus(
        arm=arm,
        searched=searched,
        replicated=sum(trial.job.phase == REPLICATE for trial in ended),
        replicates=0 if winner is None and searched == spec.search.trials else spec.replicates.count,
        running=begun if alive else 0,
        interrupted=0 if alive else begun,
        diverged=sum(trial.state == DIVERGED for trial in trials),
        failed=sum(trial.state == FAILED for trial in trials),
        best=winner,
        failures=tuple(trial for trial in trials if trial.state == FAILED),
        seconds=sum(seconds) / len(seconds) if seconds else None,
    )


def _eta(
    spec: SweepSpec, arms: tuple[ArmStatus, ...], running: list[Trial], ages: Mapping[int, float], slots: int
) -> float | None:
    measured = [arm.seconds for arm in arms if arm.seconds is not None]
    if not measured:
        return None
    overall = sum(measured) / len(measured)
    mean = {status.arm.name: status.seconds if status.seconds is not None else overall for status in arms}
    work = sum(
        mean[status.arm.name] * (spec.search.trials + status.replicates - status.searched - status.replicated)
        for status in arms
    )
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
        "failed": status.failed,
        "mean_seconds": status.seconds,
        "best": None
        if best_trial is None or outcome is None
        else {"value": outcome.value, "params": best_trial.job.params, "run": best_trial.run},
        "failures": [
            {
                "trial": str(trial.job),
                "run": trial.run,
                "error": trial.outcome.error if trial.outcome else None,
            }
            for trial in status.failures
        ],
    }
