"""A sweep before it runs: every trial's config checked, its cost measured, and what is compared with what.

Queues nothing and leaves nothing.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbi_lightning.sweeps import child
from bbi_lightning.sweeps.config_check import Progress, check_all, points_to_expect
from bbi_lightning.sweeps.fairness import differences_of_budget, what_is_compared
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.overrides import trial_overrides
from bbi_lightning.sweeps.probe import Measured, Probing, measure
from bbi_lightning.sweeps.run import as_it_has_grown
from bbi_lightning.sweeps.spec import SweepSpec, check_metrics
from bbi_lightning.sweeps.task import Task

_JOURNAL_BYTES = 2000.0  # of one trial in the study's journal


@dataclass(frozen=True)
class ArmPlan:
    """One arm.

    Attributes:
        name, label: as in the description.
        trials, replicates: runs of each kind.
        space: config key to what it may be.
        example: the overrides of its first trial.
        measured: what a trial costs; None: not probed.
    """

    name: str
    label: str
    trials: int
    replicates: int
    space: Mapping[str, Any]
    example: Sequence[str]
    measured: Measured | None = None

    @property
    def runs(self) -> int:
        """All of its runs."""
        return self.trials + self.replicates

    @property
    def seconds(self) -> float:
        """What they take one after the other; NaN when it is not known."""
        return self.runs * self.measured.run_s if self.measured else math.nan


@dataclass(frozen=True)
class Plan:
    """What `make_plan` finds out.

    Attributes:
        spec: the sweep.
        arms: its arms.
        compared: what is compared with what, in sentences.
        warnings: what the user should know before starting, in sentences.
        checked: how many configs were checked, all of them right.
        check_s: seconds that took.
        threads: of each trial.
        disk_free: bytes free where the sweep will be.
    """

    spec: SweepSpec
    arms: tuple[ArmPlan, ...]
    compared: tuple[str, ...]
    warnings: tuple[str, ...]
    checked: int
    check_s: float
    threads: int
    disk_free: int

    @property
    def runs(self) -> int:
        """All runs."""
        return sum(arm.runs for arm in self.arms)

    @property
    def seconds(self) -> float:
        """What they take one after the other; NaN when it is not known."""
        return sum(arm.seconds for arm in self.arms)

    @property
    def needs_gpu(self) -> bool:
        """Whether the probe trained on a GPU."""
        return any(arm.measured and arm.measured.gpu_bytes > 0 for arm in self.arms)

    @property
    def core_hours(self) -> float:
        """Hours of a core; NaN when it is not known."""
        return self.seconds * self.threads / 3600

    @property
    def disk_bytes(self) -> float:
        """What all run folders and the journal will hold; NaN when it is not known."""
        folders = sum(arm.runs * arm.measured.disk_bytes if arm.measured else math.nan for arm in self.arms)
        return folders + self.runs * _JOURNAL_BYTES

    def largest(self, what: str) -> float:
        """The largest of a figure of `Measured` over the arms; NaN when none was measured."""
        known = [getattr(arm.measured, what) for arm in self.arms if arm.measured]
        return max((value for value in known if value == value), default=math.nan)

    def plain(self) -> dict[str, Any]:
        """For --json; null where it is not known."""
        arms = {}
        for arm in self.arms:
            facts = dataclasses.asdict(arm) | {"runs": arm.runs, "seconds": _known(arm.seconds)}
            arms[facts.pop("name")] = facts | {"measured": arm.measured.plain() if arm.measured else None}
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "arms": arms,
            "runs": self.runs,
            "compared": list(self.compared),
            "warnings": list(self.warnings),
            "checked": self.checked,
            "check_s": round(self.check_s, 2),
            "seconds": _known(self.seconds),
            "core_hours": _known(self.core_hours),
            "gpu_hours": _known(self.seconds / 3600) if self.needs_gpu else 0.0,
            "disk_bytes": _known(self.disk_bytes),
            "disk_free": self.disk_free,
        }


def make_plan(
    spec: SweepSpec,
    task: Task,
    root: Path,
    probing: Probing = Probing(),  # noqa: B008  # it is frozen
    progress: Progress = lambda what, done, total: None,
) -> Plan:
    """Check every trial's config and measure what one of each arm costs.

    Args:
        spec: the sweep.
        task: how a trial is run.
        root: the folder of sweeps; nothing is written there.
        probing: how much is measured.
        progress: told how far it is.

    Raises:
        SweepError: a trial's config is wrong (says which, and how many), or the sweep was begun otherwise.
    """
    check_metrics(spec, task.metrics)
    folder = SweepFolder(root / spec.name)
    if folder.spec_file.is_file():
        spec = as_it_has_grown(spec, folder.read_spec())
    folder.check(spec)
    points = {arm.name: points_to_expect(spec, arm) for arm in spec.arms}
    context = child.fork_server(task.preload)
    began = time.monotonic()
    checked = check_all(context, task, spec, points, progress)
    check_s = time.monotonic() - began
    measured: dict[str, Measured] = {}
    for number, arm in enumerate(spec.arms if probing.steps else ()):
        progress(f"measuring {arm.label}", number, len(spec.arms))
        point = points[arm.name][0].params
        measured[arm.name] = measure(context, task, spec, arm, point, probing)
    arms = tuple(
        ArmPlan(
            name=arm.name,
            label=arm.label,
            trials=len(points[arm.name]),
            replicates=spec.replicates.count * spec.search.studies,
            space={key: space.plain() for key, space in arm.space.items()},
            example=trial_overrides(spec, arm, points[arm.name][0].params, points[arm.name][0].seed),
            measured=measured.get(arm.name),
        )
        for arm in spec.arms
    )
    free = shutil.disk_usage(_existing(root)).free
    plan = Plan(spec, arms, tuple(what_is_compared(spec)), (), checked, check_s, probing.threads, free)
    return dataclasses.replace(plan, warnings=tuple(_warnings(plan)))


def _warnings(plan: Plan) -> list[str]:
    measured = [arm.measured for arm in plan.arms if arm.measured]
    warnings = differences_of_budget(plan.spec, measured)
    warnings += [f"{m.arm} could not be measured: {m.trouble}" for m in measured if m.trouble]
    if plan.disk_bytes > 0.9 * plan.disk_free:
        need, free = plan.disk_bytes / 2**30, plan.disk_free / 2**30
        warnings.append(
            f"The runs will need {need:.1f} GiB, and {free:.1f} GiB are free: use another --dir, or keep "
            "fewer checkpoints (checkpoint.keep_last=1, checkpoint.keep_best=null)."
        )
    return warnings


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
