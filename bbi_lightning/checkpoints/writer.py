"""Gets training states to the disk while training goes on.

One thread writes. At most one state is being written and one waits, so the host holds two copies at most. A
disk that refuses costs a warning and is tried again: it never ends a training.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bbi_lightning.checkpoints.host_copy import HostCopy
from bbi_lightning.checkpoints.manifest import STATE, Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.trouble import Trouble

_LONGEST_LAST_WRITE = 60.0  # seconds; a disk that hangs longer does not keep the process


@dataclass
class _Job:
    """A state on its way to the disk."""

    state: Mapping[Any, Any]
    note: Note
    copy: HostCopy
    failed: bool = False

    def gives_way_to(self, newer: Note) -> bool:
        """Whether nothing is lost when the newer state is written instead."""
        mine = set(self.note.reasons) - {"last"}
        return "milestone" not in mine and mine <= set(newer.reasons)


class CheckpointWriter:
    """Writes states into a store, in order, in the background. For one calling thread.

    A waiting state gives way to a newer one, unless it is a milestone or the best: then `submit` waits for
    the disk. A state that the disk has refused stays first in the queue, under the same rule, and is tried
    again with the next `submit` or `flush`.

    Args:
        store: where checkpoints go.
        on_trouble: gets a sentence when the disk begins to refuse, when it does so for another reason, and
            when it writes again. Mostly called in the writing thread.

    Attributes:
        blocked_seconds: how long the newest `submit` kept its caller.
        written_seconds: how long the newest successful write took.
    """

    def __init__(self, store: CheckpointStore, *, on_trouble: Callable[[str], None]) -> None:
        self.store = store
        self.blocked_seconds = 0.0
        self.written_seconds = 0.0
        self._trouble = Trouble(store, on_trouble)
        self._changed = threading.Condition()
        self._head: _Job | None = None  # being written, or refused
        self._waiting: _Job | None = None
        self._idle_copies = [HostCopy(), HostCopy()]
        self._retry_now = False
        self._closing = False
        self._newest: _Job | None = None
        self._newest_is_safe = True
        self._thread: threading.Thread | None = None

    @property
    def wants_retry(self) -> bool:
        """Whether the disk has refused and it is time to hand over a fresh state (not all the time)."""
        return self._trouble.wants_retry

    def submit(self, state: Mapping[Any, Any], note: Note) -> None:
        """Copy the state and have it written.

        A state is dropped when the disk goes on refusing two before it that may not give way.

        Raises:
            TypeError: the state holds what a checkpoint cannot (see `HostCopy.take`).
            RuntimeError: the writer has been closed.
        """
        start = time.monotonic()
        copy = self._claim_copy(note)
        if copy is None:
            self._trouble.lost(note)
        else:
            self._put_in_line(copy, state, note)
        self.blocked_seconds = time.monotonic() - start

    def flush(self) -> bool:
        """Wait until all is on the disk, or has been tried once more. Returns whether the newest state is."""
        tried: _Job | None = None
        with self._changed:
            while self._head is not None or self._waiting is not None:
                if self._head is None or not self._head.failed:
                    self._changed.wait()
                elif self._head is tried:
                    break
                else:
                    tried = self._head
                    self._try_head_again()
            return self._newest_is_safe

    def close(self) -> None:
        """Flush, and end the thread; what the disk refused even then is given up."""
        self.flush()
        self._stop()
        atexit.unregister(self._stop)

    def _stop(self) -> None:
        """End the thread after the write it is at: cut off, it could take the process's exit code with it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_LONGEST_LAST_WRITE)

    def commit(self, folder: Path, note: Note) -> None:
        """Commit a folder from `store.begin` that others have filled, at once; trouble is not raised."""
        start = time.monotonic()
        try:
            self.store.commit(folder, note)
        except Exception as error:
            self._newest_is_safe = False
            self._trouble.begin(error, note)
        else:
            self._newest_is_safe = True
            self.written_seconds = time.monotonic() - start
            self._trouble.end(note)

    def report(self, error: Exception) -> None:
        """Take note of a write by others that has failed."""
        self._newest_is_safe = False
        self._trouble.begin(error)

    def _claim_copy(self, note: Note) -> HostCopy | None:
        """Buffers for a new state, as soon as it may wait; None if it may not and must be dropped."""
        with self._changed:
            if self._closing:
                raise RuntimeError("this writer has been closed: nothing more can be written")
            while self._waiting is not None:
                if self._waiting.gives_way_to(note):
                    copy, self._waiting = self._waiting.copy, None
                    return copy
                if self._head is None or not self._head.failed:
                    self._changed.wait()
                elif not self._try_head_again():
                    self._newest, self._newest_is_safe = None, False
                    return None
            return self._idle_copies.pop()

    def _put_in_line(self, copy: HostCopy, state: Mapping[Any, Any], note: Note) -> None:
        try:
            job = _Job(copy.take(state), note, copy)
        except BaseException as error:
            with self._changed:
                self._idle_copies.append(copy)
                self._newest, self._newest_is_safe = None, False
            if not isinstance(error, (MemoryError, RuntimeError)):
                raise
            self._trouble.begin(error, note)  # of the host's memory, say
            return
        with self._changed:
            self._waiting = self._newest = job
            self._newest_is_safe = False
            self._give_way()
            self._retry_now = True
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="checkpoint-writer", daemon=True)
            self._thread.start()
            atexit.register(self._stop)

    def _try_head_again(self) -> bool:
        """Have the refused head tried again; whether it is out of the way then. With the condition held."""
        head = self._head
        assert head is not None
        head.failed = False
        self._retry_now = True
        self._changed.notify_all()
        while self._head is head and not head.failed:
            self._changed.wait()
        return self._head is not head

    def _give_way(self) -> None:
        """Drop a refused head in favour of the state that waits, if it may be. With the condition held."""
        head, waiting = self._head, self._waiting
        if head is not None and head.failed and waiting is not None and head.gives_way_to(waiting.note):
            self._idle_copies.append(head.copy)
            self._head = None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            error = self._write(job)
            if error is None:
                self._trouble.end(job.note)
            else:
                self._trouble.begin(error, job.note)
            with self._changed:
                if error is None:
                    self._head = None
                    self._idle_copies.append(job.copy)
                    self._newest_is_safe = job is self._newest
                else:
                    job.failed = True
                    self._retry_now = False
                    self._give_way()
                self._changed.notify_all()

    def _next(self) -> _Job | None:
        """The state to write now, once there is one; None when the writer closes."""
        with self._changed:
            while not self._closing:
                if self._head is not None and self._retry_now:
                    self._retry_now = self._head.failed = False
                    return self._head
                if self._head is None and self._waiting is not None:
                    self._head, self._waiting = self._waiting, None
                    self._retry_now = False
                    self._changed.notify_all()
                    return self._head
                self._changed.wait()
            return None

    def _write(self, job: _Job) -> Exception | None:
        """Write it; what went wrong, if anything."""
        start = time.monotonic()
        folder: Path | None = None
        try:
            job.copy.wait()
            folder = self.store.begin()
            _save(job.state, folder / STATE)
            self.store.commit(folder, job.note)
        except Exception as error:
            if folder is not None:
                self.store.abandon(folder)
            return error
        self.written_seconds = time.monotonic() - start
        return None


def _save(state: Mapping[Any, Any], path: Path) -> None:
    """Write the file. Raises the disk's own OSError, of which torch would make a RuntimeError."""
    with path.open("wb") as opened:
        file = _Told(opened)
        try:
            torch.save(state, file)  # type: ignore[arg-type]  # uses no more of a file than this one has
        except RuntimeError as error:
            raise (file.refusal or error) from None


class _Told:
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self.refusal: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        """Write all of it."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.refusal = error
            raise

    def flush(self) -> None:
        """Hand it to the system."""
        self._file.flush()
