"""The sweep's memory on disk: Optuna's journal, shared by processes on many nodes, written in transactions.

`alone()` locks the journal over all nodes; what is decided inside is decided on the newest state, and all
that is written goes out as one append and one fsync when it ends. One JSON document a line, in Optuna's own
format: its tools read the file as it is.

Every line says how many more of its transaction follow (`more`, left out where it is 0); a reader takes in
whole transactions only. A writer killed in the middle of an append leaves half of one; the next drops it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from optuna.storages.journal import BaseJournalBackend

from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import LockKind

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_DEAD_AFTER = 30  # seconds after which an unchanged symbolic link is a dead process's lock


class JournalDamagedError(SweepError):
    """A line of the journal, before its last, is no JSON document."""


class JournalRewoundError(Exception):
    """The journal is shorter than what was read of it: a write was taken back. Read it from its beginning."""


class Journal(BaseJournalBackend):
    """A journal file.

    Args:
        file: the journal; made empty when it is missing. Beside it lies its lock.
        lock: flock (the kernel lets go when its holder dies), symlink (where flock does not reach other
            nodes; a dead holder's is taken after half a minute), or auto: flock where the file system has it.

    Attributes:
        repaired: a sentence for every half-written transaction that was dropped.
        observer: called with every entry that is read, in order.
    """

    def __init__(self, file: Path, lock: LockKind = "auto") -> None:
        self.file = file.resolve()
        self.repaired: list[str] = []
        self.observer: Callable[[dict[str, Any]], None] | None = None
        self._lock = _lock_of(self.file, lock)
        self._depth = 0
        self._pending: list[dict[str, Any]] = []
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
            self._drop_half()
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
            self._pending += logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Optuna's way to see what is new: the entries from this number on, unwritten ones too.

        Raises:
            JournalDamagedError: a line is no JSON document.
            JournalRewoundError: the file has become shorter.
        """
        if log_number_from < self._known:
            self._known = self._offset = 0
        with self.file.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._known = self._offset = 0
                raise JournalRewoundError(self.file)
            file.seek(self._offset)
            for entries, size in self._transactions(file):
                for number, entry in enumerate(entries, self._known):
                    if number >= log_number_from:
                        yield self._seen(entry)
                self._known += len(entries)
                self._offset += size
        for entry in self._pending[max(0, log_number_from - self._known) :]:
            yield self._seen(json.loads(_line(entry, 0)))  # as it will be read later

    def _seen(self, entry: dict[str, Any]) -> dict[str, Any]:
        if self.observer is not None:
            self.observer(entry)
        return entry

    def _transactions(self, lines: Iterable[bytes]) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The whole transactions from `_offset` on: their entries and their size in bytes."""
        entries: list[dict[str, Any]] = []
        size = expected = 0
        for number, line in enumerate(lines, self._known + 1):
            if not line.endswith(b"\n"):
                return  # being written, or left by a killed writer
            entry = _entry(line)
            if entry is None:
                raise JournalDamagedError(
                    f"{self.file} is damaged in line {number} ({line[:40]!r}): restore it from a copy, "
                    "or move it away and start the sweep again, which keeps every run that has finished"
                )
            more = entry.pop("more", 0)
            if entries and more != expected:  # another program has written behind a killed writer
                yield entries, size
                entries, size = [], 0
            entries.append(entry)
            size += len(line)
            expected = more - 1
            if more == 0:
                yield entries, size
                entries, size = [], 0

    def _write(self) -> None:
        """Append what is pending, wholly or not at all."""
        logs, self._pending = self._pending, []
        if not logs:
            return
        left = memoryview(b"".join(_line(log, len(logs) - number) for number, log in enumerate(logs, 1)))
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            try:
                while left:  # a full disk takes a part, and says why when asked again
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def _drop_half(self) -> None:
        """Cut off what a killed writer has left behind the last whole transaction."""
        size = self.file.stat().st_size
        if size == self._offset:
            return  # nobody has written since we read it to its end
        whole = self._offset if size > self._offset else 0
        with self.file.open("r+b") as file:
            file.seek(whole)
            lines = file.readlines()
            if lines and _entry(lines[-1]) is None:
                lines.pop()  # rubbish at the very end; anywhere else, the reader says so
            try:
                whole += sum(length for _, length in self._transactions(lines))
            except JournalDamagedError:
                return
            if dropped := size - whole:
                file.truncate(whole)
                os.fsync(file.fileno())
                self.repaired.append(f"{self.file}: dropped a half-written entry of {dropped} bytes")


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


class _Symlink:
    """A symbolic link, which only one can make. It points at its holder's name; who waits and sees the same
    name for half a minute takes it for dead. Optuna's own lock of this kind can be taken from a living
    holder, by the second of two that waited for a dead one.
    """

    def __init__(self, file: Path) -> None:
        self._link = file.with_name(f"{file.name}.lock")
        self._name = ""

    def acquire(self) -> None:
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        watched, since, pause = None, 0.0, 0.001
        while True:
            with contextlib.suppress(FileExistsError):
                self._link.symlink_to(self._name)
            holder = self._holder()
            if holder == self._name:
                return
            if holder != watched:
                watched, since = holder, time.monotonic()
            rounds = int((time.monotonic() - since) / _DEAD_AFTER)
            if holder is not None and rounds:
                self._remove(holder, rounds)
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def release(self) -> None:
        if self._holder() == self._name:
            self._link.unlink()

    def _holder(self) -> str | None:
        try:
            return str(self._link.readlink())
        except FileNotFoundError:
            return None

    def _remove(self, dead: str, rounds: int) -> None:
        """Remove a dead holder's link: one of those who wait may, and should it die itself, one of the next
        round."""
        permit = self._link.with_name(f"{self._link.name}.{dead}.{rounds}")
        try:
            permit.symlink_to(self._name)
        except FileExistsError:
            return
        if self._holder() == dead:
            self._link.unlink()
        permit.unlink()


def _lock_of(file: Path, kind: LockKind) -> _Lock:
    symlink = _Symlink(file)
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


def _line(log: dict[str, Any], more: int) -> bytes:
    entry = {**log, "more": more} if more else log
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    """The JSON document in a line; None where there is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
