"""When runs reached a target, and how good they were at the same training loss.

Both compare runs where they are alike instead of at their end: at a value of the metric ("how long until?"),
or at a training loss ("of two that fit the training data equally well, which generalises better?").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.curves import Axis, batch_sizes, positions
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import (
    Direction,
    Survival,
    first_passage,
    kaplan_meier,
    matched_metric,
)
from bbi_lightning.comparison.sweep_data import Arm, Curve, Run

Array = NDArray[np.float64]

_TRAINING_LOSS = "train/loss"
_LEVELS = 24  # training losses at which metrics are compared
_FEWEST = 3  # runs of an arm at a level


@dataclass(frozen=True)
class Reaching:
    """When the replicates of every arm reached a target.

    Attributes:
        metric: its name in the logs. direction: which values are better.
        target: the value to reach.
        axis: what is counted: "step", "epoch", "samples" or "time".
        arms: the arms with replicates, in the sweep's order.
        survival: of each, the share that is not there yet.
        durations, reached: of each, one entry a replicate.
    """

    metric: str
    direction: Direction
    target: float
    axis: Axis
    arms: tuple[Arm, ...]
    survival: tuple[Survival, ...]
    durations: tuple[Array, ...]
    reached: tuple[NDArray[np.bool_], ...]


def default_target(c: Comparison, metric: str, direction: Direction) -> float:
    """The value that the baseline's replicates end with, their median; NaN without finished ones.

    The target is therefore not chosen by looking at who reaches it first.
    """
    ends = []
    for run in c.result(c.baseline.name).finished:
        value = run.curve(metric).value
        value = value[np.isfinite(value)]
        if value.size:
            ends.append(float(value[-1]))
    if not ends:
        return math.nan
    # of an even number the worse middle one, so that half of the baseline's runs can have reached it
    return float(np.quantile(ends, 0.5, method="lower" if direction == "maximize" else "higher"))


def reaching(
    c: Comparison,
    metric: str,
    direction: Direction,
    axis: Axis = "step",
    *,
    target: float | None = None,
) -> Reaching | None:
    """When the replicates of every arm first reached a target.

    A run that ended before is censored where it ended; one that diverged is censored where the longest run of
    its arm ended: it would not have got there. The value is taken as logged, without smoothing.

    Args:
        c: the comparison.
        metric: as it is called in the logs, "val/acc".
        direction: which of its values are better.
        axis: what is counted.
        target: the value to reach; by default what the baseline ends with (`default_target`).

    Returns:
        None where there is no target, or no arm's runs say where they stand on the axis.
    """
    target = default_target(c, metric, direction) if target is None else target
    if not math.isfinite(target):
        return None
    found = []
    for r in c.results:
        batches = batch_sizes(r.replicates) if axis == "samples" else [math.nan] * len(r.replicates)
        passages = [
            passage
            for run, batch in zip(r.replicates, batches, strict=True)
            if (passage := _passage(run, run.curve(metric), direction, (axis, batch), target))
        ]
        if not passages:
            continue
        longest = max(end for _, _, end, _ in passages)
        at = np.array([x if there or not lost else longest for x, there, _, lost in passages])
        there = np.array([there for _, there, _, _ in passages], dtype=bool)
        found.append((r.arm, kaplan_meier(at, there), at, there))
    if not found:
        return None
    arms, survival, durations, reached = zip(*found, strict=True)
    return Reaching(metric, direction, target, axis, arms, survival, durations, reached)


def _passage(
    run: Run, curve: Curve, direction: Direction, axis: tuple[Axis, float], target: float
) -> tuple[float, bool, float, bool] | None:
    """Where the run reached the target or ended, whether it did, where it ended, whether it diverged."""
    x = positions(curve, *axis)
    known = np.isfinite(x)
    if not known.any():
        return None
    at, there = first_passage(x[known], curve.value[known], target, direction)
    return at, there, float(x[known].max()), run.state == "diverged"


@dataclass(frozen=True)
class MatchedArm:
    """One arm's metric at training losses: arrays (L,), NaN where fewer than three of its runs have one.

    `median`, `low`, `high`: the median over the replicates and the middle half of them. `runs`: how many.
    `final`: the median metric where training ended, at `final_loss`.
    """

    arm: Arm
    median: Array
    low: Array
    high: Array
    runs: NDArray[np.int64]
    final: float
    final_loss: float


@dataclass(frozen=True)
class Matched:
    """The metric of every arm where its training loss first reached each of `levels` (L,), falling."""

    metric: Metric
    levels: Array
    arms: tuple[MatchedArm, ...]


def matched(c: Comparison, metric: Metric | None = None) -> Matched | None:
    """A metric at matched training loss, over the replicates.

    Test metrics are only known at the end, so that this is about validation unless test rows were logged
    throughout.

    Args:
        c: the comparison.
        metric: logged along the way; by default the one of the search, on validation data.

    Returns:
        None where fewer than two arms can be compared at two levels.
    """
    metric = metric or c.validation
    curves = {r.arm.name: _pairs(r, metric) for r in c.results}
    levels = _levels([curve for own in curves.values() for curve in own])
    if levels.size < 2:
        return None
    arms = [arm for r in c.results if (arm := _matched_arm(r, curves[r.arm.name], levels)) is not None]
    if len(arms) < 2:
        return None
    return Matched(metric, levels, tuple(arms))


Pair = tuple[NDArray[np.int64], Array, NDArray[np.int64], Array]


def _pairs(r: ArmResult, metric: Metric) -> list[Pair]:
    """(step, training loss, step, metric) of every replicate that logged both."""
    pairs = []
    for run in r.replicates:
        loss, other = run.curve(_TRAINING_LOSS), run.curve(metric.name)
        if loss.step.size > 1 and other.step.size:
            pairs.append((loss.step, loss.value, other.step, other.value))
    return pairs


def _levels(curves: Sequence[Pair]) -> Array:
    """Training losses from the first validation on down to the least of any run, spaced by equal factors."""
    lowest, highest = math.inf, -math.inf
    for step, loss, when, _ in curves:
        usable = np.isfinite(loss) & (loss > 0)
        if not usable.any():
            continue
        lowest = min(lowest, float(loss[usable].min()))
        seen = usable & (step >= when[0])
        if seen.any():
            highest = max(highest, float(loss[seen].max()))
    if not 0 < lowest < highest:
        return np.array([])
    return np.geomspace(highest, lowest, _LEVELS)


def _matched_arm(r: ArmResult, curves: Sequence[Pair], levels: Array) -> MatchedArm | None:
    rows = [matched_metric((s, x), (w, y), levels).value for s, x, w, y in curves]
    if len(rows) < min(_FEWEST, max(1, len(r.replicates))):
        return None
    table = np.array(rows)
    runs = np.count_nonzero(np.isfinite(table), axis=0)
    enough = (runs >= min(_FEWEST, len(rows))) & (2 * runs >= len(rows))
    quartiles = np.full((3, levels.size), np.nan)
    if enough.any():
        quartiles[:, enough] = np.nanquantile(table[:, enough], [0.25, 0.5, 0.75], axis=0)
    ends = [(x[np.isfinite(x)][-1], y[np.isfinite(y)][-1]) for _, x, _, y in curves
            if np.isfinite(x).any() and np.isfinite(y).any()]  # fmt: skip
    loss, final = (float(np.median(part)) for part in zip(*ends, strict=True)) if ends else (math.nan,) * 2
    low, median, high = quartiles
    return MatchedArm(r.arm, median, low, high, runs, final, loss)
