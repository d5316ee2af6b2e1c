"""Checks the config of every trial of a sweep, thousands in seconds, in a process that has the imports."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

from bbi_lightning.sweeps.conditions import Params
from bbi_lightning.sweeps.errand import run_errand
from bbi_lightning.sweeps.overrides import override
from bbi_lightning.sweeps.points import arm_points, edge_points, point_sequence
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import Arm, SweepSpec
from bbi_lightning.sweeps.task import Check, Report, Task

_MOST_COMPLAINTS = 5  # of one arm: each takes long to put in words, and they are alike
_PATIENCE = 3600.0  # seconds that all may take
_BETWEEN = 0.1  # seconds between two reports

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it, of how much)"""


@dataclass(frozen=True)
class Expected:
    """A trial to come.

    Attributes:
        name: as a user would call it: sgd/12, or sgd/2:12 in the study number 2.
        params: config key to value.
        seed: the run's.
    """

    name: str
    params: Params
    seed: int

    @property
    def overrides(self) -> list[str]:
        """The point and the seed as words of a command line."""
        return [*(override(key, value) for key, value in self.params.items()), f"seed={self.seed}"]


def points_to_expect(spec: SweepSpec, arm: Arm) -> list[Expected]:
    """The search trials of one arm; those whose point will depend on results stand where a search that does
    not learn would go on."""
    expected = []
    for study in range(spec.search.studies):
        seed, trials = spec.search.seed + study, spec.search.trials
        points: Iterable[Params] = arm_points(spec, arm, study)
        if spec.search.is_adaptive:
            points = itertools.islice(point_sequence(spec, arm, study, trials), trials)
        place = f"{arm.name}/{study}:" if study else f"{arm.name}/"
        expected += [Expected(f"{place}{number}", params, seed) for number, params in enumerate(points)]
    return expected


def check_all(
    context: ForkServerContext,
    task: Task,
    spec: SweepSpec,
    trials: Mapping[str, Sequence[Expected]],
    progress: Progress = lambda what, done, total: None,
) -> int:
    """Check trials, and the ends of the spaces, where a longer search may come; returns how many configs.

    Args:
        context: the fork server.
        task: how a trial is run.
        spec: the sweep.
        trials: arm's name to its trials.
        progress: told how far it is.

    Raises:
        SweepError: a config is wrong; says which, and how many.
    """
    arms = []
    for arm in spec.arms:
        end = f"arm {arm.name}, at an end of its space"
        ends = [Expected(end, params, spec.search.seed) for params in edge_points(arm)]
        arms.append((arm.name, [*spec.base, *arm.overrides], [*trials[arm.name], *ends]))
    total = sum(len(each) for _, _, each in arms)
    what = f"checking {total:,} configurations"
    progress(what, 0, total)
    with tempfile.TemporaryDirectory(prefix="bbi-plan-") as name:
        ending = run_errand(
            context,
            _CheckAll(task, arms),
            Path(name),
            seconds=_PATIENCE,
            listen=lambda facts: progress(what, int(facts["done"]), total),
        )
    wrong = [facts for facts in ending.reports if "wrong" in facts]
    if wrong:
        raise SweepError(_in_words([f"{facts['trial']}: {facts['wrong']}" for facts in wrong]))
    if ending.failure is not None:
        raise SweepError(f"the check of the configurations died: {ending.failure}")
    return total


@dataclass(frozen=True)
class _CheckAll:
    """The errand: every trial of every arm."""

    task: Task
    arms: Sequence[tuple[str, Sequence[str], Sequence[Expected]]]  # name, overrides, trials

    def __call__(self, report: Report) -> None:
        done, spoke = 0, time.monotonic()
        for _, overrides, trials in self.arms:
            complaints = 0
            check = self.task.checker(overrides) if self.task.checker else None
            for trial in trials:
                complaint = self._complaint(check, overrides, trial)
                done += 1
                if complaint is not None:
                    complaints += 1
                    report({"done": done, "trial": trial.name, "wrong": complaint})
                    if complaints == _MOST_COMPLAINTS:
                        break
                if time.monotonic() > spoke + _BETWEEN:
                    spoke = time.monotonic()
                    report({"done": done})
        report({"done": done})

    def _complaint(self, check: Check | None, overrides: Sequence[str], trial: Expected) -> str | None:
        try:
            if check is not None:
                check(trial.params, trial.overrides)
            else:
                self.task.validate([*overrides, *trial.overrides])
        except (ValueError, TypeError, FileNotFoundError) as error:
            return " ".join(str(error).split())
        return None


def _in_words(wrong: Sequence[str]) -> str:
    others = len(wrong) - 1
    at_least = "at least " if others + 1 >= _MOST_COMPLAINTS else ""
    return wrong[0] + (f" ({at_least}{others} more are wrong)" if others else "")
