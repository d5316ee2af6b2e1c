"""A sweep from its description to its end: prepared, then run by a worker here, or by many on a cluster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bbi_lightning.sweeps import child
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.overrides import trial_overrides
from bbi_lightning.sweeps.points import arm_points, edge_points
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import SweepSpec, check_metrics
from bbi_lightning.sweeps.status import SweepStatus, read_status, sweep_status
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.task import Task
from bbi_lightning.sweeps.trial import FAILED
from bbi_lightning.sweeps.worker import Limits, Slot, Worker
from bbi_lightning.sweeps.workers import Roster
from bbi_lightning.tracking.durable import write_atomically


class Display(Protocol):
    """Whoever shows how a sweep goes on (see `live`)."""

    def note(self, text: str) -> None:
        """Say something once."""

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Say what is being done while something takes a few seconds."""

    def update(self, status: SweepStatus) -> None:
        """Show the latest status; called a few times a second."""

    def close(self, status: SweepStatus) -> None:
        """Show the last status."""


@dataclass(frozen=True)
class SweepEnd:
    """How `run_sweep` ended.

    Attributes:
        status: where the sweep stands.
        folder: where it is.
        reason: "done", "cancelled", "time", or the number of the signal that stopped it.
    """

    status: SweepStatus
    folder: SweepFolder
    reason: str | int


def run_sweep(
    spec: SweepSpec,
    root: Path,
    task: Task,
    display: Display,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    grace: float = child.GRACE,
) -> SweepEnd:
    """Run a sweep, or what is left of it; the same call goes on after whatever stopped the last one.

    Others may work on it too, here or elsewhere: it returns when nothing is left for anybody.

    Args:
        spec: what to run.
        root: the folder of sweeps; this one is in ``root/<name>/``.
        task: how a trial is run.
        display: who shows progress.
        workers: runs at a time; the description's `workers` if not given.
        retry_failed: run failed trials once more.
        grace: seconds that interrupted runs get to save.

    Raises:
        SweepError: the description, one of its configs or the folder is wrong; nothing was started.
    """
    slots = workers or spec.workers
    folder, studies = prepare(spec, root, task, display, retry_failed=retry_failed)
    if read_status(studies, slots=slots).done:
        reason: str | int = "done"
    else:
        reporter = _Reporter(folder, display, slots)
        limits = Limits(places=(child.threads(1),) * slots, grace=grace)
        context = child.fork_server(task.preload)
        reason = Worker(folder, task, context, limits, reporter.report).work()
    status = sweep_status(folder, slots=slots)  # read anew: it may have been extended meanwhile
    display.close(status)
    return SweepEnd(status, folder, reason)


def prepare(
    spec: SweepSpec, root: Path, task: Task, display: Display, *, retry_failed: bool = False
) -> tuple[SweepFolder, Studies]:
    """Have the sweep's folder ready for workers: checked, described, every trial written down.

    Raises:
        SweepError: the description, one of its configs or the folder is wrong; nothing was changed.
    """
    check_metrics(spec, task.metrics)
    folder = SweepFolder(root.resolve() / spec.name)
    old = folder.read_spec() if folder.spec_file.is_file() else None
    if old is not None:
        asked, spec = spec, as_it_has_grown(spec, old)
        if (asked.search, asked.replicates) != (spec.search, spec.replicates):
            display.note(
                f"the sweep was extended to {spec.search.trials} trials an arm: it goes on with them"
            )
    folder.check(spec)
    if old != spec:  # before there is a folder, so that a corrected description finds none in its way
        _validate(spec, task, display)
    folder.path.mkdir(parents=True, exist_ok=True)
    studies = Studies(folder.journal, spec)
    with studies.alone():
        folder.check(spec)  # somebody may have been faster
        if old != spec:
            _describe(folder, spec, task)
        studies.plan()
        for arm in spec.arms if retry_failed else ():
            for trial in studies.due(arm.name):
                if trial.state == FAILED and not trial.is_cancelled:
                    studies.enqueue(trial.job)
        folder.stop_file.unlink(missing_ok=True)
    for sentence in studies.repaired:
        display.note(sentence)
    return folder, studies


def as_it_has_grown(spec: SweepSpec, old: SweepSpec) -> SweepSpec:
    """The description with what the sweep has by now: the command it was begun with must go on with it."""
    search = dataclasses.replace(
        spec.search,
        trials=max(spec.search.trials, old.search.trials),
        studies=max(spec.search.studies, old.search.studies),
    )
    count = max(spec.replicates.count, old.replicates.count)
    grown = dataclasses.replace(
        spec, search=search, replicates=dataclasses.replace(spec.replicates, count=count)
    )
    return dataclasses.replace(grown, lock=old.lock)  # two kinds of locks at a time would be none


def _describe(folder: SweepFolder, spec: SweepSpec, task: Task) -> None:
    """Write the description, and what each arm's config comes to."""
    folder.write_spec(spec)
    for arm in spec.arms if task.resolve is not None else ():
        folder.configs.mkdir(exist_ok=True)
        text = task.resolve([*spec.base, *arm.overrides])  # type: ignore[misc]
        write_atomically(folder.configs / f"{arm.name}.yaml", text.encode())


def candidates(spec: SweepSpec) -> list[tuple[str, list[str]]]:
    """(what it is, overrides) of the configs that must be valid before a start: each arm's first trial and
    the ends of its spaces."""
    configs = []
    for arm in spec.arms:
        first = arm_points(spec, arm)[:1]
        for point in [*first, *edge_points(arm)]:
            configs.append((f"arm {arm.name}", trial_overrides(spec, arm, point, spec.search.seed)))
    return configs


def _validate(spec: SweepSpec, task: Task, display: Display) -> None:
    """In a child, which has what is heavy imported: this process stays small and starts fast."""
    configs = candidates(spec)
    try:
        with display.busy(f"checking {len(configs)} configurations of {len(spec.arms)} arms"):
            complaint = _ask(task, configs)
    except KeyboardInterrupt:  # most likely in the seconds of the server's imports
        child.kill_server()
        raise
    if complaint:
        raise SweepError(complaint)


def _ask(task: Task, configs: list[tuple[str, list[str]]]) -> str | None:
    """What is wrong with one of the configs."""
    process, connection = child.start(child.fork_server(task.preload), child.check, task, configs)
    try:
        complaint: str | None = connection.recv()
    except EOFError:
        process.join()
        raise SweepError(f"the check of the configurations died (exit code {process.exitcode})") from None
    finally:
        child.stop([process], grace=1.0)
        connection.close()
    return complaint


class _Reporter:
    """Shows a worker's progress, seldom enough that it costs nothing at ten thousand trials."""

    def __init__(self, folder: SweepFolder, display: Display, slots: int) -> None:
        self._roster = Roster(folder.workers, folder.read_spec().lock)
        self._display = display
        self._slots = slots
        self._next = 0.0

    def report(self, studies: Studies, running: Sequence[Slot]) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        ages = {slot.trial.key: now - slot.started for slot in running}
        status = read_status(studies, ages, slots=self._slots, living=self._roster.living())
        self._display.update(status)
        self._next = now + 20 * (time.monotonic() - now)  # at most a twentieth of the time
