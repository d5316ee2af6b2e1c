"""Runs the trials of a sweep, several at a time, each in a fresh process. Works alone, or with many others.

The study is the only queue: a worker takes a trial, writes down who runs it as which run, and tells how it
ended. Whatever kills it, another worker finds the trial without a living owner, waits until nobody holds its
run, and goes on with the same run folder: a result that lies there is told, anything else is continued.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import signal
import socket
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess

from bbi_lightning.sweeps import child
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.growing_curve import GrowingCurve
from bbi_lightning.sweeps.memory import own_bytes, size
from bbi_lightning.sweeps.outcome import cause_of_death, failure_of, result_of
from bbi_lightning.sweeps.overrides import trial_overrides
from bbi_lightning.sweeps.stop_request import StopRequest
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.task import Task
from bbi_lightning.sweeps.trial import FAILED, SEARCH, Outcome, Owner, Trial
from bbi_lightning.sweeps.workers import Presence, Roster
from bbi_lightning.tracking.run_folder import RunFolder

_TICK = 0.2  # seconds between looks at the clock, the stop request and parked trials
_LOOK = 2.0  # seconds between looks at who has vanished, what memory is used, what the user has changed
_PATIENCE = (
    1.0,
    60.0,
)  # seconds between tries to write into a journal that cannot be written: first, longest
_MAX_LOSSES = 1  # a process may die without a word once; the second time the trial has failed
_MAX_INTERRUPTIONS = 5  # asked to stop by somebody else so often, a trial has failed
TIME_LIMIT = os.EX_TEMPFAIL
"""Exit code of what leaves because its time is up, a run or a worker: 75."""

_INTERRUPTED = {
    TIME_LIMIT,
    *(128 + n for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)),
}


@dataclass
class Slot:
    """A running process and its trial.

    Attributes:
        trial: what it works on.
        process, connection: the child and our end of the line to it; None once the line is closed.
        started: monotonic seconds.
        place: which of the worker's places it has.
        run: the run's name, once the child has named it and may go.
        raised: the traceback that it sent.
        dismissed: it was told not to train, its trial is dealt with.
        killed: why we have killed it.
        curve: what it has reported so far; None while nobody wants to know.
        behind: it was asked to stop for good, since others do better.
    """

    trial: Trial
    process: ForkServerProcess
    connection: Connection | None
    started: float
    place: int
    run: str | None = None
    raised: str | None = None
    dismissed: bool = False
    killed: str | None = None
    curve: GrowingCurve | None = None
    behind: bool = False


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        places: the environment of each trial that runs at a time: its threads, its GPU.
        memory: bytes that one trial may hold; None: whatever there is.
        deadline: monotonic seconds at which the worker must have left; None: whenever it likes.
        linger: seconds to wait for trials of others, which might vanish, when there is no other work left.
        grace: seconds that children get to save after SIGTERM.
    """

    places: Sequence[Mapping[str, str]] = (child.threads(1),)
    memory: float | None = None
    deadline: float | None = None
    linger: float = math.inf
    grace: float = child.GRACE


