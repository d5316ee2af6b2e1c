"""The metric log of a run: `metrics.jsonl`, one JSON object a line, the source of truth for every curve.

A row is ``{"step": 40, "epoch": 2, "time": 1.3, "train/loss": 0.21, ...}``; `time` is in seconds. A row
exists once its newline is on disk: an unterminated last line is what a killed writer left behind, and readers
and writers both drop it. JSON has no number for NaN and the infinities; they are written as the strings
"nan", "inf" and "-inf".

A checkpoint remembers how many rows there were, so that a run that goes on from it writes the very rows it
would have written without the interruption.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_RESERVED = ("step", "epoch", "time")

_MOST_UNWRITTEN = 32 * 2**20  # bytes of rows that wait for a disk; some hundred thousand rows


def encode_number(value: SupportsFloat) -> int | float | str:
    """A number as JSON can hold it: integers stay integers, NaN and the infinities become strings.

    Takes Python numbers, NumPy scalars and 0-dim tensors. Raises TypeError for anything else.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"a metric must be a number, not {value!r}: log numbers only")
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


def decode_number(value: Any) -> Any:
    """The inverse of `encode_number`; whatever it did not write passes through unchanged."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All rows of a metric log in the order they were written; non-finite values are floats again.

    A missing file is a run that has no rows yet: an empty list. May be called while the run is writing.

    Raises:
        ValueError: a line other than an unterminated last one is not a row; names the file and the line.
    """
    return [row for _, row in _complete_rows(Path(path))]


