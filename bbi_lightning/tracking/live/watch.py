"""All runs below some folders, and the sweeps they belong to: one look, one value."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bbi_lightning.tracking.config_file import read_config
from bbi_lightning.tracking.live.alarms import Alarm
from bbi_lightning.tracking.live.finder import RunFinder
from bbi_lightning.tracking.live.run_watch import RunView, RunWatch
from bbi_lightning.tracking.run_record import RunRecord

_RESTING = 10  # a run that does not run is looked at in every so-manieth look
_BLOCK = 256 * 1024  # bytes of a log's beginning, at a time
_LITTLE_SPACE = 0.02  # share of a disk
_PLENTY = 20 * 2**30  # bytes that are enough on any disk
_LITTLE_BYTES = 2**30


@dataclass(frozen=True)
class SweepView:
    """What an onlooker sees of a sweep.

    Attributes:
        folder, name: which sweep.
        total: runs there will be; None where its description cannot be read.
        counts: runs that were begun, by state.
        eta: seconds until it ends at the present pace; None before a run has ended, or while none runs.
        metric, best, best_arm: the objective, its best value in the search so far, and whose it is.
        lock: how its workers lock, as the description has it.
    """

    folder: Path
    name: str
    total: int | None
    counts: Mapping[str, int]
    eta: float | None
    metric: str
    best: float | None
    best_arm: str
    lock: str = "auto"

    @property
    def ended(self) -> int:
        """Runs that have ended for good."""
        return sum(self.counts.get(state, 0) for state in ("finished", "diverged", "pruned", "failed"))

    @property
    def progress(self) -> float | None:
        """Share of its runs that have ended."""
        return min(1.0, self.ended / self.total) if self.total else None


@dataclass(frozen=True)
class Snapshot:
    """What one look saw.

    Attributes:
        runs: in no particular order. sweeps: in order of their folders.
        alarms: of the disks, not of one run.
        complete: whether all logs have been read from their beginning.
        seconds: that the look took. at: when it ended, seconds of the epoch.
    """

    runs: tuple[RunView, ...]
    sweeps: tuple[SweepView, ...]
    alarms: tuple[Alarm, ...]
    complete: bool
    seconds: float
    at: float


class Watch:
    """Looks at all runs below some folders, again and again, and reads nothing twice.

    Args:
        roots: folders; a run, a sweep or anything above.

    Example:
        >>> Watch([Path("runs"), Path("sweeps")]).look().runs  # doctest: +SKIP
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(dict.fromkeys(root.absolute() for root in roots))
        self._finders = [RunFinder(root) for root in self.roots]
        self._runs: dict[Path, RunWatch] = {}
        self._views: dict[Path, RunView] = {}
        self._sweeps: dict[Path, _Sweep | None] = {}
        self._looks = 0

    def look(self, bytes_of_beginnings: int = 2 * 2**20) -> Snapshot:
        """Look at everything.

        Args:
            bytes_of_beginnings: how much to read this time of long logs' beginnings and of ended runs' logs.
        """
        began = time.monotonic()
        self._find()
        self._look_at_runs()
        complete = self._read_beginnings(bytes_of_beginnings)
        self._looks += 1
        views = tuple(self._views[path] for path in self._runs)
        return Snapshot(
            runs=views,
            sweeps=tuple(self._sweep_views(views)),
            alarms=tuple(_disk_alarms(self.roots)),
            complete=complete,
            seconds=time.monotonic() - began,
            at=time.time(),
        )

    def _find(self) -> None:
        found = {path for finder in self._finders for path in finder.runs()}
        for path in sorted(found - self._runs.keys()):
            sweep = self._sweep_of(path)
            self._runs[path] = RunWatch(path, *(sweep.objective if sweep else (None, None)))
        for path in self._runs.keys() - found:
            del self._runs[path]
            self._views.pop(path, None)

    def _look_at_runs(self) -> None:
        for place, (path, run) in enumerate(list(self._runs.items())):
            if run.under_way or path not in self._views or (place + self._looks) % _RESTING == 0:
                run.look()
                if run.gone:
                    del self._runs[path]
                    self._views.pop(path, None)
                    for finder in self._finders:
                        finder.forget(path)
                else:
                    self._views[path] = run.view()

    def _read_beginnings(self, budget: int) -> bool:
        """Read what was left out, of the runs under way first; returns whether nothing is left."""
        left = [
            (path, run) for path, run in self._runs.items() if run.record is not None and not run.complete
        ]
        for path, run in sorted(left, key=lambda item: not item[1].under_way):
            while budget > 0 and not run.complete:
                budget -= max(1, run.read_beginning(min(_BLOCK, budget)))
            self._views[path] = run.view()
            if budget <= 0:
                break
        return all(run.complete for _, run in left)

    def _sweep_of(self, run: Path) -> _Sweep | None:
        folder = run.parent.parent
        if run.parent.name != "runs":
            return None
        known = self._sweeps.get(folder)
        changed = _changed(folder / "sweep.yaml")
        if changed is None:
            self._sweeps[folder] = None
        elif known is None or known.changed != changed:
            self._sweeps[folder] = _Sweep.read(folder, changed)
        return self._sweeps[folder]

    def _sweep_views(self, views: Iterable[RunView]) -> Iterable[SweepView]:
        members: dict[Path, list[RunView]] = {}
        for view in views:
            members.setdefault(view.folder.parent.parent, []).append(view)
        for folder in sorted(members.keys() & self._sweeps.keys()):
            sweep = self._sweep_of(members[folder][0].folder)
            if sweep is not None:
                records = [self._runs[view.folder].record for view in members[folder]]
                yield sweep.view(members[folder], [record for record in records if record is not None])


