"""A sweep from its description to its end, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from bbi_lightning.sweeps.status import SweepStatus, read_status
from bbi_lightning.sweeps.study import Studies, repair_journal
from bbi_lightning.sweeps.task import Task
from bbi_lightning.sweeps.trial import FAILED
from bbi_lightning.sweeps.worker import Slot, Worker


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
        signal: what stopped it early (a signal's number), None when nothing is left to run.
    """

    status: SweepStatus
    folder: SweepFolder
    signal: int | None


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
    check_metrics(spec, task.metrics)
    folder = SweepFolder(root.resolve() / spec.name)
    folder.check(spec)
    fresh = not folder.spec_file.is_file()
    if fresh:  # before there is a folder, so that a corrected description finds none in its way
        _validate(spec, task, display)

    slots = workers or spec.workers
    with folder.held():
        folder.check(spec)
        repaired = repair_journal(folder.journal)
        if repaired:
            display.note(repaired)
        studies = Studies(folder.journal, spec)
        retried = [
            t for arm in spec.arms for t in studies.due(arm.name) if retry_failed and t.state == FAILED
        ]
        status = read_status(studies, slots=slots)
        if status.done and not retried:
            display.close(status)
            return SweepEnd(status, folder, None)

        if not fresh:
            _validate(spec, task, display)
        folder.write_spec(spec)
        studies.plan()
        for trial in retried:
            studies.enqueue(trial.job)
        context = child.fork_server(task.preload)
        report = _reporter(studies, display, slots)
        signal = Worker(studies, folder.runs, task, context, slots=slots, report=report, grace=grace).work()
        status = read_status(studies, slots=slots, alive=False)
        display.close(status)
    return SweepEnd(status, folder, signal)


def sweep_status(folder: SweepFolder) -> SweepStatus:
    """Where an existing sweep stands. Changes nothing; it may be running.

    Raises:
        FileNotFoundError: there is no sweep.
        SweepError: it is damaged.
    """
    spec = folder.read_spec()
    if not folder.journal.is_file():
        raise FileNotFoundError(f"{folder.path} has no journal yet: start it with bbi sweep run")
    return read_status(Studies(folder.journal, spec), alive=folder.holder() is not None)


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


def _reporter(studies: Studies, display: Display, slots: int) -> Callable[[Sequence[Slot]], None]:
    def report(running: Sequence[Slot]) -> None:
        now = time.monotonic()
        display.update(
            read_status(studies, {slot.trial.key: now - slot.started for slot in running}, slots=slots)
        )

    return report
