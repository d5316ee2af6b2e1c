"""From a sweep's runs to the numbers of a comparison. Every table, picture and sentence is made from these.

Rules kept here: the best trial is chosen on validation data; test metrics are those written at the end of a
finished run; pairs share a seed; an arm is said to differ from the baseline only when the interval of the
difference excludes zero, the paired test agrees after Holm's correction, and no replicate of the side that
looks better diverged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.statistics import (
    Estimate,
    PairedDifference,
    SeedPlan,
    TuningCurve,
    holm,
    iqm_estimate,
    mean_estimate,
    median_estimate,
    paired_difference,
    probability_of_improvement,
    rank_trials,
    seeds_needed,
    share_within,
    tuning_curve,
)
from bbi_lightning.comparison.sweep_data import Arm, Axis, Run, Sweep

ALPHA = 0.05
NEAR_BEST = 0.01  # one percentage point of accuracy; for other metrics one per cent of the best value

Conclusion = Literal["baseline", "better", "worse", "undecided", "unstable", "no data"]


@dataclass(frozen=True)
class ArmResult:
    """All that the comparison says about one arm.

    Attributes:
        arm: the contestant.
        trials: its search, `values` their validation metric (NaN: diverged, failed, unfinished).
        best: the trial chosen on validation, None when none finished.
        ties: how many other trials have the same validation metric as the best.
        edges: axes on whose edge the best lies.
        near_best: share of trials near the arm's best (see `NEAR_BEST`).
        tuning: best-after-k-trials curve, None without finished trials.
        replicates: the runs with the best trial's parameters; of every study's best where there are several.
        winners: how many different points these are.
        foreign: how many replicates have other parameters (left out unless there are no others).
        replicates_its_best: whether there are others: any with the best trial's parameters.
        mean, median, iqm: test metric over the finished replicates' seeds (of several studies their mean for
            each seed), None when there are none.
        versus: paired difference to the baseline, with effect size; None for the baseline and without pairs.
        improvement: probability that a replicate is better than one of the baseline's, None likewise.
        more_seeds: what more replicates could show, None likewise.
        p_value: of `versus` after Holm's correction; NaN without pairs.
        conclusion: what may be said about the arm against the baseline.
    """

    arm: Arm
    trials: tuple[Run, ...]
    values: tuple[float, ...]
    best: Run | None
    ties: int
    edges: tuple[Axis, ...]
    near_best: float
    tuning: TuningCurve | None
    replicates: tuple[Run, ...]
    foreign: int
    mean: Estimate | None
    median: Estimate | None
    versus: PairedDifference | None = None
    p_value: float = math.nan
    conclusion: Conclusion = "no data"
    winners: int = 0
    replicates_its_best: bool = True
    iqm: Estimate | None = None
    improvement: Estimate | None = None
    more_seeds: SeedPlan | None = None

    @property
    def finished(self) -> tuple[Run, ...]:
        """The replicates that finished."""
        return tuple(run for run in self.replicates if run.state == "finished")

    def count(self, phase: str, *states: str) -> int:
        """How many runs of a phase ("search" or "replicate") are in one of the states."""
        return sum(self._states[phase, state] for state in states)

    def typical(self, quantity: str) -> float:
        """Median over the finished replicates of a number in the summary ("steps", "wall_s"); NaN without."""
        numbers = [run.final(quantity) for run in self.finished]
        numbers = [number for number in numbers if math.isfinite(number)]
        return float(np.median(numbers)) if numbers else math.nan

    @cached_property
    def _states(self) -> Counter[tuple[str, str]]:
        return Counter((run.phase, run.state) for run in (*self.trials, *self.replicates))


@dataclass(frozen=True)
class Comparison:
    """A sweep's arms against one of them.

    Attributes:
        sweep: what was compared.
        baseline: the arm the others are compared to.
        validation, test: the metric of the choice and the metric of the verdict.
        results: one for each arm, in the sweep's order.
        penalty: the validation value that diverged and failed trials count as in the tuning curves.
    """

    sweep: Sweep
    baseline: Arm
    validation: Metric
    test: Metric
    results: tuple[ArmResult, ...]
    penalty: float

    def result(self, arm: str) -> ArmResult:
        """The result of the arm of that name."""
        return next(result for result in self.results if result.arm.name == arm)

    @property
    def contestants(self) -> tuple[ArmResult, ...]:
        """All but the baseline."""
        return tuple(result for result in self.results if result.arm != self.baseline)

    def missing(self) -> int:
        """How many planned runs are not over yet (finished, diverged and pruned are over)."""
        missing = 0
        for r in self.results:
            plan = self.sweep.plan(r.arm.name)
            pending = plan.trials * plan.studies - r.count("search", "finished", "diverged", "pruned")
            missing += max(0, pending)
            if r.best or pending > 0:  # else the search ended with nothing to replicate
                planned = plan.replicates * (r.winners or plan.studies)
                missing += max(0, planned - r.count("replicate", "finished", "diverged"))
        return missing


def compare_sweep(sweep: Sweep, against: str | None = None, *, seed: int = 0) -> Comparison:
    """Compute a comparison.

    Args:
        sweep: as read from its folder.
        against: the baseline's name; by default "sgd", or the first arm where there is none.
        seed: of all resampling.

    Raises:
        ValueError: no arm is called `against`, the sweep has fewer than two arms, or no run yet.
    """
    names = [arm.name for arm in sweep.arms]
    baseline = sweep.arm(against or ("sgd" if "sgd" in names else names[0]))
    if len(names) < 2:
        raise ValueError(f"sweep {sweep.name} has one arm, {names[0]}: a comparison needs two")
    if not sweep.runs:
        raise ValueError(
            f"sweep {sweep.name} has no runs yet: start it with `bbi sweep run sweep={sweep.name}`"
        )

    objective = sweep.objective
    validation = Metric(objective.metric, objective.direction)
    test = Metric("test/" + objective.metric.rsplit("/", 1)[-1], objective.direction)
    worst = min if objective.direction == "maximize" else max
    values = [
        v for run in sweep.runs if run.phase == "search" and math.isfinite(v := run.final(validation.name))
    ]
    penalty = worst(values) if values else math.nan

    results = [_arm_result(sweep, arm, validation, test, penalty, seed) for arm in sweep.arms]
    results = _against(results, baseline, test, seed)
    return Comparison(sweep, baseline, validation, test, tuple(results), penalty)


def _arm_result(
    sweep: Sweep, arm: Arm, validation: Metric, test: Metric, penalty: float, seed: int
) -> ArmResult:
    trials, objective = sweep.trials(arm.name), sweep.objective
    values = [run.final(validation.name) for run in trials]
    ties = [run.final(objective.tie_metric) for run in trials] if objective.tie_metric else None
    ranking = rank_trials(values, objective.direction, ties, objective.tie_direction)
    best = trials[ranking[0]] if ranking else None
    firsts = {trials[place].study: trials[place] for place in reversed(ranking)}
    winners = _different([firsts[study] for study in sorted(firsts)])
    replicates, foreign = _replicates_of(winners, sweep.replicates(arm.name)) if trials else (
        sweep.replicates(arm.name), 0
    )  # fmt: skip  # an imported arm of a single setting has searched nothing

    # a trial that diverged, failed or was pruned was spent all the same; one that is still running was not
    spent = [
        value if math.isfinite(value) else penalty
        for run, value in zip(trials, values, strict=True)
        if run.state in ("finished", "diverged", "pruned", "failed")
    ]
    tolerance = NEAR_BEST * (1.0 if validation.is_share or best is None else abs(best.final(validation.name)))
    outcomes = seed_outcomes(replicates, test)
    return ArmResult(
        arm=arm,
        trials=trials,
        values=tuple(values),
        best=best,
        ties=values.count(best.final(validation.name)) - 1 if best else 0,
        edges=tuple(axis for axis in arm.space if best and axis.at_edge(best.params.get(axis.key))),
        near_best=share_within(values, tolerance, objective.direction) if ranking else math.nan,
        tuning=tuning_curve(spent, objective.direction, seed=seed) if ranking else None,
        replicates=replicates,
        foreign=foreign,
        mean=mean_estimate(outcomes, seed=seed) if outcomes else None,
        median=median_estimate(outcomes) if outcomes else None,
        iqm=iqm_estimate(outcomes, seed=seed) if outcomes else None,
        winners=len(winners),
        replicates_its_best=foreign < len(sweep.replicates(arm.name)),
    )


def _different(bests: Sequence[Run]) -> list[Run]:
    """Without those whose point another study has chosen too: it is replicated once."""
    chosen: list[Run] = []
    for run in bests:
        if not any(_same(run.params, other.params) for other in chosen):
            chosen.append(run)
    return chosen


def _replicates_of(winners: Sequence[Run], replicates: Sequence[Run]) -> tuple[tuple[Run, ...], int]:
    """The replicates trained with a best trial's parameters, and how many others there are: a search that
    was extended may have a new best, and its old best's replicates are then left out."""
    own = tuple(run for run in replicates if any(_same(run.params, best.params) for best in winners))
    return (own or tuple(replicates)), len(replicates) - len(own)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    def equal(x: Any, y: Any) -> bool:
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            return math.isclose(x, y, rel_tol=1e-9)
        return bool(x == y)

    return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())


