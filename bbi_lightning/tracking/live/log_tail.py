"""A metric log as it grows: every byte is read once, the newest rows first.

`metric_log.read_metrics` reads a whole log. An onlooker who comes back every second, to a thousand logs, must
not: it wants what was added, and the beginning of a long log can wait until there is time for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from bbi_lightning.tracking.metric_log import decode_number

Row = dict[str, Any]

_FIRST = 128 * 1024  # bytes of a long log's end that the first look takes
_MOST = 2**20  # bytes that one look takes at most
_ANCHOR = 96  # bytes before the place reached: still the same, or the log was cut back and has grown again


class LogTail:
    """Reads what was added to a metric log since the last look, and in blocks what was there before.

    A log that was cut back (a run that goes on from a checkpoint drops the rows after it) or replaced by
    another is read anew: `restarts` counts that, and whoever keeps something of the rows drops it then.
    Lines that are no rows are passed over and counted in `damaged`. A half row waits for its newline.

    Args:
        path: the log; need not exist yet.
        first: bytes of its end that the first look takes; the rest comes by `older`.
        most: bytes that one look takes at most.

    Attributes:
        restarts: how often it was begun anew.
        damaged: lines that are no rows.
        read: bytes read so far, in all.
        trouble: why the last look could not read the file; None when it could.
    """

    def __init__(self, path: Path, *, first: int = _FIRST, most: int = _MOST) -> None:
        self.path = path
        self.restarts = self.damaged = self.read = 0
        self.trouble: str | None = None
        self._first, self._most = first, most
        self._identity: tuple[int, int] | None = None  # device and inode of the file that was read
        self._stamp: tuple[int, int] | None = None  # size and time of the file's last change, as last seen
        self._forget()

    def _forget(self) -> None:
        self._reached: int | None = None  # end of the rows that were read; None before the first look
        self._anchor = b""
        self._behind = False  # more was there than one look takes
        self._old_from = self._old_to = 0  # bytes that `older` has not read

    @property
    def complete(self) -> bool:
        """Whether nothing of the beginning is left to read."""
        return self._old_from >= self._old_to

    def newer(self) -> list[Row]:
        """The rows that were added since the last look; of a long log's first look, those of its end."""
        self.trouble = None
        try:
            facts = self.path.stat()
            identity, stamp = (facts.st_dev, facts.st_ino), (facts.st_size, facts.st_mtime_ns)
            if identity == self._identity and stamp == self._stamp and not self._behind:
                return []
            if self._reached is not None and (identity != self._identity or facts.st_size < self._reached):
                self._begin_anew()
            self._identity, self._stamp = identity, stamp
            return self._added(facts.st_size)
        except FileNotFoundError:
            if self._reached is not None:
                self._begin_anew()
            return []
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return []

    def older(self, most: int | None = None) -> list[Row]:
        """The next rows of the beginning that the first look left out, in order; empty when there are none.

        Args:
            most: bytes to read at most.
        """
        if self.complete:
            return []
        try:
            with self.path.open("rb") as file:
                whole = _whole_rows(file, self._old_from, self._old_to, most or self._most)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return []
        self._old_from += len(whole)
        self.read += len(whole)
        if not whole:
            self._old_from = self._old_to
        return self._rows(whole)

    def _begin_anew(self) -> None:
        self.restarts += 1
        self.damaged = 0
        self._forget()

    def _added(self, size: int) -> list[Row]:
        with self.path.open("rb") as file:
            if self._reached is not None:
                file.seek(self._reached - len(self._anchor))
                if file.read(len(self._anchor)) == self._anchor:
                    whole = _whole_rows(file, self._reached, size, self._most)
                    self._behind = bool(whole) and self._reached + len(whole) < size
                    return self._take(whole, self._reached)
                self._begin_anew()
            text, start = _end_of(file, size, self._first)
            self._old_from, self._old_to = 0, start
            return self._take(text, start)

    def _take(self, text: bytes, start: int) -> list[Row]:
        whole = text[: text.rfind(b"\n") + 1]
        self._reached = start + len(whole)
        self.read += len(whole)
        if whole:
            self._anchor = (self._anchor + whole)[-_ANCHOR:]
        return self._rows(whole)

    def _rows(self, text: bytes) -> list[Row]:
        rows = []
        for line in text.splitlines():
            try:
                row = json.loads(line.decode())  # finds out no encoding: half as long
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                self.damaged += 1
                continue
            if b': "' in line:
                row = {key: decode_number(value) for key, value in row.items()}
            rows.append(row)
        return rows


def _whole_rows(file: BinaryIO, start: int, end: int, most: int) -> bytes:
    """The rows between two places of a file, about `most` bytes of them, at least one if there is one."""
    while True:
        file.seek(start)
        text = file.read(min(most, end - start))
        whole = text[: text.rfind(b"\n") + 1]
        if whole or start + len(text) >= end or len(text) < most:
            return whole
        most *= 2  # a row longer than that


def _end_of(file: BinaryIO, size: int, about: int) -> tuple[bytes, int]:
    """The end of a file from the beginning of a row on, and where that is."""
    while True:
        start = max(0, size - about)
        file.seek(start)
        text = file.read(size - start)
        cut = text.find(b"\n") + 1 if start else 0  # the first line is a part of one
        if cut or not start:
            return text[cut:], start + cut
        about *= 2
