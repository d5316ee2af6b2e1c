"""Time to a target when some runs never reach it: first passages, survival curves, their comparison.

A run that ends without reaching the target is censored where it ended: it would have needed longer, nobody
knows how much. Leaving it out, or taking its end for the time it needed, favours the arm that fails more.

References:
    Kaplan and Meier (1958), Nonparametric estimation from incomplete observations, JASA 53.
    Kalbfleisch and Prentice (2002), The statistical analysis of failure time data, §1.4 (log-log).
    Brookmeyer and Crowley (1982), A confidence interval for the median survival time, Biometrics 38.
    Royston and Parmar (2013), Restricted mean survival time, BMC Med. Res. Methodol. 13.
    Mantel (1966), Evaluation of survival data and two new rank order statistics, Cancer Chemother. Rep. 50.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bbi_lightning.comparison.statistics.intervals import (
    ROUNDING,
    SINGLE,
    Array,
    Direction,
    Estimate,
    finite_values,
)


@dataclass(frozen=True)
class Survival:
    """The share of runs that have not reached the target yet, as a step function of time.

    Attributes:
        time: (T,) the distinct times, 0 first, then each at which a run reached the target or was censored.
        survival: (T,) share not there yet from that time on.
        low, high: (T,) its pointwise interval.
        at_risk: (T,) runs neither there nor censored just before that time.
        reached_at: (T,) how many reached the target at that time.
        censored_at: (T,) how many ended there without reaching it (the ticks of a drawing).
        median: time by which half have reached it; NaN where fewer do, `high` infinite where it is open.
        n: runs. censored: how many of them never reached the target.
        level: coverage of the intervals.
    """

    time: Array
    survival: Array
    low: Array
    high: Array
    at_risk: NDArray[np.int64]
    reached_at: NDArray[np.int64]
    censored_at: NDArray[np.int64]
    median: Estimate
    n: int
    censored: int
    level: float


def first_passage(
    x: ArrayLike,
    value: ArrayLike,
    target: float,
    direction: Direction = "minimize",
    *,
    sustained: bool = False,
) -> tuple[float, bool]:
    """Where a curve first reaches a target.

    Args:
        x: (n,) steps, epochs or seconds, not decreasing.
        value: (n,) the metric there; what is not finite has not reached anything.
        target: the value to reach; reaching it counts, to float32 precision.
        direction: "minimize": at or below the target is reached; "maximize": at or above it.
        sustained: the first x from which on no later value falls back behind the target.

    Returns:
        x at the passage and True; the last x and False where there is none.

    Raises:
        ValueError: no points, different lengths, or a target that is not finite.
    """
    at, y = np.asarray(x, dtype=np.float64).ravel(), np.asarray(value, dtype=np.float64).ravel()
    if at.size == 0 or at.size != y.size:
        raise ValueError(f"{at.size} positions for {y.size} values: pass as many, at least one")
    if not math.isfinite(target):
        raise ValueError(f"target={target} must be finite")
    slack = SINGLE * abs(target)
    there = np.isfinite(y) & ((y <= target + slack) if direction == "minimize" else (y >= target - slack))
    if sustained:
        there = np.logical_and.accumulate(there[::-1])[::-1]
    if not there.any():
        return float(at[-1]), False
    return float(at[int(np.argmax(there))]), True


def kaplan_meier(durations: ArrayLike, reached: ArrayLike, *, level: float = 0.95) -> Survival:
    """The product-limit estimate with Greenwood's variance on the log(−log S) scale.

    That scale gives no interval where nobody or everybody has reached the target: before the first passage
    the lower limit is (α/2)^(1/n) of n runs at risk (exact for a share of n), after the last one the upper
    limit is kept from before it. With five to twenty runs a 95 % interval covers 90 to 99 % along the whole
    curve. The median's interval is left as published; with ten runs it covers 94 to 98 %.

    Args:
        durations: (n,) positive times to the target, or to the end of a run that did not reach it.
        reached: (n,) booleans, whether the target was reached.
        level: coverage of the pointwise intervals.

    Raises:
        ValueError: no runs, different lengths, or a duration that is negative or not finite.
    """
    t, event = finite_values(durations), np.asarray(reached, dtype=bool).ravel()
    if t.size != event.size:
        raise ValueError(f"{t.size} durations for {event.size} flags: pass one flag for each")
    if t.min() < 0:
        raise ValueError(f"durations hold {t.min():g}: a time to a target is not negative")
    time = np.union1d([0.0], t)
    died = np.array([np.count_nonzero(event & (t == u)) for u in time])
    lost = np.array([np.count_nonzero(~event & (t == u)) for u in time])
    at_risk = t.size - np.concatenate([[0], np.cumsum(died + lost)[:-1]])
    survival = np.cumprod(1 - died / at_risk)
    low, high = _log_log(survival, died, at_risk, level)

    middle, last, first = (_half_at(time, curve) for curve in (survival, high, low))
    value = middle if math.isfinite(middle) else math.nan
    median = Estimate(value, first, last, t.size, level, "Brookmeyer–Crowley")

    low = np.where(survival == 1, ((1 - level) / 2) ** (1 / at_risk), np.where(survival == 0, 0.0, low))
    some = np.flatnonzero(survival > 0)  # time 0 where nobody is there from the start
    high[survival == 0] = high[some[-1]] if some.size else 1.0
    censored = int(np.count_nonzero(~event))
    return Survival(time, survival, low, high, at_risk, died, lost, median, t.size, censored, level)


def _log_log(
    survival: Array, died: NDArray[np.int64], at_risk: NDArray[np.int64], level: float
) -> tuple[Array, Array]:
    """S^exp(±z·σ/|log S|) with Greenwood's σ²: 1 where S is 1, and 0 to 1 where S is 0."""
    inside = (survival > 0) & (survival < 1)
    share = np.divide(died, at_risk * (at_risk - died), out=np.zeros(died.size), where=died < at_risk)
    log = np.abs(np.log(survival, out=np.ones(died.size), where=inside))
    half = float(stats.norm.ppf((1 + level) / 2)) * np.sqrt(np.cumsum(share)) / log
    low = np.where(inside, survival ** np.exp(half), survival)
    high = np.where(inside, survival ** np.exp(-half), 1.0)
    return low, high