@dataclass(frozen=True)
class _Sweep:
    """A sweep's description, as far as an onlooker needs it."""

    folder: Path
    changed: int
    name: str
    total: int | None
    metric: str
    maximize: bool
    lock: str = "auto"

    @classmethod
    def read(cls, folder: Path, changed: int) -> _Sweep:
        try:
            spec = read_config(folder / "sweep.yaml")
            search, objective = spec["search"], spec["objective"]
            an_arm = (int(search["trials"]) + int(spec["replicates"]["count"])) * int(
                search.get("studies", 1)
            )
            total: int | None = len(spec["arms"]) * an_arm
            metric, maximize = str(objective["metric"]), objective.get("direction", "maximize") == "maximize"
            name, lock = str(spec.get("name") or folder.name), str(spec.get("lock") or "auto")
        except (OSError, KeyError, TypeError, ValueError):
            name, lock, total, metric, maximize = folder.name, "auto", None, "val/acc", True
        return cls(folder, changed, name, total, metric, maximize, lock)

    @property
    def objective(self) -> tuple[str, bool]:
        return self.metric, self.maximize

    def view(self, runs: Sequence[RunView], records: Sequence[RunRecord]) -> SweepView:
        counts = Counter(run.state for run in runs)
        best, arm = self._best(records)
        ended = sum(counts[state] for state in ("finished", "diverged", "pruned", "failed"))
        eta = None
        seconds = [took for record in records if (took := _wall_seconds(record)) is not None]
        at_work = [run for run in runs if run.state == "running"]
        if self.total and seconds and at_work:
            mean = sum(seconds) / len(seconds)
            begun = sum(min(mean, run.took or 0.0) for run in at_work)
            eta = max(0.0, (self.total - ended) * mean - begun) / len(at_work)
        return SweepView(
            self.folder, self.name, self.total, dict(counts), eta, self.metric, best, arm, self.lock
        )

    def _best(self, records: Sequence[RunRecord]) -> tuple[float | None, str]:
        results = [
            (float(value), str(record.labels.get("arm", "")))
            for record in records
            if record.state == "finished" and record.labels.get("phase") == "search"
            if isinstance(value := record.summary.get(self.metric), (int, float)) and math.isfinite(value)
        ]
        if not results:
            return None, ""
        return (max if self.maximize else min)(results, key=lambda result: result[0])


def _wall_seconds(record: RunRecord) -> float | None:
    """Seconds that an ended run took; None if it has not ended or does not say."""
    if not record.is_result:
        return None
    wall: Any = record.summary.get("wall_s")
    if isinstance(wall, (int, float)) and math.isfinite(wall):
        return float(wall)
    ends = [(a.started, a.ended) for a in record.attempts if a.ended is not None]
    try:
        moments = [(datetime.fromisoformat(began), datetime.fromisoformat(ended)) for began, ended in ends]
        return sum((ended - began).total_seconds() for began, ended in moments) if moments else None
    except ValueError:
        return None


def _changed(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def _disk_alarms(roots: Iterable[Path]) -> Iterable[Alarm]:
    """Disks with little space left, each once."""
    told: set[int] = set()
    for root in roots:
        try:
            device, facts = root.stat().st_dev, os.statvfs(root)
        except OSError as error:
            yield Alarm("error", "disk", f"{root} cannot be reached: {error.strerror}")
            continue
        if device in told:
            continue
        told.add(device)
        free, size = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
        if size and free < _PLENTY and (free < _LITTLE_SPACE * size or free < _LITTLE_BYTES):
            level = "error" if free < _LITTLE_BYTES else "warning"
            yield Alarm(
                level,  # type: ignore[arg-type]
                "disk",
                f"the disk of {root} has {free / 2**30:.1f} GiB left ({free / size:.1%}): make room",
            )
        elif facts.f_files and facts.f_favail < 10_000 and facts.f_favail < 0.01 * facts.f_files:
            yield Alarm("warning", "disk", f"the disk of {root} takes only {facts.f_favail} more files")
