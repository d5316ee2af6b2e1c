"""Signals that ask a run to stop only leave a note; the run reads it between two steps.

Imports nothing heavy, so that the command line can listen before torch is imported: until then a signal would
kill the process.

Python runs a handler only when the main thread is back in Python, and one in a hung collective
never is. So a note is left twice: by the handler, and as a byte in a pipe, which the interpreter writes at
the very moment the signal comes and which the `watchdog` reads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, TypeAlias

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, and what clusters send."""


@dataclass(frozen=True)
class TimeLimitCause:
    """Why a run stopped that no signal has stopped: the time it was given is used up.

    Attributes:
        name: the word for it in `run.json`, where a signal has its own name.
    """

    name: str = "time limit"


TIME_LIMIT: Final = TimeLimitCause()

Cause: TypeAlias = signal.Signals | TimeLimitCause

PARENT: Final = os.getppid()
"""The process that started this one, asked early: later it may be gone, and another one in its place."""

_received: Cause | None = None
_listening = 0
_since: float | None = None
_pipe: tuple[int, int] | None = None
_arrivals: int | None = None  # the pipe's reading end, while somebody listens


class InterruptedRunError(Exception):
    """The run stopped at a step boundary because something asked for it; its state is saved.

    Args:
        cause: a signal, or `TIME_LIMIT`; its `name` is the reason that `run.json` gives.
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.name)
        self.cause = cause


def received() -> Cause | None:
    """What has asked this process to stop since `listening` began, None if nothing has.

    Of several it is the first, but a Ctrl-C outdoes the others: somebody sits there and waits.
    """
    return _received


def heed(cause: Cause) -> None:
    """The run stops since another rank was asked to, or the time is up: as if this process had been asked."""
    global _received
    if _received is None:
        _received = cause


def listening_since() -> float | None:
    """When the outermost `listening` began, on the monotonic clock; None before the first. For the command
    line that is a moment after the process's start."""
    return _since


def exit_code(cause: Cause) -> int:
    """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM; and 75 for the
    time limit, which is `EX_TEMPFAIL`: the same command again goes on."""
    return os.EX_TEMPFAIL if isinstance(cause, TimeLimitCause) else 128 + cause.value


def arrivals() -> int | None:
    """A descriptor from which every signal can be read, one byte each, whatever the main thread is doing.

    None while nobody listens. It does not block, and only one reader makes sense.
    """
    return _arrivals


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is signal.SIGINT and number == signal.SIGINT:
        raise KeyboardInterrupt  # the second Ctrl-C means now
    if _received is None or number == signal.SIGINT:
        _received = signal.Signals(number)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Note the stopping signals instead of dying of them; the handlers before are put back at the end.

    May be nested. Outside the main thread, where Python allows no handlers, it does nothing.
    """
    global _received, _listening, _since
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    with contextlib.ExitStack() as stack:
        if _listening == 0:
            _received, _since = None, time.monotonic()
            stack.enter_context(_arrivals_noted())
        _listening += 1
        listen()
        try:
            yield
        finally:
            _listening -= 1
            for number, handler in before.items():
                # None: set by somebody outside Python, which Python cannot put back
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _arrivals_noted() -> Iterator[None]:
    """Have the interpreter write every signal into the pipe.

    It is made once and never closed: whoever still waits at its end must not find another file there.
    """
    global _arrivals, _pipe
    if _pipe is None:
        _pipe = os.pipe()
        for end in _pipe:
            os.set_blocking(end, False)
    reading, writing = _pipe
    with contextlib.suppress(BlockingIOError):
        while os.read(reading, 4096):
            pass  # of an earlier time
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _arrivals = reading
    try:
        yield
    finally:
        _arrivals = None
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)


def _let_go_of_the_pipe() -> None:
    """A forked child's signals, say a data worker's, are not its parent's."""
    global _arrivals, _pipe
    if _arrivals is not None:
        signal.set_wakeup_fd(-1)
    _arrivals = _pipe = None


os.register_at_fork(after_in_child=_let_go_of_the_pipe)


def listen() -> None:
    """Take the stopping signals over, again if somebody else has taken them.

    A signal that the process was told to ignore stays ignored: a supervisor may take Ctrl-C itself.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _note)


def keep_from_lightning(trainer: Any) -> None:
    """Have a `pytorch_lightning.Trainer` leave all signal handlers as they are.

    Its own handler for SIGTERM starts a collective wherever the main thread happens to be, and forwards the
    signal to the other ranks; ours are told in the exchange.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
