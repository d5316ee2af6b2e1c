"""What a trial of each arm costs, measured on some of its steps in a process like a trial's."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from bbi_lightning.sweeps.conditions import Params
from bbi_lightning.sweeps.errand import run_errand
from bbi_lightning.sweeps.overrides import trial_overrides
from bbi_lightning.sweeps.spec import Arm, SweepSpec
from bbi_lightning.sweeps.task import Report, Task

_TIMES = (
    12.0  # a probe's process may take so much longer than the steps that it times: to set up, validate, test
)


@dataclass(frozen=True)
class Probing:
    """How much is measured.

    Attributes:
        steps: optimizer steps to time in each arm; 0: measure nothing.
        seconds: of training after which fewer must do; what takes twelve times as long is given up.
        threads: of a trial.
    """

    steps: int = 50
    seconds: float = 10.0
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """What one trial of an arm costs. NaN where it is not known.

    Attributes:
        arm: the arm's name.
        setup_s: seconds before the first step; the imports are made once for all trials and do not count.
        total_steps: optimizer steps of the whole run.
        step_s: seconds of one.
        validations: how many there are in the whole run.
        validation_s: seconds of one.
        test_s: seconds of the test at the end.
        whole_s: seconds of a whole run, where one was measured instead of its parts.
        peak_bytes: memory of its processes at most, what they share with others included.
        own_bytes: the part of it that another trial beside it would need again.
        gpu_bytes: GPU memory at most; 0 without a GPU.
        gpu_total_bytes: what that GPU has.
        checkpoint_bytes, checkpoints: size of one, and how many are kept.
        log_bytes: all else in a run's folder.
        trouble: why something is not known, in a sentence; None when all is.
    """

    arm: str
    setup_s: float = math.nan
    total_steps: float = math.nan
    step_s: float = math.nan
    validations: float = 0.0
    validation_s: float = 0.0
    test_s: float = 0.0
    whole_s: float = math.nan
    peak_bytes: float = math.nan
    own_bytes: float = math.nan
    gpu_bytes: float = 0.0
    gpu_total_bytes: float = 0.0
    checkpoint_bytes: float = 0.0
    checkpoints: float = 0.0
    log_bytes: float = 0.0
    trouble: str | None = None

    @property
    def run_s(self) -> float:
        """Seconds of a whole run, alone on its cores."""
        if not math.isnan(self.whole_s):
            return self.whole_s
        training = self.total_steps * self.step_s + self.validations * self.validation_s
        return self.setup_s + training + self.test_s

    @property
    def disk_bytes(self) -> float:
        """Bytes of a run's folder when it has ended."""
        return self.log_bytes + self.checkpoints * self.checkpoint_bytes

    def plain(self) -> dict[str, Any]:
        """For --json; null where it is not known."""
        values = vars(self) | {"run_s": self.run_s, "disk_bytes": self.disk_bytes}
        return {key: None if value != value else value for key, value in values.items()}


@dataclass(frozen=True)
class _Probe:
    """The errand: some steps, or a whole run where the task knows no better."""

    task: Task
    overrides: Sequence[str]
    root: Path
    labels: Mapping[str, Any]
    probing: Probing

    def __call__(self, report: Report) -> None:
        self.root.mkdir()
        if self.task.probe is not None:
            self.task.probe(self.overrides, self.root, self.probing.steps, self.probing.seconds, report)
        else:
            self.task.run(self.overrides, self.root, self.labels)


def measure(
    context: ForkServerContext,
    task: Task,
    spec: SweepSpec,
    arm: Arm,
    point: Params,
    probing: Probing,
) -> Measured:
    """Measure one trial of an arm.

    Args:
        context: the fork server.
        task: how a trial is run.
        spec: the sweep.
        arm: one of its arms.
        point: where in its space.
        probing: how much is measured.
    """
    overrides = trial_overrides(spec, arm, point, spec.search.seed)
    with tempfile.TemporaryDirectory(prefix="bbi-probe-") as name:
        folder = Path(name)
        labels = {"sweep": spec.name, "arm": arm.name, "phase": "search", "trial": 0, "params": point}
        work = _Probe(task, overrides, folder / "runs", labels, probing)
        limit = _TIMES * probing.seconds
        ending = run_errand(context, work, folder, seconds=limit, threads=probing.threads)
        facts: dict[str, Any] = {}
        for report in ending.reports:
            facts |= report
        if task.probe is None:
            facts["log_bytes"] = _size(folder / "runs")
            facts["whole_s"] = math.nan if ending.failure else ending.seconds
    memory = {"peak_bytes": float(ending.peak), "own_bytes": float(ending.own)}
    trouble = None if ending.failure is None else ending.failure.strip().splitlines()[-1]
    known = {field.name for field in dataclasses.fields(Measured)}
    facts = {key: value for key, value in facts.items() if key in known}
    return Measured(arm.name, **facts, **memory, trouble=trouble)


def _size(folder: Path) -> float:
    return float(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
