"""Many tasks at once: how often an arm is so good, and how often it is at most so much dearer than the best.

References:
    Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice, NeurIPS
    (performance profiles: distributions of scores over runs and tasks).
    Dolan and Moré (2002), Benchmarking optimization software with performance profiles, Math. Program. 91.
    Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bbi_lightning.comparison.statistics.intervals import SINGLE, Array, Direction, finite_values


@dataclass(frozen=True)
class Profile:
    """One curve an arm.

    Attributes:
        arms: (A,) names, in the order given.
        thresholds: (T,) scores or cost ratios.
        share: (A, T) in [0, 1].
        low, high: (A, T) its pointwise interval; NaN where there is none.
        level: coverage of the intervals.
    """

    arms: tuple[str, ...]
    thresholds: Array
    share: Array
    low: Array
    high: Array
    level: float


def performance_profile(
    scores: Mapping[str, Sequence[ArrayLike]],
    thresholds: ArrayLike,
    *,
    direction: Direction = "maximize",
    level: float = 0.95,
) -> Profile:
    """Share of an arm's runs that are at least as good as each threshold, averaged over tasks.

    Args:
        scores: arm → for each task the (n,) scores of its runs. Count a run that diverged as the worst score
            (−inf when maximised): it was not good.
        thresholds: (T,) scores.
        direction: which scores are better.
        level: coverage of the pointwise intervals.

    Raises:
        ValueError: no arms, no tasks, a task without runs, or a NaN.
    """
    tau = finite_values(thresholds)
    sign = 1.0 if direction == "maximize" else -1.0
    if not scores or not all(len(tasks) for tasks in scores.values()):
        raise ValueError("no scores to profile: pass at least one arm with at least one task")
    rows = [
        _profile([sign * _scores(task) for task in tasks], sign * tau, level) for tasks in scores.values()
    ]
    share, low, high = (np.stack(part) for part in zip(*rows, strict=True))
    return Profile(tuple(scores), tau, share, low, high, level)


def _scores(values: ArrayLike) -> Array:
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size == 0 or np.isnan(x).any():
        raise ValueError(
            f"scores={x.tolist()}: pass at least one for each task, the worst for a run that failed"
        )
    return x


def _profile(tasks: Sequence[Array], tau: Array, level: float) -> tuple[Array, Array, Array]:
    at_least = tau - SINGLE * np.abs(tau)
    share = np.stack([(x[:, None] >= at_least).mean(axis=0) for x in tasks])
    n = np.array([[x.size] for x in tasks], dtype=np.float64)
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    mean = share.mean(axis=0)
    below = np.sqrt(np.square(share - (centre - half)).sum(axis=0)) / len(tasks)
    above = np.sqrt(np.square(centre + half - share).sum(axis=0)) / len(tasks)
    return mean, np.clip(mean - below, 0, 1), np.clip(mean + above, 0, 1)


def dolan_more(costs: Mapping[str, ArrayLike], ratios: ArrayLike) -> Profile:
    """Share of tasks that an arm solves at no more than `ratio` times the cost of the task's cheapest arm.

    Args:
        costs: arm → (tasks,) positive costs to the target in the same order of tasks; inf where the arm did
            not reach it. A task that no arm solved counts against all of them.
        ratios: (R,) numbers ≥ 1.

    Returns:
        A profile without intervals: the tasks are the whole population here.

    Raises:
        ValueError: no arms, arms with different numbers of tasks, a cost that is NaN or not positive, a ratio
            below 1.
    """
    tau = finite_values(ratios)
    rows = [np.asarray(row, dtype=np.float64).ravel() for row in costs.values()]
    if not rows or len({row.size for row in rows}) > 1 or rows[0].size == 0:
        raise ValueError(f"costs of {[row.size for row in rows]} tasks: pass the same tasks for every arm")
    table = np.stack(rows)
    if not (table > 0).all():
        raise ValueError("costs must be positive: pass inf where an arm did not reach the target")
    if tau.min() < 1:
        raise ValueError(
            f"ratios hold {tau.min():g}: no arm is cheaper than the cheapest, pass numbers from 1"
        )
    best = table.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(table), table / best, np.inf)
    share = (ratio[:, :, None] <= tau * (1 + 1e-12)).mean(axis=1)
    nothing = np.full_like(share, np.nan)
    return Profile(tuple(costs), tau, share, nothing, nothing, 0.95)
