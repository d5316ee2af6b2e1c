"""Signals that ask a run to stop only leave a note; the run reads it between two steps.

Imports nothing heavy, so that the command line can listen before torch is imported: until then a signal would
kill the process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, and what clusters send."""

_received: signal.Signals | None = None
_listening = 0


class InterruptedRunError(Exception):
    """The run stopped at a step boundary because a signal asked for it; its state is saved.

    Args:
        cause: the signal.
    """

    def __init__(self, cause: signal.Signals) -> None:
        super().__init__(cause.name)
        self.cause = cause


def received() -> signal.Signals | None:
    """The signal that asked to stop since `listening` began, None if there was none."""
    return _received


def exit_code(cause: signal.Signals) -> int:
    """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + cause.value


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None and number == signal.SIGINT:
        raise KeyboardInterrupt  # the second Ctrl-C means now
    _received = signal.Signals(number)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Note the stopping signals instead of dying of them; the handlers before are put back at the end.

    May be nested. Outside the main thread, where Python allows no handlers, it does nothing.
    """
    global _received, _listening
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    if _listening == 0:
        _received = None
    _listening += 1
    listen()
    try:
        yield
    finally:
        _listening -= 1
        for number, handler in before.items():
            # None: set by somebody outside Python, which Python cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def listen() -> None:
    """Take the stopping signals over, again if somebody else has taken them (Lightning does).

    A signal that the process was told to ignore stays ignored: a supervisor may take Ctrl-C itself.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _note)
