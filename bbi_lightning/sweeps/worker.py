"""Runs the trials of a sweep on this machine, several at a time, each in a fresh process.

The study is the only queue: a worker takes a waiting trial, writes down who runs it as which run, and tells
how it ended. Whatever kills it, the next worker finds the trial RUNNING, waits until nobody holds its run,
and goes on with the same run folder: a result that lies there is told, anything else is continued.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from bbi_lightning.sweeps import child
from bbi_lightning.sweeps.outcome import cause_of_death, failure_of, result_of
from bbi_lightning.sweeps.overrides import trial_overrides
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.task import Task
from bbi_lightning.sweeps.trial import FAILED, RUNNING, Outcome, Trial
from bbi_lightning.tracking.run_folder import RunFolder

_TICK = 0.2  # seconds between looks at the clock, the stop request and parked trials
_MAX_LOSSES = 1  # a process may die without a word once; the second time the trial has failed


class StopRequest:
    """Ctrl-C, SIGTERM and SIGHUP as a flag, so that no line of the journal is cut in two.

    A context manager; outside the main thread it never sees a signal. `number` is the first signal that came,
    None before; `count` how many came.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        self.count += 1


@dataclass
class Slot:
    """A running process and its trial.

    Attributes:
        trial: what it works on.
        process, connection: the child and our end of the line to it; None once the line is closed.
        started: monotonic seconds.
        run: the run's name, once the child has named it and may go.
        raised: the traceback that it sent.
        dismissed: it was told not to train, its trial is dealt with.
    """

    trial: Trial
    process: ForkServerProcess
    connection: Connection | None
    started: float
    run: str | None = None
    raised: str | None = None
    dismissed: bool = False


