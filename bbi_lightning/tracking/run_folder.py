"""A run is a folder. Its name is its identity, `run.json` says what became of it.

    <root>/<name>/
      config.yaml     the resolved config
      run.json        state, labels, summary and the attempts it took (`RunRecord`)
      metrics.jsonl   the rows (`metric_log`)
      checkpoints/    written by training
      wandb/          written by W&B
      lock            held by the process that trains the run

Reading a folder imports neither torch nor Lightning nor W&B.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.environment import code_facts, hardware_facts, version_facts
from bbi_lightning.tracking.run_lock import RunBusyError, RunLock
from bbi_lightning.tracking.run_record import STATES, Attempt, RunRecord

__all__ = ["STATES", "Attempt", "RunBusyError", "RunFolder", "RunRecord"]

_TRACEBACK_LINES = 40


class RunFolder:
    """A run on disk. Cheap: nothing is read before `record` is, and nothing is kept in memory.

    Args:
        path: the run's folder; its last part is the run's name. Need not exist (`exists`).

    Example:
        >>> import tempfile
        >>> folder = RunFolder.create(tempfile.mkdtemp() + "/toy-s0", config="seed: 0\\n")
        >>> attempt = folder.begin_attempt()
        >>> folder.end_attempt("finished", summary={"val/acc": 0.99})
        >>> folder.record.state, folder.record.summary["val/acc"]
        ('finished', 0.99)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = RunLock(self.path / "lock")
        self._attempt_number: int | None = None

    def __reduce__(self) -> tuple[type[RunFolder], tuple[Path]]:
        return RunFolder, (self.path,)  # the attempt and the lock stay with the process that has them

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        config: str,
        labels: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        origin: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """The run's folder, made if it is not there. A run that exists already is returned as it is, only
        labels it does not have are added (a sweep may take up a run that was started by hand).

        Args:
            path: the folder; its parents are made too.
            config: the resolved config as YAML text.
            labels: plain JSON.
            overrides: the command line that made the config, for the record.
            origin: what the run begins from, if not from nothing: plain JSON, for the record.

        Raises:
            RunBusyError: labels would have to be added while another process trains the run.
            ValueError: the existing run.json is damaged.
        """
        folder = cls(path)
        labels = dict(labels or {})
        if folder.exists and not labels.keys() - folder.record.labels.keys():
            return folder
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder._locked():
            if folder.exists:
                record = folder.record
                folder._write(dataclasses.replace(record, labels=labels | dict(record.labels)))
            else:
                # run.json comes last: where it is, the folder is complete
                write_atomically(folder.config_file, config.encode())
                folder._write(
                    RunRecord(
                        name=folder.name,
                        state="interrupted",
                        created=_now(),
                        labels=labels,
                        overrides=tuple(overrides),
                        origin=dict(origin or {}),
                    )
                )
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run. Raises FileNotFoundError when there is none at `path`."""
        folder = cls(path)
        if not folder.exists:
            raise FileNotFoundError(f"{folder.path} is not a run (it has no run.json): give a run's folder")
        return folder

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def exists(self) -> bool:
        """Whether the run has been created."""
        return self.record_file.is_file()

    @property
    def config_file(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """The metric log."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where training keeps its checkpoints."""
        return self.path / "checkpoints"

    @property
    def record(self) -> RunRecord:
        """What `run.json` says at this moment.

        Raises:
            FileNotFoundError: there is no run here.
            ValueError: run.json is damaged or of a newer format; one sentence with the file and the remedy.
        """
        try:
            return RunRecord.from_json(json.loads(self.record_file.read_bytes()))
        except ValueError as error:  # bad JSON, bad UTF-8, or our own words
            raise ValueError(
                f"{self.record_file} cannot be read ({error}): "
                "restore it, or delete the run's folder to train it again"
            ) from None

    def acquire(self) -> None:
        """Take the run for this process; `begin_attempt` does it too. Ends with `release` or the process.

        Raises:
            RunBusyError: another process has it; says which, where and since when.
        """
        self._lock.acquire()

    def release(self) -> None:
        """Let go of the run; harmless when it is not held."""
        self._lock.release()

    def holder(self) -> Mapping[str, Any] | None:
        """Who trains the run now, {"host", "pid", "since"}, or None: then a state "running" means killed."""
        return self._lock.holder()

    def set_aside(self) -> Path | None:
        """Make room for the run to be trained from the start: the folder moves, nothing of it is lost.

        Returns:
            where it is now, `<root>/.replaced/<name>-<n>` (hidden, so that nobody takes it for a run of the
            root); None if there was none.

        Raises:
            RunBusyError: another process trains the run.
        """
        if not self.exists:
            return None
        self.acquire()
        try:
            graveyard = self.path.parent / ".replaced"
            graveyard.mkdir(exist_ok=True)
            number = 1
            while (graveyard / f"{self.name}-{number}").exists():
                number += 1
            return self.path.rename(graveyard / f"{self.name}-{number}")
        finally:
            self.release()

    def begin_attempt(self, *, from_step: int = 0) -> Attempt:
        """Take the run and write down that this process works on it: state "running".

        An earlier attempt that never ended was killed: its reason becomes "lost".

        Args:
            from_step: optimizer steps already taken, of the checkpoint that is resumed from.

        Raises:
            RunBusyError: another process trains this run.
            ValueError: the run is a result already (another process ended it meanwhile).
        """
        held_before = self._lock.held
        self.acquire()
        try:
            record = self.record
            if record.is_result:
                raise ValueError(
                    f"run {self.name} has {record.state} already: delete {self.path} to train it again"
                )
            attempt = _new_attempt(len(record.attempts) + 1, from_step)
            earlier = tuple(
                dataclasses.replace(a, reason="lost") if a.reason is None else a for a in record.attempts
            )
            self._write(dataclasses.replace(record, state="running", attempts=(*earlier, attempt)))
        except BaseException:
            if not held_before:
                self.release()
            raise
        self._attempt_number = attempt.number
        return attempt

    def end_attempt(
        self,
        state: str,
        reason: str | None = None,
        summary: Mapping[str, Any] | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Write down how this process's attempt ended, and let go of the run.

        Args:
            state: finished, diverged, failed or interrupted.
            reason: in a few words ("SIGTERM", "max_epochs"); the state itself if not given.
            summary: merged over the run's summary.
            exception: what was raised, if anything; the last lines of its traceback are kept.

        Raises:
            ValueError: no attempt was begun by this object, or `state` is none of the four.
        """
        if self._attempt_number is None:
            raise ValueError(f"run {self.name} has no attempt to end: call begin_attempt() first")
        if state not in STATES or state == "running":
            raise ValueError(f"state={state!r} does not end an attempt: use one of {', '.join(STATES[1:])}")
        record = self.record
        *earlier, attempt = record.attempts
        ended = dataclasses.replace(
            attempt, ended=_now(), reason=reason or state, exception=_traceback_tail(exception)
        )
        self._write(
            dataclasses.replace(
                record,
                state=state,
                summary={**record.summary, **(summary or {})},
                attempts=(*earlier, ended),
            )
        )
        self._attempt_number = None
        self.release()

    def stop_for_good(self) -> bool:
        """Write down that a run which was asked to stop is not to go on: state "pruned".

        Returns:
            Whether it is: not if it came to a result of its own in the meantime.

        Raises:
            RunBusyError: a process trains this run.
        """
        with self._locked():
            record = self.record
            if not record.is_result:
                self._write(dataclasses.replace(record, state="pruned"))
            return not record.is_result or record.state == "pruned"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        held_before = self._lock.held
        self.acquire()
        try:
            yield
        finally:
            if not held_before:
                self.release()

    def _write(self, record: RunRecord) -> None:
        content = json.dumps(record.to_json(), indent=2, allow_nan=False)
        write_atomically(self.record_file, (content + "\n").encode())


def _new_attempt(number: int, from_step: int) -> Attempt:
    code = code_facts()
    return Attempt(
        number=number,
        host=socket.gethostname(),
        pid=os.getpid(),
        commit=code.commit,
        dirty=code.dirty,
        diff_sha256=code.diff_sha256,
        started=_now(),
        from_step=from_step,
        hardware=hardware_facts(),
        versions=version_facts(),
    )


def _traceback_tail(error: BaseException | None) -> str | None:
    if error is None:
        return None
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:])


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
