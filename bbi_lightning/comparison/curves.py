"""Curves of several runs as one: a median with the middle half around it, thin enough to draw.

A curve can stand against optimizer steps, epochs, training samples or seconds of training. Runs that log at
the same places are put together there; runs that do not (seconds never agree) are brought onto a common grid
first: each run has one value a cell, the median of its own in it, and is interpolated over cells it skipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.sweep_data import Curve, Run
from bbi_lightning.tracking.config_file import config_if_readable, samples_a_step
from bbi_lightning.tracking.run_folder import RunFolder

Axis = Literal["step", "epoch", "samples", "time"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Median and quartiles over runs at each position; arrays of one length. `runs`: how many took part."""

    step: Array
    median: Array
    low: Array
    high: Array
    runs: int


def positions(curve: Curve, axis: Axis = "step", batch: float = math.nan) -> Array:
    """Where a curve's values stand on an axis.

    Args:
        curve: of one run.
        axis: "step", "epoch" (part of one that has begun counts by its steps), "samples" or "time" (seconds).
        batch: samples an optimizer step; needed for "samples", NaN if not known.

    Returns:
        (n,) numbers; NaN where they are not known.
    """
    if axis == "samples":
        return curve.step.astype(np.float64) * batch
    if axis == "epoch":
        return _epochs(curve)
    return np.asarray(curve.step if axis == "step" else curve.time, dtype=np.float64)


def _epochs(curve: Curve) -> Array:
    """Completed epochs, as logged, with the fraction of the one under way.

    An epoch cannot be longer than step/epoch in any row, and is as long in the row at which one ended.
    """
    epoch = curve.epoch.astype(np.float64)
    counted = epoch > 0
    if not counted.any():
        return epoch
    steps_an_epoch = float(np.min(curve.step[counted] / epoch[counted]))
    if steps_an_epoch <= 0:
        return epoch
    return np.asarray(np.clip(curve.step / steps_an_epoch, epoch, epoch + 1))


def batch_size(folder: Path) -> float:
    """Training samples an optimizer step, from a run's config.yaml; NaN where it does not say.

    data.batch_size (over all ranks) times trainer.accumulate_grad_batches.
    """
    samples = samples_a_step(config_if_readable(RunFolder(folder).config_file))
    return math.nan if samples is None else float(samples)


def batch_sizes(runs: Sequence[Run]) -> list[float]:
    """`batch_size` of each run. Runs of one arm with the same parameters differ in their seed alone: of these
    one config is read."""
    known: dict[tuple[str, str], float] = {}
    for run in runs:
        point = (run.arm, repr(sorted(run.params.items())))
        if point not in known:
            known[point] = batch_size(run.folder)
    return [known[run.arm, repr(sorted(run.params.items()))] for run in runs]


def band(
    curves: Sequence[Curve], points: int = 300, *, axis: Axis = "step", batches: Sequence[float] = ()
) -> Band:
    """Median and quartiles of curves, at the positions that at least half of them reached.

    Values that are not finite are left out. Runs do not end at the same second: against "time", one that has
    ended counts with its last value, until half of them have.

    Args:
        curves: one a run; empty ones do not count.
        points: at most so many positions; more are brought onto a grid of as many cells of equal width.
        axis: what the curves stand against.
        batches: samples a step, one number a curve; for `axis="samples"`.

    Returns:
        the band; of a cell of the grid, it stands at the last position in it.
    """
    sizes = batches or [math.nan] * len(curves)
    placed = [
        (positions(curve, axis, size), curve.value)
        for curve, size in zip(curves, sizes, strict=True)
        if curve.step.size
    ]
    if not placed:
        return _empty()
    run = np.repeat(np.arange(len(placed)), [x.size for x, _ in placed])
    x, value = np.concatenate([x for x, _ in placed]), np.concatenate([y for _, y in placed])
    usable = np.isfinite(value) & np.isfinite(x)
    run, x, value = run[usable], x[usable], value[usable]
    if not x.size:
        return _empty()
    cell, places = _cells(run, x, points)
    table = _by_run(run, cell, value, (len(placed), places.size))
    table = np.array([_filled(row, places) for row in table])
    enough = 2 * np.count_nonzero(np.isfinite(table), axis=0) >= len(placed)
    if not enough.any():
        return _empty()
    if axis == "time":
        table = np.array([_carried(row) for row in table])
    low, median, high = np.nanquantile(table[:, enough], [0.25, 0.5, 0.75], axis=0)
    return Band(places[enough], median, low, high, len(placed))


def _empty() -> Band:
    nothing = np.array([], dtype=np.float64)
    return Band(nothing, nothing, nothing, nothing, 0)


def _cells(run: NDArray[np.int64], x: Array, points: int) -> tuple[NDArray[np.int64], Array]:
    """The cell of each entry, and where each cell stands: the positions themselves if they are few."""
    unique, cell = np.unique(x, return_inverse=True)
    most = int(np.bincount(run).max())
    if unique.size <= min(points, 2 * most):
        return cell, unique
    cells = max(1, min(points, most))
    edges = np.linspace(unique[0], unique[-1], cells + 1)[1:-1]
    cell = np.searchsorted(edges, x, side="left")
    ends = np.full(cells, -np.inf)
    np.maximum.at(ends, cell, x)
    used, cell = np.unique(cell, return_inverse=True)
    return cell, ends[used]


def _by_run(run: NDArray[np.int64], cell: NDArray[np.int64], value: Array, shape: tuple[int, int]) -> Array:
    """(runs, cells): the median of a run's values in a cell, NaN where it has none."""
    key = run * shape[1] + cell
    order = np.lexsort((value, key))
    key, value = key[order], value[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    count = np.diff(np.append(first, key.size))
    table = np.full(shape[0] * shape[1], np.nan)
    table[key[first]] = 0.5 * (value[first + (count - 1) // 2] + value[first + count // 2])
    return table.reshape(shape)


def _filled(row: Array, places: Array) -> Array:
    """A run's values with the gaps between them interpolated; beyond its ends it stays NaN."""
    known = np.flatnonzero(np.isfinite(row))
    if known.size < 2 or known.size == row.size:
        return row
    filled: Array = np.interp(places, places[known], row[known], left=math.nan, right=math.nan)
    return filled


def _carried(row: Array) -> Array:
    """A run's values with the last one repeated to the end."""
    known = np.flatnonzero(np.isfinite(row))
    return row if not known.size else np.where(np.arange(row.size) > known[-1], row[known[-1]], row)


def thin(curve: Curve, points: int = 600) -> Curve:
    """At most `points` rows of a curve: the lowest and highest value of every bin, so no spike is lost."""
    n = curve.value.size
    if n <= points:
        return curve
    rows = thin_rows(curve.value, points)
    return Curve(curve.step[rows], curve.epoch[rows], curve.time[rows], curve.value[rows])


def thin_rows(value: Array, points: int = 600) -> NDArray[np.int64]:
    """The rows of `thin`, in order."""
    keep: set[int] = set()
    for part in np.array_split(np.arange(value.size), max(1, points // 2)):
        finite = part[np.isfinite(value[part])]
        if finite.size:
            keep |= {int(finite[np.argmin(value[finite])]), int(finite[np.argmax(value[finite])])}
    return np.array(sorted(keep), dtype=np.int64)