class Worker:
    """Works on a sweep until nothing is left to do. Any number of them work on one sweep, on any node.

    Args:
        folder: the sweep.
        task: how a trial is run.
        context: the fork server (`child.fork_server`).
        limits: what it may use.
        report: called a few times a second, with the studies and what is running: to draw a table.
    """

    def __init__(
        self,
        folder: SweepFolder,
        task: Task,
        context: ForkServerContext,
        limits: Limits,
        report: Callable[[Studies, Sequence[Slot]], None],
    ) -> None:
        self._folder = folder
        self._studies = Studies(folder.journal, folder.read_spec())
        self._description = folder.description_stamp()
        self._roster = Roster(folder.workers, self._studies.spec.lock)
        self._presence = Presence(folder.workers, len(limits.places))
        self._owner = self._presence.info.owner
        self._task = task
        self._context = context
        self._limits = limits
        self._report = report
        self._slots: list[Slot] = []
        self._claimed: deque[Trial] = deque()  # ours already, to be started (again)
        self._parked: list[tuple[Trial, str]] = []  # somebody else trains the same run at the moment
        self._vanished: set[Owner] = set()
        self._interruptions: Counter[int] = Counter()
        self._looked = -math.inf
        self._idle_since: float | None = None

    def work(self) -> str | int:
        """Run what is there to run; returns "done", "cancelled", "time", or the number of a signal."""
        with self._presence, StopRequest() as stop:
            reason: str | int | None = None
            try:
                while reason is None:
                    self._look()
                    self._unpark()
                    self._fill()
                    self._report(self._studies, self._slots)
                    self._listen()
                    reason = self._reason_to_leave(stop)
            finally:
                self._leave(stop)
            self._report(self._studies, self._slots)
            self._presence.how_it_ended = str(reason)
            return reason

    def _reason_to_leave(self, stop: StopRequest) -> str | int | None:
        if stop.number is not None:
            return stop.number
        if self._folder.stop_file.exists():
            return "cancelled"
        now = time.monotonic()
        if self._limits.deadline is not None and now >= self._limits.deadline:
            return "time"
        if self._slots or self._parked or self._claimed:
            self._idle_since = None
            return None
        self._idle_since = now if self._idle_since is None else self._idle_since
        over = self._studies.is_over() or now >= self._idle_since + self._limits.linger
        return "done" if over else None

    def _leave(self, stop: StopRequest) -> None:
        """Let the children save; what has no result is let go, for whoever looks next."""
        child.stop([slot.process for slot in self._slots], self._limits.grace, lambda: stop.count > 1)
        for slot in list(self._slots):
            self._end(slot, stopping=True)
        for trial in (*self._claimed, *(trial for trial, _ in self._parked)):
            self._patiently(functools.partial(self._studies.release, trial))

    def _look(self) -> None:
        """Now and then: who has vanished, which trial uses too much memory, has the sweep been extended?"""
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return
        self._looked = now
        begun = {trial.key: trial.owner for trial in self._studies.running()}
        others = {owner for owner in begun.values() if owner and owner.id != self._owner.id}
        self._vanished = self._roster.vanished(others)
        for slot in self._slots:
            if slot.trial.key not in begun:  # cancelled by hand
                slot.dismissed = True
                child.ask_to_stop(slot.process)
        if (stamp := self._folder.description_stamp()) != self._description:
            self._description = stamp
            self._studies.spec = self._folder.read_spec()
        self._compare()
        for slot in self._slots if self._limits.memory is not None else ():
            used = own_bytes(slot.process.pid or 0)
            if used > (self._limits.memory or math.inf) and slot.killed is None:
                slot.killed = (
                    f"used {size(used)} of memory, more than the {size(self._limits.memory or 0)} it may"
                )
                child.kill(slot.process)

    def _compare(self) -> None:
        """Report how the trials are doing, and stop those that have fallen behind: they save, and leave."""
        for slot in self._slots:
            if not slot.behind and self._falls_behind(slot):
                slot.behind = True
                child.ask_to_stop(slot.process)

    def _falls_behind(self, slot: Slot) -> bool:
        """Report what is new of a trial; whether it is to be stopped for it."""
        news = slot.curve.new() if slot.curve else []
        try:
            return any(self._studies.report(slot.trial, epoch, value) for epoch, value in news)
        except OSError as error:
            warnings.warn(f"nothing can be compared at the moment: {error}", stacklevel=2)
            return False

    def _fill(self) -> None:
        while len(self._slots) < len(self._limits.places):
            trial = self._claimed.popleft() if self._claimed else self._next()
            if trial is None:
                return
            self._start(trial)

    def _next(self) -> Trial | None:
        try:
            return self._studies.claim(self._owner, lambda owner: owner not in self._vanished)
        except OSError as error:
            warnings.warn(f"no trial can be taken up at the moment: {error}", stacklevel=2)
            return None

    def _start(self, trial: Trial) -> None:
        spec, job = self._studies.spec, trial.job
        if trial.run and self._settle(trial, trial.run, seconds=0.0):
            return
        overrides = trial_overrides(spec, spec.arm(job.arm), job.params, job.seed)
        place = min(set(range(len(self._limits.places))) - {slot.place for slot in self._slots})
        arguments = (
            self._task,
            overrides,
            self._folder.runs,
            job.labels(spec.name),
            self._limits.places[place],
        )
        started = time.monotonic()
        process, connection = child.start(self._context, child.run_trial, *arguments)
        self._slots.append(Slot(trial, process, connection, started, place))

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
        path = self._folder.runs / run
        busy = any(other.run == run for other in self._slots) or RunFolder(path).holder() is not None
        if busy:
            self._parked.append((slot.trial, run))
        elif not self._settle(slot.trial, run, seconds=0.0):
            worker = {
                "host": socket.gethostname(),
                "pid": slot.process.pid,
                "supervisor": os.getpid(),
                "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            self._patiently(lambda: self._studies.note_start(slot.trial, run, worker))
            slot.run = run
            spec = self._studies.spec
            if spec.search.pruner is not None and slot.trial.job.phase == SEARCH:
                slot.curve = GrowingCurve(RunFolder(path).metrics_file, spec.objective.metric)
            return True
        slot.dismissed = True
        return False

    def _unpark(self) -> None:
        for trial, run in list(self._parked):
            busy = any(slot.run == run for slot in self._slots)
            if not busy and RunFolder(self._folder.runs / run).holder() is None:
                self._parked.remove((trial, run))
                self._claimed.append(trial)

    def _end(self, slot: Slot, *, stopping: bool = False) -> None:
        """A child has gone: tell what came of its trial, or start it again."""
        self._read(slot)
        if slot.connection:
            slot.connection.close()
        self._slots.remove(slot)
        self._falls_behind(slot)  # too late for itself; others are compared with it
        trial, seconds, code = slot.trial, time.monotonic() - slot.started, slot.process.exitcode
        if slot.dismissed or (slot.run and self._settle(trial, slot.run, seconds)):
            return
        asked = code in _INTERRUPTED or code == -signal.SIGTERM
        if slot.behind and slot.run and asked and RunFolder(self._folder.runs / slot.run).stop_for_good():
            self._settle(trial, slot.run, seconds)
            return
        outcome = self._failure(slot, code)
        if outcome is not None:
            self._tell(trial, outcome, seconds)
        elif stopping:
            self._patiently(lambda: self._studies.release(trial))
        else:
            if code not in _INTERRUPTED:
                self._patiently(lambda: self._studies.note_loss(trial))
                trial = dataclasses.replace(trial, losses=trial.losses + 1)
            self._claimed.append(trial)

    def _failure(self, slot: Slot, code: int | None) -> Outcome | None:
        """Why a trial without a result has failed for good; None: it can go on."""
        if slot.killed is not None:
            return Outcome(FAILED, error=slot.killed)
        if code in _INTERRUPTED:
            self._interruptions[slot.trial.key] += 1
            often = self._interruptions[slot.trial.key] > _MAX_INTERRUPTIONS
            return Outcome(FAILED, error=f"{cause_of_death(code)}, again and again") if often else None
        killed = code is not None and code < 0
        outcome = (
            None if killed else failure_of(self._folder.runs / slot.run if slot.run else None, slot.raised)
        )
        if outcome is None and slot.trial.losses >= _MAX_LOSSES:
            outcome = Outcome(FAILED, error=f"its process left no result, twice: {cause_of_death(code)}")
        return outcome

    def _settle(self, trial: Trial, run: str, seconds: float) -> bool:
        """Tell the result that lies in the run's folder, if there is one."""
        try:
            outcome = result_of(self._folder.runs / run, self._studies.spec.objective)
        except ValueError as error:  # a damaged run.json, in its own words
            outcome = Outcome(FAILED, error=str(error))
        if outcome is not None:
            self._tell(trial, outcome, seconds)
        return outcome is not None

    def _tell(self, trial: Trial, outcome: Outcome, seconds: float) -> None:
        told = dataclasses.replace(outcome, seconds=round(seconds, 3))
        self._patiently(lambda: self._studies.tell(trial, told))

    def _patiently(self, write: Callable[[], object]) -> None:
        """Write into the journal; on a full disk wait until it can be done: an outcome must not be lost."""
        pause, longest = _PATIENCE
        while True:
            try:
                write()
            except OSError as error:
                warnings.warn(f"the sweep's journal cannot be written, trying again: {error}", stacklevel=2)
                if self._limits.deadline is not None and time.monotonic() > self._limits.deadline:
                    return  # the result lies in the run's folder: the next worker tells it
                time.sleep(pause)
                pause = min(2 * pause, longest)
            else:
                return
