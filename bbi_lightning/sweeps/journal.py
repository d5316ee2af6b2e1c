"""The sweep's memory on disk: Optuna's journal, shared by processes on many nodes, written in transactions.

`alone()` locks the journal over all nodes; what is decided inside is decided on the newest state, and all
that is written goes out as one append and one fsync when it ends. One JSON document a line, in Optuna's own
format: its tools read the file as it is.

A writer that is killed in the middle of an append leaves half a line. The next one drops it, under the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import LockKind

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_TAIL = 1 << 20  # bytes in which the last line is looked for first
_DEAD_AFTER = 30  # seconds after which an unchanged symbolic link is a dead process's lock


class JournalDamagedError(SweepError):
    """A line of the journal, before its last, is no JSON document."""


class Journal(BaseJournalBackend):
    """A journal file.

    Args:
        file: the journal; made empty when it is missing. Beside it lies its lock.
        lock: flock (the kernel lets go when its holder dies), symlink (where flock does not reach other
            nodes; a dead holder's is taken after half a minute), or auto: flock where the file system has it.

    Attributes:
        repaired: a sentence for every half-written line that was dropped.
        observer: called with every entry that is read, in order.
    """

    def __init__(self, file: Path, lock: LockKind = "auto") -> None:
        # absolute: Optuna's lock is a symbolic link to this very path, and a relative one would dangle
        self.file = file.resolve()
        self.repaired: list[str] = []
        self.observer: Callable[[dict[str, Any]], None] | None = None
        self._lock = _lock_of(self.file, lock)
        self._depth = 0
        self._pending: list[bytes] = []
        self._known = 0  # entries up to …
        self._offset = 0  # … this byte
        with contextlib.suppress(FileExistsError):
            self.file.touch(exist_ok=False)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Have the journal for this process; what is appended inside is written when the outermost ends.

        Raises:
            OSError: it could not be written (a full disk, say); the file is as it was.
        """
        if self._depth:
            yield
            return
        self._lock.acquire()
        self._depth += 1
        try:
            self._drop_half_line()
            yield
        finally:
            try:
                self._write()
            finally:
                self._depth -= 1
                self._lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Optuna's way in."""
        with self.alone():
            self._pending += [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Optuna's way to see what is new: the entries from this number on, unwritten ones too."""
        if log_number_from < self._known:
            self._known = self._offset = 0
        with self.file.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written, or left by a killed writer
                if self._known >= log_number_from:
                    yield self._entry(line)
                self._known += 1
                self._offset += len(line)
        for line in self._pending[max(0, log_number_from - self._known) :]:
            yield self._entry(line)

    def _entry(self, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise JournalDamagedError(
                f"{self.file} is damaged in line {self._known + 1} ({line[:40]!r}): restore it from a copy, "
                "or move it away and start the sweep again, which keeps every run that has finished"
            )
        if self.observer is not None:
            self.observer(entry)
        return entry

    def _write(self) -> None:
        """Append what is pending, wholly or not at all."""
        content, self._pending = b"".join(self._pending), []
        if not content:
            return
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, content)
                if written < len(content):
                    os.write(descriptor, content[written:])  # says why: a full disk
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def _drop_half_line(self) -> None:
        size = self.file.stat().st_size
        if size == self._offset:
            return  # nobody has written since we read it to its end
        with self.file.open("r+b") as file:
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            if b"\n" not in tail:
                file.seek(0)
                tail = file.read()
            kept = tail[: tail.rfind(b"\n") + 1]
            last = kept[kept.rfind(b"\n", 0, -1) + 1 :]
            if kept and not _is_json(last):
                kept = kept[: -len(last)]
            if dropped := len(tail) - len(kept):
                file.truncate(size - dropped)
                os.fsync(file.fileno())
                self.repaired.append(f"{self.file}: dropped a half-written line of {dropped} bytes")


@contextlib.contextmanager
def locked(file: Path, kind: LockKind = "auto") -> Iterator[None]:
    """Have something for this process, over all nodes.

    Args:
        file: names what is locked, and need not exist; beside it lies the lock.
        kind: as for `Journal`.
    """
    lock = _lock_of(file, kind)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Lock(Protocol):
    def acquire(self) -> object: ...

    def release(self) -> None: ...


class _Flock:
    """flock on a file of its own, which is never deleted. Waits as long as it takes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    def acquire(self) -> None:
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None


def _lock_of(file: Path, kind: LockKind) -> _Lock:
    symlink = JournalFileSymlinkLock(str(file), grace_period=_DEAD_AFTER)
    if kind == "symlink":
        return symlink
    lock = _Flock(file.with_suffix(".lock"))
    try:
        lock.acquire()
    except OSError as error:
        if kind == "flock" or error.errno not in _UNSUPPORTED:
            raise
        return symlink
    lock.release()
    return lock


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