def _complete_rows(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Each terminated line, as it is on disk and as a row."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [(line, _parse(line, path, number)) for number, line in enumerate(lines[:-1], start=1)]


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:  # includes bytes that are not UTF-8
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError(
            f"{path}, line {number} is damaged ({line[:60]!r}): "
            "delete that line to keep the other rows, or delete the run's folder to train it again"
        )
    if b': "' in line:  # only then can a value be a string; rows of plain numbers skip the loop
        row = {key: decode_number(value) for key, value in row.items()}
    return row


class MetricLog:
    """Appends rows to a metric log. One writer at a time; what is written survives a kill of the process.

    Opening an existing log drops an unterminated last line and goes on with the clock: `time` counts the
    seconds during which the run was being trained, so waiting in a queue between two attempts costs nothing.

    A disk that takes no row (full, over quota, away) is no reason to end a training: rows then wait in
    memory and are written, in order, as soon as it takes them again; one warning says so.

    Args:
        path: the file, created when it is missing; its folder must exist.

    Attributes:
        rows: how many rows the file has.
        unwritten: lines (without their newline) that wait for the disk; they come after those rows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with MetricLog(f"{folder}/metrics.jsonl") as log:
        ...         log.append(step=1, epoch=0, metrics={"train/loss": float("inf")})
        ...     [row["train/loss"] for row in read_metrics(f"{folder}/metrics.jsonl")]
        [inf]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        rows = _complete_rows(self.path)
        self._file = self.path.open("ab", buffering=0)  # unbuffered: one append is one write
        self.unwritten: deque[str] = deque()
        self._unwritten_bytes = self._left_out = 0
        self._torn = False  # the file ends in a half row
        self._opened = time.monotonic()
        self._go_to(rows)

    def _go_to(self, rows: Sequence[tuple[bytes, Mapping[str, Any]]]) -> None:
        """End the file after these rows, which it begins with. Needs no room on the disk."""
        self.rows = len(rows)
        self._bytes = sum(len(line) + 1 for line, _ in rows)
        self._file.truncate(self._bytes)
        self._seconds_before = float(rows[-1][1].get("time", 0.0)) if rows else 0.0

    @property
    def seconds(self) -> float:
        """For how long the run has been trained, all attempts together, as the next row will tell."""
        return self._seconds_before + time.monotonic() - self._opened

    def append(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Write one row, or keep it until the disk takes it.

        Args:
            step: optimizer steps taken so far.
            epoch: epochs completed so far, counted from 0.
            metrics: name to number (Python, NumPy or a 0-dim tensor); not named step, epoch or time.

        Raises:
            ValueError: a metric has one of the taken names.
            TypeError: a value is not a number.
        """
        taken = [name for name in _RESERVED if name in metrics]
        if taken:
            raise ValueError(
                f"a metric cannot be called {taken[0]!r}, every row has one: choose another name"
            )
        row = {"step": int(step), "epoch": int(epoch), "time": round(self.seconds, 6)}
        self.append_lines([json.dumps(row | {name: encode_number(value) for name, value in metrics.items()})])

    def append_lines(self, lines: Sequence[str]) -> None:
        """Write rows that are lines already: `unwritten` of another attempt."""
        waited = bool(self.unwritten)
        for line in lines:
            too_many = self._unwritten_bytes + len(line) > _MOST_UNWRITTEN
            if too_many and self._write_what_waits() is not None:
                self._leave_out()
            else:
                self.unwritten.append(line)
                self._unwritten_bytes += len(line)
        trouble = self._write_what_waits()
        if trouble is not None and not waited:
            warnings.warn(
                f"{self.path} takes no more rows ({trouble.strerror or trouble}): training goes on, "
                "they are kept in memory and written when there is room again",
                stacklevel=3,
            )

    def _leave_out(self) -> None:
        self._left_out += 1
        if self._left_out == 1:
            warnings.warn(
                f"{self.path} has taken no row for so long that no more can be kept in memory: "
                "rows are left out from here on until there is room on the disk",
                stacklevel=4,
            )

    def _write_what_waits(self) -> OSError | None:
        """Write until the disk refuses; returns its refusal."""
        try:
            while self.unwritten:
                self._write((self.unwritten[0] + "\n").encode())
                self._unwritten_bytes -= len(self.unwritten.popleft())
        except OSError as error:
            return error
        self._left_out = 0
        return None

    def _write(self, line: bytes) -> None:
        """Write one line; where that fails, leave no half row for the next one to grow onto."""
        self._mend()
        self._torn = True
        written = self._file.write(line)
        if written != len(line):
            with contextlib.suppress(OSError):
                self._mend()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._torn = False
        self.rows += 1
        self._bytes += len(line)

    def _mend(self) -> None:
        if self._torn:
            self._file.truncate(self._bytes)
            self._torn = False

    def cut_to(self, rows: int, *, seconds: float = 0.0) -> int:
        """Keep this many rows, those a checkpoint has seen, and drop all that came later.

        In place: a crash leaves the old end or the new one. Rows that wait for the disk are dropped too.

        Args:
            rows: how many, from the first on.
            seconds: `seconds` at the time of the checkpoint; the clock goes on from there.

        Returns:
            how many rows of the file were dropped. Negative: so many are missing, because a machine went
            down before they had reached its disk, or somebody deleted them.
        """
        self.unwritten.clear()
        self._unwritten_bytes = 0
        found = _complete_rows(self.path)
        self._go_to(found[:rows])
        self._seconds_before = max(self._seconds_before, seconds)
        return len(found) - rows

    def sync(self) -> bool:
        """Force the rows to the disk; returns whether all of them are there.

        Call it before a checkpoint is committed, from any thread: then no crash of the machine can leave a
        checkpoint whose rows are missing.
        """
        try:
            os.fsync(self._file.fileno())
        except (OSError, ValueError):  # the disk has failed; the file is closed
            return False
        return not self.unwritten

    def close(self) -> None:
        """Close the file; closing twice is harmless. Says how many rows the disk has not taken to the end."""
        if self._file.closed:
            return
        if self._write_what_waits() is not None:
            warnings.warn(
                f"{self.path} lacks its last {len(self.unwritten)} rows: the disk has not taken them",
                stacklevel=2,
            )
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