def _against(results: list[ArmResult], baseline: Arm, test: Metric, seed: int) -> list[ArmResult]:
    """Add the differences to the baseline, corrected over all of them, and what may be concluded."""
    reference = next(result for result in results if result.arm == baseline)
    pairs = {
        result.arm.name: own
        for result in results
        if result.arm != baseline and (own := seed_pairs(result, reference, test))
    }
    versus = {name: paired_difference(*zip(*own, strict=True), seed=seed) for name, own in pairs.items()}
    corrected = dict(zip(versus, holm([d.p_value for d in versus.values()]), strict=True))

    def add(result: ArmResult) -> ArmResult:
        name = result.arm.name
        p_value = float(corrected.get(name, math.nan))
        conclusion = _conclude(result, reference, versus.get(name), p_value, test)
        result = replace(result, versus=versus.get(name), p_value=p_value, conclusion=conclusion)
        if name not in pairs:
            return result
        own, theirs = zip(*pairs[name], strict=True)
        return replace(
            result,
            improvement=probability_of_improvement(own, theirs, direction=test.direction),
            more_seeds=seeds_needed(np.subtract(own, theirs), alpha=ALPHA / len(pairs))
            if len(own) > 1
            else None,
        )

    return [add(result) for result in results]


def seed_pairs(result: ArmResult, reference: ArmResult, test: Metric) -> list[tuple[float, float]]:
    """(the arm's, the reference's) test metric for every seed that both have finished replicates with."""
    theirs = _by_seed(reference.finished, test)
    return [(own, theirs[seed]) for seed, own in _by_seed(result.finished, test).items() if seed in theirs]


def seed_outcomes(runs: Sequence[Run], test: Metric) -> list[float]:
    """The test metric of each seed; of runs whose seed is not known, each for itself."""
    unknown = [run.final(test.name) for run in runs if run.seed is None]
    return [*_by_seed(runs, test).values(), *filter(math.isfinite, unknown)]


def _by_seed(runs: Sequence[Run], test: Metric) -> dict[int, float]:
    """Seed to test metric, the mean where several studies have replicates with it: they start alike and see
    the data in one order, so they are no independent runs."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if run.seed is not None and math.isfinite(value := run.final(test.name)):
            values.setdefault(run.seed, []).append(value)
    return {seed: sum(own) / len(own) for seed, own in values.items()}


def _conclude(
    result: ArmResult, reference: ArmResult, versus: PairedDifference | None, p_value: float, test: Metric
) -> Conclusion:
    if result is reference:
        return "baseline"
    if versus is None:
        return "no data"
    if not versus.difference.excludes(0.0) or p_value > ALPHA:
        return "undecided"
    better = versus.difference.value * test.sign > 0
    # the mean of the runs that survived says nothing about an optimizer that loses some of them
    if (result if better else reference).count("replicate", "diverged"):
        return "unstable"
    return "better" if better else "worse"
