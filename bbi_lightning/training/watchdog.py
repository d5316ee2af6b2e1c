"""Frees a run that can no longer end by itself: hung after a signal, or left alone by another rank.

A thread of its own, asleep but for two looks a second, so that it works while the main thread waits in a
collective that will never return. What it knows of the world:

    signals          from `interrupts.arrivals`, also those whose handler the main thread never gets to
    ranks below      the processes that Lightning's launcher has started from this one
    the rank above   the process that started this one, for ranks that Lightning's launcher has started

Ranks that srun or torchrun started know nothing of each other's processes: there a lost rank is an error of
the next collective, at the latest after `runtime.timeout`, and the launcher ends the others.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bbi_lightning.training import interrupts

LOST_RANK = os.EX_OSERR
"""Exit code of a process that leaves because another rank has vanished: 71."""

_LOOK_EVERY = 0.5  # seconds
_GRACE = 10.0  # seconds in which a run that has lost a rank may end by itself, with its own error
_AT_ONCE = 5.0  # the same after the second Ctrl-C
_LAST_WORDS = 10.0  # seconds that a callback may take: it may hang on the same disk as the run


class Watchdog:
    """Ends this process when the run cannot.

    Args:
        stop_within: seconds, > 0, in which a run that was asked to stop must reach a step boundary.
        on_expiry: called with the reason before the process ends because of that; from another thread, for
            at most 10 s.
        on_lost: the same when another rank has vanished and the run did not end by itself; None: `on_expiry`.

    Example:
        >>> watchdog = Watchdog(120.0, print)
        >>> watchdog.start()
        >>> watchdog.reached_boundary()  # after every optimizer step
        >>> watchdog.stop()
    """

    def __init__(
        self,
        stop_within: float,
        on_expiry: Callable[[str], None],
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self.stop_within = stop_within
        self.on_expiry = on_expiry
        self.on_lost = on_lost or on_expiry
        self._ranks = _Ranks()
        self._signals = _Signals()
        self._alive_at = time.monotonic()
        self._busy_until = self._leaving_until = self._alive_at
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self.reached_boundary()
        self._thread.start()

    def stop(self) -> None:
        """The run has ended by itself. A rank that was launched still ends with its launcher."""
        self._stopped.set()

    def reached_boundary(self) -> None:
        """The run is alive, and whatever it was busy with is done."""
        self._alive_at = self._busy_until = time.monotonic()

    def extend(self, seconds: float) -> None:
        """Something slow begins: it may take so long until the run reaches a boundary again."""
        self._busy_until = max(self._busy_until, time.monotonic() + seconds)

    def leaving(self, seconds: float) -> None:
        """The run ends by itself, well or with an error: whatever happens, it has so long to do so."""
        self._leaving_until = time.monotonic() + seconds

    def lost_rank(self, wait: float = 2.0) -> str | None:
        """What has become of a rank that has vanished, in a sentence; None if all are well.

        A lost rank shows in two ways, in either order: its process is gone, and a collective fails here.

        Args:
            wait: seconds that a process may take to be gone, ≥ 0.
        """
        deadline = time.monotonic() + wait
        while (lost := self._ranks.lost()) is None and self._ranks.known and time.monotonic() < deadline:
            time.sleep(0.02)
        return lost

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._signals.listen(_LOOK_EVERY)
            lost = self._ranks.lost()
            if not self._stopped.is_set() and time.monotonic() >= self._leaving_until:
                self._judge(time.monotonic(), lost)
        while self._ranks.has_parent:
            time.sleep(_LOOK_EVERY)
            if self._ranks.lost() and time.monotonic() >= self._ranks.lost_at + _GRACE:
                os._exit(LOST_RANK)

    def _judge(self, now: float, lost: str | None) -> None:
        """Leave if it is time to."""
        signals = self._signals
        if signals.hurried_at is not None and now >= signals.hurried_at + _AT_ONCE:
            self._leave(signal.SIGINT, "SIGINT, twice")
        deadline = max(max(signals.asked_at, self._alive_at) + self.stop_within, self._busy_until)
        if signals.asked is not None and now >= deadline:
            reason = f"{signals.asked.name}, but no step boundary within {self.stop_within:g} s"
            self._leave(signals.asked, reason)
        if lost is not None and now >= self._ranks.lost_at + _GRACE:
            self._leave(None, lost)

    def _leave(self, cause: signal.Signals | None, reason: str) -> NoReturn:
        """End this process and the ranks it has started; `cause` None: because one of them is lost."""
        try:
            _show_stacks(reason)
            words = threading.Thread(
                target=self.on_lost if cause is None else self.on_expiry, args=(reason,), daemon=True
            )
            words.start()
            words.join(_LAST_WORDS)
            self._ranks.kill()
        finally:
            os._exit(LOST_RANK if cause is None else interrupts.exit_code(cause))


class _Signals:
    """What has asked this process to stop, whether or not the main thread has heard it.

    Attributes:
        asked, asked_at: the first signal, and when.
        hurried_at: when the second Ctrl-C came.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.asked_at = 0.0
        self.hurried_at: float | None = None
        self._interrupts = 0

    def listen(self, seconds: float) -> None:
        """Sleep until a signal comes, at most so long."""
        heard = [signal.Signals(number) for number in _arrived(seconds) if number in interrupts.STOPPING]
        noted = interrupts.received()
        first = [noted] if isinstance(noted, signal.Signals) else heard
        if self.asked is None and first:
            self.asked, self.asked_at = first[0], time.monotonic()
        self._interrupts += heard.count(signal.SIGINT)
        if self.hurried_at is None and self._interrupts > 1:
            self.hurried_at = time.monotonic()


