"""Generalisation at matched training loss: the validation or test metric of each run when its training loss
first reached a level.

Comparing final values mixes two questions: how far an optimizer got on the training data, and how well what
it found generalises. At the same training loss only the second is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bbi_lightning.comparison.statistics.intervals import Array, finite_values


@dataclass(frozen=True)
class MatchedMetric:
    """A metric where the training loss first reached each level: arrays of one length, NaN where it did not.

    Attributes:
        levels: (L,) training losses, as given.
        step: (L,) where the smoothed loss first reached them.
        value: (L,) the metric there, interpolated linearly; NaN outside the metric's own first and last step.
    """

    levels: Array
    step: Array
    value: Array


def matched_metric(
    train_loss: tuple[ArrayLike, ArrayLike],
    metric: tuple[ArrayLike, ArrayLike],
    levels: ArrayLike,
    *,
    window: float = 0.02,
) -> MatchedMetric:
    """Values of a metric at the first step at which the smoothed training loss is at or below each level.

    Args:
        train_loss: (step, value), each (n,), steps not decreasing; rows that are not finite are dropped.
        metric: (step, value), each (m,), likewise.
        levels: (L,) losses.
        window: width of the centred moving average, as a share of the steps from the first to the last row.

    Raises:
        ValueError: step and value of different lengths, or a level that is not finite.
    """
    wanted = finite_values(levels)
    steps, loss = _rows(train_loss, "train_loss")
    where, measured = _rows(metric, "metric")
    at = np.full(wanted.size, np.nan)
    if steps.size:
        lowest = np.minimum.accumulate(_smooth(steps, loss, window))
        place = np.searchsorted(-lowest, -wanted)
        found = place < steps.size
        at[found] = steps[place[found]]
    value = np.full(wanted.size, np.nan)
    if where.size:
        inside = (at >= where[0]) & (at <= where[-1])
        value[inside] = np.interp(at[inside], where, measured)
    return MatchedMetric(wanted, at, value)


def _rows(curve: tuple[ArrayLike, ArrayLike], name: str) -> tuple[Array, Array]:
    step, value = (np.asarray(part, dtype=np.float64).ravel() for part in curve)
    if step.size != value.size:
        raise ValueError(f"{name} has {step.size} steps for {value.size} values: pass as many")
    keep = np.isfinite(step) & np.isfinite(value)
    return step[keep], value[keep]


def _smooth(step: Array, value: Array, window: float) -> Array:
    """Mean of the rows within half a window on either side."""
    half = window * (step[-1] - step[0]) / 2
    first = np.searchsorted(step, step - half, side="left")
    after = np.searchsorted(step, step + half, side="right")
    total = np.concatenate([[0.0], np.cumsum(value)])
    return np.asarray((total[after] - total[first]) / (after - first))
