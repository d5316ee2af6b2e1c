"""One run, looked at again and again: its record when that changes, its log as it grows."""

from __future__ import annotations

import json
import math
import socket
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bbi_lightning.tracking.config_file import config_if_readable
from bbi_lightning.tracking.live.alarms import (
    Alarm,
    allowed_silence,
    failure_alarm,
    lost_alarm,
    silence_alarm,
    training_alarms,
)
from bbi_lightning.tracking.live.log_tail import LogTail
from bbi_lightning.tracking.live.telemetry import LOSS, Telemetry
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.run_record import RunRecord

_QUIET = 10.0  # seconds of silence after which it is asked whether the process still lives
UNDER_WAY = ("running",)


@dataclass(frozen=True)
class RunView:
    """What an onlooker sees of a run. A number is None where nobody knows it.

    Attributes:
        folder, name: which run.
        state: of its record; "lost" when it says running and its process is gone; "damaged" when its record
            cannot be read.
        sweep, arm, phase, number: what a sweep knows it by; empty or None outside one.
        host, attempt, since: of the newest attempt; `since` in seconds of the epoch.
        step, planned_steps, epoch, planned_epochs: optimizer steps and epochs, taken and in all.
        progress: share of the planned steps taken, 0 to 1.
        steps_per_second, samples_per_second: of late.
        eta: seconds until it ends; only while it runs.
        took: seconds of training so far.
        loss: newest training loss. first_loss, lowest_loss: of all rows read.
        losses: the whole curve of the training loss, thinned.
        params: what a sweep searched, by key.
        metric, best, best_step, newest: validation metric, its best value and where, its newest value.
        complete: whether `best` and `losses` are of the whole log; the beginning of a long one is read last.
        energy_error, potential_over_energy, bounces: of the optimizer, where it conserves energy.
        silent: seconds since it last wrote anything; only while it runs.
        alarms: what should make someone look at it, the worst first.
    """

    folder: Path
    name: str
    state: str
    sweep: str = ""
    arm: str = ""
    phase: str = ""
    number: int | None = None
    host: str = ""
    attempt: int = 0
    since: float | None = None
    step: int | None = None
    planned_steps: int | None = None
    epoch: int | None = None
    planned_epochs: int | None = None
    progress: float | None = None
    steps_per_second: float | None = None
    samples_per_second: float | None = None
    eta: float | None = None
    took: float | None = None
    loss: float | None = None
    first_loss: float | None = None
    lowest_loss: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    losses: tuple[float, ...] = field(default=(), repr=False)
    metric: str = ""
    best: float | None = None
    best_step: int | None = None
    newest: float | None = None
    complete: bool = True
    energy_error: float | None = None
    potential_over_energy: float | None = None
    bounces: float | None = None
    silent: float | None = None
    alarms: tuple[Alarm, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether a process is at work on it."""
        return self.state in UNDER_WAY

    @property
    def is_in_trouble(self) -> bool:
        """Whether it has an alarm of the worst level."""
        return any(alarm.level == "error" for alarm in self.alarms)


@dataclass(frozen=True)
class Plan:
    """What a run's config says about its length and its validation metric."""

    epochs: int | None = None
    steps: int | None = None
    metric: str = "val/acc"
    maximize: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any], metric: str | None = None, maximize: bool | None = None) -> Plan:
        """Read a config; a sweep's own metric and direction win over the checkpoint's."""
        trainer, checkpoint = (_mapping(config.get(key)) for key in ("trainer", "checkpoint"))
        metric = metric or checkpoint.get("keep_best") or "val/acc"
        if maximize is None:
            maximize = not metric.endswith(("loss", "error"))
        epochs, steps = (_count(trainer.get(key)) for key in ("max_epochs", "max_steps"))
        return cls(epochs, steps, metric, maximize)

    def total_steps(self, steps_per_epoch: int | None) -> int | None:
        """Optimizer steps in all; None while an epoch's length is not known."""
        by_epochs = self.epochs * steps_per_epoch if self.epochs and steps_per_epoch else None
        if self.epochs and not by_epochs and not self.steps:
            return None
        known = [total for total in (self.steps, by_epochs) if total]
        return min(known) if known else None


