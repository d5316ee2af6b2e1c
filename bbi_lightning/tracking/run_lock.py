"""One process at a time on a run: a lock that dies with its holder, however that dies.

flock on a file in the run's folder. The kernel lets go when the holder is killed, and it works between the
nodes of a cluster on NFS 4 and on Lustre mounted with `flock`. The file is never deleted: that would let two
processes hold two different files of one name.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_PATIENCE = 0.5  # seconds; `holder()` takes the lock for an instant, and that must not refuse a run
_PAUSE = 0.02  # seconds between tries
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class RunBusyError(ValueError):
    """Another process is training this run."""


class RunLock:
    """The right to train a run. Held by one object of one process; children made by fork do not inherit it.

    Args:
        path: the lock's file; made on the first `acquire`, in a folder that exists by then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock; harmless when this object has it already.

        A file system without locks (some network mounts) gives a warning and goes on unprotected.

        Raises:
            RunBusyError: somebody else has it; one sentence with host, process and since when.
        """
        if self.held:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _try_for(descriptor, fcntl.LOCK_EX, _PATIENCE):
                raise RunBusyError(_busy(self.path))
            note = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(note).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let go; harmless when this object does not hold the lock."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)

    def holder(self) -> Mapping[str, Any] | None:
        """Who holds the lock, {"host", "pid", "since"} (empty if that cannot be read), or None if nobody."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # shared, so that it works on somebody else's folder and onlookers do not see one another
            return None if _try_for(descriptor, fcntl.LOCK_SH, 0.0) else _note(self.path)
        finally:
            os.close(descriptor)

    def __reduce__(self) -> tuple[type[RunLock], tuple[Path]]:
        return RunLock, (self.path,)  # a copy in another process holds nothing

    def _forget(self) -> None:
        """In a forked child: drop the inherited descriptor, which would outlive the parent's lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing a copy does not unlock; LOCK_UN would, for the parent too
            self._descriptor = None


_held: set[RunLock] = set()  # a lock nobody refers to any more is still held


def _forget_all() -> None:
    for lock in _held:
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_all)


def _try_for(descriptor: int, kind: int, patience: float) -> bool:
    """Whether a lock of this kind was had within so many seconds."""
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            warnings.warn("this file system has no locks: do not start one run twice at a time", stacklevel=3)
            return True
        else:
            return True


def _note(path: Path) -> dict[str, Any]:
    """What the holder wrote about itself; empty in the instant before it has."""
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _busy(path: Path) -> str:
    note = _note(path)
    who = f"process {note['pid']} on {note['host']} since {note['since']}" if note else "another process"
    return f"run {path.parent.name} is being trained by {who}: wait for it to end, or stop it first"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
