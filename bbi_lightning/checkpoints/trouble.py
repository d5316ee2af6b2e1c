"""What is said and remembered while the disk refuses checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from bbi_lightning.checkpoints.manifest import Note
from bbi_lightning.checkpoints.store import CheckpointStore

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0  # seconds between two tries


class Trouble:
    """A disk's refusals: a sentence when they begin, change or end, and when it is time to try again.

    Args:
        store: whose disk it is.
        say: gets the sentences. What it raises is ignored: a warning must not end a training.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: CheckpointStore,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._say = say
        self._clock = clock
        self._cause: str | None = None
        self._pause = _FIRST_PAUSE
        self._try_at = 0.0

    @property
    def wants_retry(self) -> bool:
        """Whether there is trouble and the pause after the last try is over."""
        return self._cause is not None and self._clock() >= self._try_at

    def begin(self, error: Exception, note: Note | None = None) -> None:
        """A write has failed."""
        cause = _words(error)
        if cause != self._cause:
            self._tell(
                f"{_what(note)} could not be written to {self._store.folder} ({cause}): "
                f"{self._what_is_left()}. Training goes on, and saving is tried again"
            )
        self._pause = _FIRST_PAUSE if self._cause is None else min(2 * self._pause, _LONGEST_PAUSE)
        self._cause = cause
        self._try_at = self._clock() + self._pause

    def lost(self, note: Note) -> None:
        """A state could not even wait for the disk."""
        if set(note.reasons) - {"last"}:
            self._tell(
                f"{_what(note)} ({', '.join(note.reasons)}) is lost: the disk still refuses earlier ones"
            )

    def end(self, note: Note) -> None:
        """A write has succeeded."""
        if self._cause is not None:
            self._cause = None
            self._tell(f"{_what(note)} is written: the trouble with {self._store.folder} is over")

    def _tell(self, sentence: str) -> None:
        with contextlib.suppress(Exception):
            self._say(sentence)

    def _what_is_left(self) -> str:
        with contextlib.suppress(OSError):
            saved = self._store.checkpoints()
            if saved:
                return f"{saved[-1].path.name} is still the newest"
        return "there is no earlier one"


def _what(note: Note | None) -> str:
    return "a checkpoint" if note is None else f"the checkpoint of step {note.step:,}"


def _words(error: Exception) -> str:
    """An error as a cause, the same for the same cause (a temporary name would make it another)."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
