"""The objective of a run that is under way, as its metric log grows."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bbi_lightning.tracking.metric_log import decode_number


class GrowingCurve:
    """Reads what was added to a metric log since it was last asked.

    Args:
        file: the log; need not exist yet.
        metric: which of its metrics.
    """

    def __init__(self, file: Path, metric: str) -> None:
        self._file = file
        self._metric = metric
        self._read = 0  # bytes, of whole rows

    def new(self) -> list[tuple[int, float]]:
        """(completed epochs ≥ 1, value) of the new rows; rows without a finite value are left out."""
        try:
            with self._file.open("rb") as file:
                if file.seek(0, 2) < self._read:  # a run that goes on cuts its log back to the checkpoint
                    self._read = 0
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        points = []
        for line in whole.splitlines():
            if f'"{self._metric}"'.encode() not in line:
                continue
            try:
                row = json.loads(line)
                epoch, value = int(row["epoch"]), float(decode_number(row[self._metric]))
            except (
                ValueError,
                KeyError,
                TypeError,
            ):  # cut back while it was read: those that read all say so
                continue
            if epoch >= 1 and math.isfinite(value):
                points.append((epoch, value))
        return points