def _half_at(time: Array, curve: Array) -> float:
    """The first time at which a curve is at most one half; infinite where there is none."""
    below = np.flatnonzero(curve <= 0.5 * (1 + ROUNDING))
    return float(time[below[0]]) if below.size else math.inf


def restricted_mean(survival: Survival, horizon: float) -> Estimate:
    """The mean time to the target, counted up to a horizon: the area under the survival curve.

    The interval is Student's t with as many degrees of freedom as passages, less one; without censoring that
    is the t interval of a mean. With ten runs a 95 % interval covers 95 to 99 %, 91 % when the times are
    exponential and every run gets there.

    Args:
        survival: of one arm.
        horizon: where the counting ends; the same for all arms, at most the shortest budget.

    Raises:
        ValueError: the horizon is not positive.
    """
    if not horizon > 0:
        raise ValueError(f"horizon={horizon:g} must be positive: pass the budget")
    time = np.append(np.minimum(survival.time, horizon), horizon)
    areas = np.diff(time) * survival.survival
    after = areas[::-1].cumsum()[::-1]
    died, at_risk = survival.reached_at, survival.at_risk
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where((died > 0) & (after > 0), after**2 * died / (at_risk * (at_risk - died)), 0.0)
    events, value = int(died[survival.time <= horizon].sum()), float(areas.sum())
    if events < 2:
        return Estimate(value, math.nan, math.nan, survival.n, survival.level, "fewer than two passages")
    error = math.sqrt(float(terms.sum()) * events / (events - 1))
    half = float(stats.t.ppf((1 + survival.level) / 2, events - 1)) * error
    return Estimate(
        value, max(0.0, value - half), min(horizon, value + half), survival.n, survival.level, "Greenwood, t"
    )


def log_rank(a: Survival, b: Survival, *, draws: int = 20_000, seed: int = 0) -> float:
    """Two-sided p-value that two arms reach the target equally fast.

    The log-rank statistic is a sum over the runs of one arm of δ − Λ(t): δ is 1 for a run that reached the
    target, Λ the pooled cumulative hazard at the run's time. Its distribution comes from exchanging runs
    between the arms, which is right for any number of runs when both arms have the same budget; with ten runs
    each Mantel's χ² rejects 5 to 7 % when nothing differs.

    Args:
        a, b: as made by `kaplan_meier`, up to the same budget.
        draws: how many exchanges are drawn, fewer of more than 200 runs; 0 for Mantel's χ² with one degree of
            freedom.
        seed: of the draws.

    Returns:
        p; NaN where no run of either arm reached the target.
    """
    (time_a, there_a), (time_b, there_b) = _runs(a), _runs(b)
    time, there = np.concatenate([time_a, time_b]), np.concatenate([there_a, there_b])
    if not there.any():
        return math.nan
    moments = np.unique(time[there])
    died = np.array([np.count_nonzero(there & (time == u)) for u in moments])
    risk = np.array([np.count_nonzero(time >= u) for u in moments])
    hazard = np.concatenate([[0.0], np.cumsum(died / risk)])
    score = there - hazard[np.searchsorted(moments, time, side="right")]
    observed = abs(float(score[: a.n].sum()))
    if draws == 0:
        share = np.array([np.count_nonzero(time_a >= u) for u in moments]) / risk
        variance = float((died * share * (1 - share) * (risk - died) / np.maximum(risk - 1, 1)).sum())
        return float(stats.chi2.sf(observed**2 / variance, 1)) if variance > 0 else 1.0
    draws = min(draws, max(1000, 4_000_000 // time.size))
    order = np.random.default_rng(seed).random((draws, time.size)).argsort(axis=1)[:, : a.n]
    reached = np.abs(score[order].sum(axis=1)) >= observed - ROUNDING * time.size
    return float((np.count_nonzero(reached) + 1) / (draws + 1))


def _runs(s: Survival) -> tuple[Array, NDArray[np.bool_]]:
    """The runs' times and whether they reached the target."""
    counts = np.stack([s.reached_at, s.censored_at], axis=1).ravel()
    return np.repeat(np.repeat(s.time, 2), counts), np.repeat(np.tile([True, False], s.time.size), counts)