class Worker:
    """Works on a sweep until nothing is left to do.

    Args:
        studies: the sweep's studies, all trials planned.
        runs: the folder of the run folders.
        task: how a trial is run.
        context: the fork server (`child.fork_server`).
        slots: processes at a time.
        report: called a few times a second, with what is running: to draw a table.
        grace: seconds that children get to save after SIGTERM.
    """

    def __init__(
        self,
        studies: Studies,
        runs: Path,
        task: Task,
        context: ForkServerContext,
        *,
        slots: int,
        report: Callable[[Sequence[Slot]], None],
        grace: float = child.GRACE,
    ) -> None:
        self._studies = studies
        self._runs = runs
        self._task = task
        self._context = context
        self._limit = slots
        self._report = report
        self._grace = grace
        self._slots: list[Slot] = []
        self._claimed: deque[Trial] = deque()  # ours already, to be started (again)
        self._parked: list[tuple[Trial, str]] = []  # somebody else works on the same run at the moment

    def work(self) -> int | None:
        """Run everything; returns the number of the signal that stopped it early, None when all is done."""
        spec = self._studies.spec
        left = [t for arm in spec.arms for t in self._studies.trials(arm.name) if t.state == RUNNING]
        self._claimed.extend(left)
        with StopRequest() as stop:
            try:
                while stop.number is None:
                    self._unpark()
                    self._fill()
                    self._report(self._slots)
                    if not self._slots and not self._parked:
                        break
                    self._listen()
            finally:
                child.stop([slot.process for slot in self._slots], self._grace, lambda: stop.count > 1)
                for slot in list(self._slots):
                    self._end(slot, stopping=True)
            self._report(self._slots)
        return stop.number

    def _fill(self) -> None:
        while len(self._slots) < self._limit:
            trial = self._claimed.popleft() if self._claimed else self._next()
            if trial is None:
                return
            self._start(trial)

    def _next(self) -> Trial | None:
        """The next trial, of the arm that has had the fewest so far: half a sweep is then a fair one too."""
        runnable = {arm: trials for arm, trials in self._studies.runnable().items() if trials}
        begun = {arm: len(self._studies.due(arm)) - len(trials) for arm, trials in runnable.items()}
        for arm in sorted(runnable, key=lambda arm: begun[arm]):
            for trial in runnable[arm]:
                if self._studies.claim(trial):
                    return trial
        return None

    def _start(self, trial: Trial) -> None:
        spec, job = self._studies.spec, trial.job
        if trial.run and self._settle(trial, trial.run, seconds=0.0):
            return
        overrides = trial_overrides(spec, spec.arm(job.arm), job.params, job.seed)
        started = time.monotonic()
        process, connection = child.start(
            self._context, child.run_trial, self._task, overrides, self._runs, job.labels(spec.name)
        )
        self._slots.append(Slot(trial, process, connection, started))

    def _listen(self) -> None:
        lines = [slot.connection for slot in self._slots if slot.connection]
        wait([*lines, *(slot.process.sentinel for slot in self._slots)], _TICK)
        for slot in list(self._slots):
            ended = slot.process.exitcode is not None  # first: what was said before the end is then readable
            self._read(slot)
            if ended:
                self._end(slot)

    def _read(self, slot: Slot) -> None:
        try:
            while slot.connection and slot.connection.poll():
                what, text = slot.connection.recv()
                if what == "raised":
                    slot.raised = text
                else:
                    slot.connection.send(self._may_go(slot, text))
        except (EOFError, OSError):
            if slot.connection:
                slot.connection.close()
            slot.connection = None

    def _may_go(self, slot: Slot, run: str) -> bool:
        """Whether a child may train the run it named: not if there is a result, or somebody at it already."""
        busy = (
            any(other.run == run for other in self._slots) or RunFolder(self._runs / run).holder() is not None
        )
        if busy:
            self._parked.append((slot.trial, run))
        elif not self._settle(slot.trial, run, seconds=0.0):
            worker = {
                "host": socket.gethostname(),
                "pid": slot.process.pid,
                "supervisor": os.getpid(),
                "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            self._studies.note_start(slot.trial, run, worker)
            slot.run = run
            return True
        slot.dismissed = True
        return False

    def _unpark(self) -> None:
        for trial, run in list(self._parked):
            busy = any(slot.run == run for slot in self._slots)
            if not busy and RunFolder(self._runs / run).holder() is None:
                self._parked.remove((trial, run))
                self._claimed.append(trial)

    def _end(self, slot: Slot, *, stopping: bool = False) -> None:
        """A child has gone: tell what came of its trial, or start it again."""
        self._read(slot)
        if slot.connection:
            slot.connection.close()
        self._slots.remove(slot)
        seconds = time.monotonic() - slot.started
        if slot.dismissed or (slot.run and self._settle(slot.trial, slot.run, seconds)) or stopping:
            return  # what was stopped stays RUNNING in the study, and the next worker goes on with it

        code = slot.process.exitcode
        killed = code is not None and code < 0
        outcome = None if killed else failure_of(self._runs / slot.run if slot.run else None, slot.raised)
        if outcome is None and slot.trial.losses < _MAX_LOSSES:
            self._studies.note_loss(slot.trial)
            self._claimed.append(dataclasses.replace(slot.trial, losses=slot.trial.losses + 1))
            return
        if outcome is None:
            outcome = Outcome(FAILED, error=f"its process left no result, twice: {cause_of_death(code)}")
        self._tell(slot.trial, outcome, seconds)

    def _settle(self, trial: Trial, run: str, seconds: float) -> bool:
        """Tell the result that lies in the run's folder, if there is one."""
        try:
            outcome = result_of(self._runs / run, self._studies.spec.objective)
        except ValueError as error:  # a damaged run.json, in its own words
            outcome = Outcome(FAILED, error=str(error))
        if outcome is not None:
            self._tell(trial, outcome, seconds)
        return outcome is not None

    def _tell(self, trial: Trial, outcome: Outcome, seconds: float) -> None:
        self._studies.tell(trial, dataclasses.replace(outcome, seconds=round(seconds, 3)))
        self._studies.plan_replicates(trial.job.arm)
