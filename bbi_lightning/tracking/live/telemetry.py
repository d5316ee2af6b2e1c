"""What the rows of a run say, kept small: the newest numbers, rates, the best value, a thinned loss curve."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

_RECENT = 64  # rows from which rates are told
_ENERGIES = 8  # energy rows whose errors count as now
_POINTS = 96  # of a thinned curve, at most

LOSS = "train/loss"


class ThinnedCurve:
    """A curve of any length in at most `most` points, each the mean of equally many values.

    A non-finite value makes its point NaN: it must be seen, however many there are.

    Args:
        most: points, an even number ≥ 2.

    Example:
        >>> curve = ThinnedCurve(4)
        >>> for value in range(8):
        ...     curve.add(value)
        >>> curve.points()
        [0.5, 2.5, 4.5, 6.5]
    """

    def __init__(self, most: int = _POINTS) -> None:
        self._most = most
        self._means: list[float] = []
        self._each = 1  # values a mean
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Add the next value."""
        if self._count == 0 and len(self._means) == self._most:
            halves = zip(self._means[::2], self._means[1::2], strict=True)
            self._means = [(a + b) / 2 for a, b in halves]
            self._each *= 2
        self._sum += value if math.isfinite(value) else math.nan
        self._count += 1
        if self._count == self._each:
            self._means.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0

    def points(self) -> list[float]:
        """The means in order; the last one may be of fewer values."""
        return [*self._means, *([self._sum / self._count] if self._count else [])]


class Telemetry:
    """What the rows of a run say so far. Takes new rows in order; rows of the beginning may come later.

    Args:
        metric: the validation metric whose best value is wanted.
        maximize: whether more of it is better.

    Attributes:
        step, epoch, seconds: of the newest row; the log's clock.
        last: every metric's newest value.
        best, best_step: of the validation metric; None before the first finite value.
        first_loss, lowest_loss: of the training loss; None before the first finite value.
        rows: how many were taken.
    """

    def __init__(self, metric: str, *, maximize: bool) -> None:
        self.metric, self._sign = metric, 1 if maximize else -1
        self.step = self.epoch = self.rows = 0
        self.seconds = 0.0
        self.last: dict[str, Any] = {}
        self.best: float | None = None
        self.best_step: int | None = None
        self.first_loss: float | None = None
        self.lowest_loss: float | None = None
        self._first_loss_step = math.inf
        self._epoch_low, self._epoch_high = 0.0, math.inf  # steps an epoch has, between these
        self._validated = 0  # the greatest common divisor of the steps of validations
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._energy: deque[dict[str, Any]] = deque(maxlen=_ENERGIES)
        self._losses: deque[tuple[int, float]] = deque(maxlen=_ENERGIES)
        self._early, self._late = ThinnedCurve(), ThinnedCurve()

    def take(self, rows: Iterable[Mapping[str, Any]], *, late: bool = True) -> None:
        """Take rows.

        Args:
            rows: in order.
            late: whether they follow all others; False: they are of the beginning, which is read later.
        """
        for row in rows:
            self.rows += 1
            self._take_any(row, self._late if late else self._early)
            if late:
                self._take_newest(row)

    def _take_any(self, row: Mapping[str, Any], curve: ThinnedCurve) -> None:
        step, epoch = row["step"], row.get("epoch", 0)
        self._epoch_low = max(self._epoch_low, step / (epoch + 1))
        if epoch > 0:
            self._epoch_high = min(self._epoch_high, step / epoch)
        if any(key.startswith("val/") for key in row):
            self._validated = math.gcd(self._validated, step)
        loss = _number(row.get(LOSS))
        if loss is not None:
            curve.add(loss)
            if math.isfinite(loss):
                if step < self._first_loss_step:
                    self.first_loss, self._first_loss_step = loss, step
                self.lowest_loss = loss if self.lowest_loss is None else min(loss, self.lowest_loss)
        value = _number(row.get(self.metric))
        if (
            value is not None
            and math.isfinite(value)
            and (self.best is None or self._sign * (value - self.best) > 0)
        ):
            self.best, self.best_step = value, step

    def _take_newest(self, row: Mapping[str, Any]) -> None:
        self.step, self.epoch = row["step"], row.get("epoch", self.epoch)
        self.seconds = float(row.get("time", self.seconds))
        self.last.update(row)
        self._recent.append((self.step, self.seconds))
        loss = _number(row.get(LOSS))
        if loss is not None:
            self._losses.append((self.step, loss))
        if "energy/energy_error" in row:
            self._energy.append({"step": self.step, **row})

    def number(self, key: str) -> float | None:
        """The newest value of a metric; None if it was never logged."""
        return _number(self.last.get(key))

    @property
    def losses(self) -> list[float]:
        """The training loss from the first row read to the last, thinned."""
        return [*self._early.points(), *self._late.points()]

    @property
    def recent_losses(self) -> list[tuple[int, float]]:
        """(step, training loss) of the newest rows."""
        return list(self._losses)

    @property
    def energies(self) -> list[dict[str, Any]]:
        """The newest rows with energies."""
        return list(self._energy)

    @property
    def energy_error(self) -> float | None:
        """Median of |energy error| over the newest rows with energies; None without."""
        errors = [
            abs(error) for row in self._energy if (error := _number(row["energy/energy_error"])) is not None
        ]
        return float(median(errors)) if errors else None

    @property
    def steps_per_second(self) -> float | None:
        """Over the newest rows, with validation and checkpoints; None before there are two."""
        if len(self._recent) < 2:
            return None
        (first, began), (last, now) = self._recent[0], self._recent[-1]
        return (last - first) / (now - began) if now > began and last > first else None

    @property
    def usual_gap(self) -> float | None:
        """Seconds between two rows: the 90th percentile of the newest; None before there are three rows."""
        times = [seconds for _, seconds in self._recent]
        gaps = sorted(b - a for a, b in pairwise(times))
        return gaps[int(0.9 * (len(gaps) - 1))] if len(gaps) > 1 else None

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch, as far as the rows tell; None before the first epoch has ended.

        A row at step s with e completed epochs says s/(e+1) ≤ n and n ≤ s/e; and validations come at the end
        of an epoch, so that n divides their steps.
        """
        if math.isinf(self._epoch_high):
            return self._validated if self.epoch == 0 and self._validated else None
        low, high = math.ceil(self._epoch_low - 1e-9), math.floor(self._epoch_high + 1e-9)
        epochs = range(1, _RECENT) if self._validated else ()  # between two validations
        for length in (self._validated / count for count in epochs):
            if low <= length <= high and length == int(length):
                return int(length)
        return low if low <= high else high

    def forget_recent(self) -> None:
        """A new attempt began: its rates are not those of the one before."""
        self._recent.clear()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
