"""Who is at work on a sweep: one file a worker, on the shared folder.

A worker holds a lock as long as it lives, and renews its file's time every few seconds. It counts as vanished
when the lock is free (its process has died, on whatever node), or when the file has not been renewed for so
long that its node must be gone. Ages are told by the file system's own clock, never by two nodes' clocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from bbi_lightning.cluster.slurm import job_id
from bbi_lightning.sweeps.spec import LockKind
from bbi_lightning.sweeps.trial import Owner
from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.run_lock import RunLock

BEAT = 10.0  # seconds between two signs of life
_SILENT = 60.0  # seconds of silence after which a worker is dead where locks do not tell
_SILENT_BUT_LOCKED = 300.0  # the same where they do: its node has vanished, and the server has not noticed


def worker_name() -> str:
    """The name of this process as a worker: a job that SLURM requeues has the same again."""
    job = job_id()
    if job is None:
        return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    rank = os.environ.get("SLURM_PROCID", "0")
    return f"slurm-{job}" if rank == "0" else f"slurm-{job}-p{rank}"


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says about itself.

    Attributes:
        owner: its name and which of its lives.
        host, pid: where it is.
        job: its SLURM job, None outside SLURM.
        slots: trials that it runs at a time.
        since: ISO time, UTC.
        ended: how it ended, None while it has not.
    """

    owner: Owner
    host: str
    pid: int
    job: str | None
    slots: int
    since: str
    ended: str | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"job {self.job} on {self.host}" if self.job else f"process {self.pid} on {self.host}"


class Presence:
    """This worker's sign of life, as a context manager.

    Args:
        folder: the sweep's folder of workers; made if missing.
        slots: trials it runs at a time.
        beat: seconds between two signs of life.
    """

    def __init__(self, folder: Path, slots: int, *, beat: float = BEAT) -> None:
        self.info = WorkerInfo(
            owner=Owner(worker_name(), uuid.uuid4().hex[:12]),
            host=socket.gethostname(),
            pid=os.getpid(),
            job=job_id(),
            slots=slots,
            since=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        self.how_it_ended = "vanished"
        self._file = folder / f"{self.info.owner.id}.json"
        self._lock = RunLock(self._file.with_suffix(".lock"))
        self._beat = beat
        self._left = threading.Event()

    def __enter__(self) -> Presence:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()  # before the file is there: nobody must find it unlocked
        self._write(self.info)
        threading.Thread(target=self._renew, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        ended = self.how_it_ended if kind is None else f"{kind.__name__}: {error}"
        with contextlib.suppress(OSError):  # a full disk: the free lock says enough
            self._write(WorkerInfo(**{**vars(self.info), "ended": ended}))
        self._lock.release()

    def _write(self, info: WorkerInfo) -> None:
        write_atomically(self._file, json.dumps(asdict(info), indent=1).encode())

    def _renew(self) -> None:
        while not self._left.wait(self._beat):
            with contextlib.suppress(OSError):
                os.utime(self._file)


class Roster:
    """All workers of a sweep, as their files tell. Changes nothing but a clock file.

    Args:
        folder: the sweep's folder of workers; need not exist.
        lock: how the sweep is locked: with symlink, locks do not tell who lives.
    """

    def __init__(self, folder: Path, lock: LockKind = "auto") -> None:
        self._folder = folder
        self._locks_tell = lock != "symlink"

    def workers(self) -> list[WorkerInfo]:
        """All that ever were, in order of their names."""
        return [info for file in sorted(self._folder.glob("*.json")) if (info := _read(file)) is not None]

    def living(self) -> list[WorkerInfo]:
        """Those that are at work."""
        return [info for info in self.workers() if self._lives(info)]

    def vanished(self, owners: Collection[Owner]) -> set[Owner]:
        """Those of the owners that are not at work any more: ended, dead, or in another life by now."""
        known = [info for owner in set(owners) if (info := _read(self._file(owner))) is not None]
        return set(owners) - {info.owner for info in known if self._lives(info)}

    def _lives(self, info: WorkerInfo) -> bool:
        if info.ended is not None:
            return False
        file = self._file(info.owner)
        if self._locks_tell and RunLock(file.with_suffix(".lock")).holder() is None:
            return False
        return self._silence(file) < (_SILENT_BUT_LOCKED if self._locks_tell else _SILENT)

    def _silence(self, file: Path) -> float:
        """Seconds since the file was renewed, by the file system's clock."""
        clock = self._folder / ".clock"
        try:
            clock.touch()
            return clock.stat().st_mtime - file.stat().st_mtime
        except OSError:  # somebody else's folder, a full disk: believe the lock
            return 0.0

    def _file(self, owner: Owner) -> Path:
        return self._folder / f"{owner.id}.json"


def _read(file: Path) -> WorkerInfo | None:
    try:
        data: dict[str, Any] = json.loads(file.read_bytes())
        return WorkerInfo(**{**data, "owner": Owner(**data["owner"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
