"""Curves of several runs as one: a median with the middle half around it, thin enough to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.sweep_data import Curve


@dataclass(frozen=True)
class Band:
    """Median and quartiles over runs at each step; arrays of one length. `runs`: how many took part."""

    step: NDArray[np.int64]
    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    runs: int


def band(curves: Sequence[Curve], points: int = 300) -> Band:
    """Median and quartiles of curves, at the steps that at least half of them logged.

    Values that are not finite are left out. More steps than `points` are drawn together: the values of a bin
    are pooled and stand at its last step.
    """
    curves = [curve for curve in curves if curve.step.size]
    if not curves:
        nothing = np.array([], dtype=np.float64)
        return Band(np.array([], dtype=np.int64), nothing, nothing, nothing, 0)
    step = np.concatenate([curve.step for curve in curves])
    value = np.concatenate([curve.value for curve in curves])
    step, value = step[np.isfinite(value)], value[np.isfinite(value)]

    steps, place, logged = np.unique(step, return_inverse=True, return_counts=True)
    common = 2 * logged >= len(curves)
    kept = common[place]
    steps, rank = steps[common], (np.cumsum(common) - 1)[place[kept]]
    value = value[kept]
    bins = -(-steps.size // max(1, -(-steps.size // points)))
    size = -(-steps.size // bins) if bins else 1

    order = np.argsort(rank // size, kind="stable")
    groups = np.split(value[order], np.flatnonzero(np.diff((rank // size)[order])) + 1) if value.size else []
    quartiles = np.array([np.quantile(group, [0.25, 0.5, 0.75]) for group in groups]).reshape(-1, 3)
    ends = steps[np.minimum(np.arange(1, len(groups) + 1) * size, steps.size) - 1]
    return Band(ends, quartiles[:, 1], quartiles[:, 0], quartiles[:, 2], len(curves))


def thin(curve: Curve, points: int = 600) -> Curve:
    """At most `points` rows of a curve: the lowest and highest value of every bin, so no spike is lost."""
    n = curve.value.size
    if n <= points:
        return curve
    keep: set[int] = set()
    for part in np.array_split(np.arange(n), points // 2):
        values = curve.value[part]
        finite = part[np.isfinite(values)]
        if finite.size:
            keep |= {int(finite[np.argmin(curve.value[finite])]), int(finite[np.argmax(curve.value[finite])])}
    rows = np.array(sorted(keep), dtype=np.int64)
    return Curve(curve.step[rows], curve.epoch[rows], curve.time[rows], curve.value[rows])
