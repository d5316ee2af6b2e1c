"""Single keys from a terminal, without waiting for Enter; the terminal is left as it was, come what may."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any

_ESCAPES = {
    "[A": "up",
    "[B": "down",
    "OA": "up",
    "OB": "down",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
}
_NAMES = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x03": "interrupt"}
_ESCAPE_WAIT = 0.05  # seconds in which the rest of an escape sequence follows, over ssh too


class Keys:
    """The keys that are pressed, as a context manager: one by one, unechoed, Ctrl-C among them as a signal.

    Args:
        descriptor: of a terminal; standard input if not given.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._before: list[Any] | None = None
        self._read = ""

    def __enter__(self) -> Keys:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)  # signals and output stay as they are, unlike raw mode
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is None:
            return
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def next(self, wait: float) -> str | None:
        """The next key, "q" or "page down"; None when none was pressed for so many seconds, "end of input"
        when the terminal has gone."""
        if not self._read and not self._more(wait):
            return None
        if not self._read:
            return "end of input"
        key, self._read = _first_key(self._read, lambda: self._more(_ESCAPE_WAIT) and self._read)
        return key

    def _more(self, wait: float) -> bool:
        """Wait for input and keep it; returns whether there was any, its end included."""
        try:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, wait))
            if not ready:
                return False
            self._read += os.read(self._descriptor, 1024).decode(errors="ignore")
        except InterruptedError:
            return False
        except OSError:  # the terminal is gone
            return True
        return True


class NoKeys(Keys):
    """Where nobody can press any: it only waits."""

    def __init__(self) -> None:
        super().__init__(-1)

    def __enter__(self) -> NoKeys:
        return self

    def next(self, wait: float) -> str | None:
        """None, after so many seconds."""
        time.sleep(wait)
        return None


def _first_key(text: str, read_on: Callable[[], Any]) -> tuple[str, str]:
    """The first key of what was read, and the rest."""
    if text[0] != "\x1b":
        return _NAMES.get(text[0], text[0]), text[1:]
    if len(text) == 1:
        text = read_on() or text
    for sequence, name in _ESCAPES.items():
        if text[1:].startswith(sequence):
            return name, text[1 + len(sequence) :]
    if len(text) > 1 and text[1] in "[O":  # some other key: pass over all of it
        end = next((i for i, c in enumerate(text[2:], start=2) if c.isalpha() or c == "~"), len(text) - 1)
        return "unknown", text[end + 1 :]
    return "escape", text[1:]
