"""The thread that looks: at the runs, at the workers' signs of life, at the queue. The screen never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bbi_lightning.tracking.live.alarms import Alarm
from bbi_lightning.tracking.live.watch import Snapshot, SweepView, Watch

if TYPE_CHECKING:
    from bbi_lightning.cluster.slurm import QueuedJob
    from bbi_lightning.sweeps.spec import LockKind

QUEUE_EVERY = 15.0  # seconds: squeue asks a server that all users share
WORKERS_EVERY = 10.0
_NO_CLUSTER = "configuration source"  # SLURM is installed, and no cluster is known to it
_ALL = 64 * 2**20  # bytes of logs that a single look reads


@dataclass(frozen=True)
class Queue:
    """The user's jobs of ours in SLURM's queue.

    Attributes:
        here: whether there is a SLURM.
        jobs: those that wait or run.
        trouble: why the queue is not known; None when it is.
    """

    here: bool = False
    jobs: tuple[QueuedJob, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True)
class Workers:
    """Who works on a sweep: how many live, and which vanished without a word."""

    living: int = 0
    vanished: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """All that is known at a moment; `looked` is when (monotonic), so that its age can be told."""

    snapshot: Snapshot
    queue: Queue
    workers: dict[Path, Workers] = field(default_factory=dict)
    looked: float = 0.0

    @property
    def alarms(self) -> list[Alarm]:
        """Of disks, queue and workers: those that belong to no run."""
        found = list(self.snapshot.alarms)
        if self.queue.trouble:
            found.append(Alarm("warning", "queue", self.queue.trouble))
        for sweep in self.snapshot.sweeps:
            workers = self.workers.get(sweep.folder, Workers())
            over = sweep.total is not None and sweep.ended >= sweep.total
            if workers.vanished and not workers.living and not over:
                names = ", ".join(workers.vanished[:3]) + (" …" if len(workers.vanished) > 3 else "")
                again = "nobody works on it now: start or submit it again, nothing runs twice"
                found.append(
                    Alarm("warning", "workers", f"{sweep.name}: {names} vanished without a word, {again}")
                )
        return found


class Gatherer:
    """Looks in a thread of its own. What a hanging disk or queue keeps back, the screen shows as old.

    Args:
        roots: where the runs are.
        interval: seconds between two looks, ≥ 0.1.
    """

    def __init__(self, roots: Sequence[Path], interval: float) -> None:
        self._watch = Watch(roots)
        self._interval = interval
        self._queue = Queue()
        self._workers: dict[Path, Workers] = {}
        self._workers_due = 0.0
        self._scene: Scene | None = None
        self._stop = threading.Event()
        self._new = threading.Event()
        self.trouble: BaseException | None = None

    def start(self) -> None:
        """Begin to look; the threads end with the process, or after `stop`."""
        for what in (self._look_on, self._ask_on):
            threading.Thread(target=what, name=f"bbi top {what.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def scene(self) -> Scene | None:
        """The newest; None before the first look has ended."""
        return self._scene

    def once(self) -> Scene:
        """One look, without threads; of the queue too."""
        self._ask_queue(10.0)
        self._workers_due = 0.0
        return self._look(_ALL)

    def _look(self, bytes_of_beginnings: int = 2 * 2**20) -> Scene:
        snapshot = self._watch.look(bytes_of_beginnings)
        now = time.monotonic()
        if now >= self._workers_due:
            self._workers = {sweep.folder: workers_of(sweep) for sweep in snapshot.sweeps}
            self._workers_due = now + WORKERS_EVERY
        self._scene = Scene(snapshot, self._queue, self._workers, time.monotonic())
        return self._scene

    def _look_on(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                scene = self._look()
                # reading a great many logs for the first time: go on at once, at most half of the time
                pause = (
                    self._interval if scene.snapshot.complete else min(self._interval, scene.snapshot.seconds)
                )
                self._stop.wait(max(0.02, pause - (time.monotonic() - began)))
        except Exception as error:  # shown by the screen, which would else stand still without a word
            self.trouble = error

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            self._ask_queue(60.0)
            if not self._queue.here:
                return
            self._stop.wait(QUEUE_EVERY)

    def _ask_queue(self, patience: float) -> None:
        from bbi_lightning.cluster.slurm import Slurm

        if Slurm.is_here():
            self._queue = queue_now(self._queue.jobs, patience)


def queue_now(before: tuple[QueuedJob, ...], patience: float) -> Queue:
    """Our jobs in the queue; those of before where it does not answer."""
    from bbi_lightning.cluster import ClusterError
    from bbi_lightning.cluster.slurm import Slurm

    try:
        jobs = [job for job in Slurm().queue(patience=patience) if job.lives and job.name.startswith("bbi-")]
    except ClusterError as error:
        belongs = _NO_CLUSTER not in str(error)
        return Queue(True, before, str(error)) if belongs else Queue()
    except ValueError as error:  # an answer of another shape
        return Queue(True, before, f"squeue's answer cannot be read: {error}")
    return Queue(True, tuple(jobs))


def workers_of(sweep: SweepView) -> Workers:
    """Who works on a sweep, told by their signs of life."""
    folder = sweep.folder / "workers"
    if not folder.is_dir():
        return Workers()
    from bbi_lightning.sweeps.workers import Roster

    roster = Roster(folder, cast("LockKind", sweep.lock))
    try:
        everybody = roster.workers()
        living = {worker.owner for worker in roster.living()}
    except OSError:
        return Workers()
    vanished = [w.place for w in everybody if w.ended is None and w.owner not in living]
    return Workers(len(living), tuple(vanished))