def _arrived(seconds: float) -> bytes:
    """The numbers of the signals that have come, after a sleep that they cut short."""
    pipe = interrupts.arrivals()
    if pipe is None:
        time.sleep(seconds)
        return b""
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    with contextlib.suppress(BlockingIOError):  # emptied meanwhile, for the next to listen
        return os.read(pipe, 4096) if waiting.poll(1000 * seconds) else b""
    return b""


class _Ranks:
    """The ranks whose processes this one can see.

    Attributes:
        has_parent: whether this rank was started by another one.
        lost_at: when a loss was first seen, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.has_parent = _is_launched()
        self.lost_at = 0.0
        self._lost: str | None = None
        self._children: Sequence[subprocess.Popen[bytes]] = ()
        self._lock = threading.Lock()

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return self.has_parent or bool(self._children)

    def lost(self) -> str | None:
        """What has become of the first rank that was seen to be gone before its work was done."""
        with self._lock:
            if not self._children:
                self._children = _taken_from_lightning()
            if self._lost is None:
                self._lost = self._look()
                self.lost_at = time.monotonic()
            return self._lost

    def _look(self) -> str | None:
        if self.has_parent and os.getppid() != interrupts.PARENT:
            return "the process that started this rank has vanished"
        first = int(os.environ.get("NODE_RANK", 0)) * (len(self._children) + 1)
        for place, child in enumerate(self._children, start=1):
            code = child.poll()
            if code:
                return f"rank {first + place} {_end(code)}"
        return None

    def kill(self) -> None:
        """Leave no rank behind that was started from here: it may be stopped, or hang."""
        for child in self._children:
            with contextlib.suppress(OSError):
                child.kill()


def _end(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:  # a real-time signal
        return f"was killed (signal {-code})"


def _is_launched() -> bool:
    """Whether Lightning's launcher, in another Python process, has started this one as a further rank."""
    rank = os.environ.get("LOCAL_RANK", "")
    if not rank.isdigit() or int(rank) == 0:
        return False
    try:
        return Path("/proc/self/exe").samefile(f"/proc/{interrupts.PARENT}/exe")
    except OSError:  # gone already, or a system that does not tell
        return True


def _taken_from_lightning() -> Sequence[subprocess.Popen[bytes]]:
    """The processes that Lightning's launcher has started, in the order of their ranks.

    Lightning has a thread that looks after them: as soon as one ends with an error, it kills all, this
    process included, in the middle of whatever it does. It gets none to look after any more, and ends.
    """
    for thread in threading.enumerate():
        if thread.name == "child-process-observer" and hasattr(thread, "_child_processes"):
            children: list[subprocess.Popen[bytes]] = thread._child_processes
            thread._child_processes = []
            return children
    return ()


def _show_stacks(reason: str) -> None:
    """Tell on standard error what is about to happen, and where every thread is."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed, or no real file
        print(f"leaving: {reason}. All threads:", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(2, all_threads=True)
