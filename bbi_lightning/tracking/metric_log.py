"""The metric log of a run: `metrics.jsonl`, one JSON object a line, the source of truth for every curve.

A row is ``{"step": 40, "epoch": 2, "time": 1.3, "train/loss": 0.21, ...}``; `time` is in seconds. A row
exists once its newline is on disk: an unterminated last line is what a killed writer left behind, and readers
and writers both drop it. JSON has no number for NaN and the infinities; they are written as the strings
"nan", "inf" and "-inf".
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_RESERVED = ("step", "epoch", "time")


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


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by a file with this content: a reader, and a crash at any moment, finds old or new.

    The caller is the only writer of `path` (the lock of a run sees to that), so the temporary file has one
    fixed name and what a killed writer leaves is overwritten by the next.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the rename itself durable
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that cannot
            raise
    finally:
        os.close(folder)


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

    Args:
        path: the file, created when it is missing; its folder must exist.

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
        self._file.truncate(sum(len(line) + 1 for line, _ in rows))
        self._opened = time.monotonic()
        self._seconds_before = _last_time(rows)

    def append(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Write one row.

        Args:
            step: optimizer steps taken so far.
            epoch: epochs completed so far, counted from 0.
            metrics: name to number (Python, NumPy or a 0-dim tensor); not named step, epoch or time.

        Raises:
            ValueError: a metric has one of the taken names.
            TypeError: a value is not a number.
            OSError: the row could not be written (disk full); the log is left as it was before.
        """
        taken = [name for name in _RESERVED if name in metrics]
        if taken:
            raise ValueError(
                f"a metric cannot be called {taken[0]!r}, every row has one: choose another name"
            )
        seconds = round(self._seconds_before + time.monotonic() - self._opened, 6)
        row = {"step": int(step), "epoch": int(epoch), "time": seconds}
        row_text = json.dumps(row | {name: encode_number(value) for name, value in metrics.items()})
        self._write((row_text + "\n").encode())

    def _write(self, line: bytes) -> None:
        written = self._file.write(line)
        if written != len(line):  # the disk is full: leave no half row for the next append to grow onto
            self._file.truncate(self._file.seek(0, os.SEEK_END) - (written or 0))
            raise OSError(errno.ENOSPC, "no room left to write a row of metrics", str(self.path))

    def cut_back(self, step: int) -> int:
        """Drop the rows after `step`, atomically; called on resume with the checkpoint's step.

        Rows at `step` itself stay. Returns how many were dropped.
        """
        rows = _complete_rows(self.path)
        kept = [(line, row) for line, row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_atomically(self.path, b"".join(line + b"\n" for line, _ in kept))
            self._file.close()
            self._file = self.path.open("ab", buffering=0)
            self._seconds_before = _last_time(kept)
        return len(rows) - len(kept)

    def sync(self) -> None:
        """Force the rows to the disk. Call before a checkpoint is committed: then no crash of the machine can
        leave a checkpoint whose rows are missing."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; closing twice is harmless, and so is a full disk: every row was written before."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _last_time(rows: list[tuple[bytes, dict[str, Any]]]) -> float:
    return float(rows[-1][1].get("time", 0.0)) if rows else 0.0