class RunWatch:
    """A run on disk that is looked at again and again. Never writes.

    Args:
        folder: the run's folder.
        metric: the validation metric to follow; the one of its config if None.
        maximize: whether more of it is better; told by its name if None.
    """

    def __init__(self, folder: Path, metric: str | None = None, maximize: bool | None = None) -> None:
        self.folder = RunFolder(folder)
        self.record: RunRecord | None = None
        self.gone = False
        self.tail = LogTail(self.folder.metrics_file)
        self._asked = (metric, maximize)
        self._plan = Plan.of({}, metric, maximize)
        self._telemetry = self._new_telemetry()
        self._restarts = 0
        self._stamp: tuple[int, int] | None = None
        self._damage = ""
        self._last_sign: float | None = None  # of the monotonic clock
        self._rows_seen = -1
        self._lives = True

    @property
    def under_way(self) -> bool:
        """Whether its record says that it runs: worth a look every time."""
        return self.record is None or self.record.state in UNDER_WAY

    @property
    def complete(self) -> bool:
        """Whether its log has been read from the beginning to where it ended."""
        return self._rows_seen >= 0 and self.tail.complete

    def look(self) -> None:
        """See what changed: a record is read when it is another file, a log where it grew."""
        changed = self._read_record()
        if self.gone or self.record is None:
            return
        if self.under_way or (changed and self._rows_seen >= 0):
            self._read_newest()
        if self.under_way:
            self._look_for_life(changed)

    def read_beginning(self, most: int) -> int:
        """Read a block of what the first look left out; returns the bytes read."""
        before = self.tail.read
        if self._rows_seen < 0:
            self._read_newest()
        self._telemetry.take(self.tail.older(most), late=False)
        return self.tail.read - before

    def view(self) -> RunView:
        """What there is to see, as of the last look."""
        folder, name = self.folder.path, self.folder.name
        if self.record is None:
            alarm = Alarm("error", "damaged", self._damage or "its run.json cannot be read")
            return RunView(folder, name, "damaged", alarms=(alarm,))
        record, seen = self.record, self._telemetry
        attempt = record.attempts[-1] if record.attempts else None
        runs = record.state in UNDER_WAY
        state = "lost" if runs and not self._lives else record.state
        total = self._plan.total_steps(seen.steps_per_epoch)
        step = seen.step if seen.rows else _count(record.summary.get("steps"))
        rate = seen.steps_per_second
        number = record.labels.get("replicate" if record.labels.get("phase") == "replicate" else "trial")
        return RunView(
            folder=folder,
            name=name,
            state=state,
            sweep=str(record.labels.get("sweep") or ""),
            arm=str(record.labels.get("arm") or ""),
            phase=str(record.labels.get("phase") or ""),
            number=number if isinstance(number, int) else None,
            host=attempt.host if attempt else "",
            attempt=len(record.attempts),
            since=_seconds(attempt.started) if attempt else None,
            step=step,
            planned_steps=total,
            epoch=seen.epoch if seen.rows else None,
            planned_epochs=self._plan.epochs,
            progress=_progress(record.state, step, total),
            steps_per_second=rate if seen.rows else None,
            samples_per_second=self._number("speed/samples_per_s"),
            eta=max(0, total - step) / rate if state == "running" and total and step and rate else None,
            took=seen.seconds if seen.rows else _float(record.summary.get("wall_s")),
            loss=self._number(LOSS),
            first_loss=seen.first_loss,
            lowest_loss=seen.lowest_loss,
            params=_mapping(record.labels.get("params")),
            losses=tuple(seen.losses),
            metric=self._plan.metric,
            best=seen.best,
            best_step=seen.best_step,
            newest=self._number(self._plan.metric),
            complete=self.tail.complete,
            energy_error=seen.energy_error,
            potential_over_energy=self._number("energy/potential_over_energy"),
            bounces=self._number("energy/bounces"),
            silent=self._silence() if runs else None,
            alarms=self._alarms(state),
        )

    def _number(self, key: str) -> float | None:
        number = self._telemetry.number(key)
        return number if number is not None or self.record is None else _float(self.record.summary.get(key))

    def _new_telemetry(self) -> Telemetry:
        return Telemetry(self._plan.metric, maximize=self._plan.maximize)

    def _read_record(self) -> bool:
        """Read run.json if it is another; returns whether it is."""
        try:
            facts = self.folder.record_file.stat()
        except FileNotFoundError:
            self.gone = True
            return False
        except OSError as error:
            self._damage = f"its run.json cannot be read: {error.strerror}"
            return False
        stamp = (facts.st_mtime_ns, facts.st_ino)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        attempts = len(self.record.attempts) if self.record else 0
        try:
            self.record = RunRecord.from_json(json.loads(self.folder.record_file.read_bytes()))
        except (OSError, ValueError) as error:
            self.record, self._damage = None, f"its run.json cannot be read: {error}"
            return True
        if len(self.record.attempts) != attempts:
            self._read_config()
            self._telemetry.forget_recent()
        return True

    def _read_config(self) -> None:
        if self.record is not None and self.record.state == "finished":
            return  # nobody asks how far it is
        plan = Plan.of(config_if_readable(self.folder.config_file), *self._asked)
        if plan.metric != self._plan.metric:
            self._restart(plan)
        self._plan = plan

    def _restart(self, plan: Plan) -> None:
        self._plan = plan
        self.tail = LogTail(self.folder.metrics_file)
        self._telemetry, self._restarts, self._rows_seen = self._new_telemetry(), 0, -1

    def _read_newest(self) -> None:
        rows = self.tail.newer()
        if self.tail.restarts != self._restarts:
            self._restarts = self.tail.restarts
            self._telemetry = self._new_telemetry()
        self._telemetry.take(rows)
        if rows and self._rows_seen >= 0:
            self._last_sign = time.monotonic()
        self._rows_seen = self._telemetry.rows

    def _look_for_life(self, changed: bool) -> None:
        if changed and self._last_sign is not None:
            self._last_sign = time.monotonic()
        assert self.record is not None
        attempt = self.record.attempts[-1] if self.record.attempts else None
        here = attempt is not None and attempt.host == socket.gethostname()
        # some mounts keep locks to one machine: of another's process only a long silence tells
        quiet = _QUIET if here else allowed_silence(self._telemetry.usual_gap)
        self._lives = self._silence() <= quiet or self._is_held()

    def _is_held(self) -> bool:
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            try:
                held = self.folder.holder() is not None
            except OSError:
                return True
        return held or bool(complaints)  # a file system without locks says nothing

    def _silence(self) -> float:
        """Seconds since it wrote anything: by our own clock once it was seen, before by the files' times."""
        if self._last_sign is None:
            newest = 0.0
            for file in (self.folder.metrics_file, self.folder.record_file):
                try:
                    newest = max(newest, file.stat().st_mtime)
                except OSError:
                    continue
            self._last_sign = time.monotonic() - max(0.0, time.time() - newest)
        return time.monotonic() - self._last_sign

    def _alarms(self, state: str) -> tuple[Alarm, ...]:
        assert self.record is not None
        attempt = self.record.attempts[-1] if self.record.attempts else None
        if state == "lost":
            return (lost_alarm(attempt.host if attempt else None),)
        if state == "failed":
            return (failure_alarm(attempt.exception if attempt else None),)
        if state != "running":
            return ()
        silent = silence_alarm(self._silence(), self._telemetry.usual_gap)
        found = [*training_alarms(self._telemetry), *([silent] if silent else [])]
        return tuple(sorted(found, key=lambda alarm: alarm.level != "error"))


def _progress(state: str, step: int | None, total: int | None) -> float | None:
    if state == "finished":
        return 1.0
    return min(1.0, step / total) if total and step is not None else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return None if math.isnan(value) else float(value)


def _seconds(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
