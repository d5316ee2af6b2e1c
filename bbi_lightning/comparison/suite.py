"""Several sweeps compared at once.

Sweeps of one task (the same base and the same objective) are one comparison: their arms stand beside each
other. Sweeps of different tasks are one comparison each, and what is common to them is said over all tasks:
runs are resampled within each task, so that no task's spread counts as another's.

Reference:
    Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice, NeurIPS
    (stratified bootstrap over tasks, interquartile mean, probability of improvement, performance profiles).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.results import ArmResult, Comparison, compare_sweep, seed_outcomes, seed_pairs
from bbi_lightning.comparison.statistics import (
    Estimate,
    improvement_over_tasks,
    stratified_estimate,
)
from bbi_lightning.comparison.sweep_data import Arm, Run, Sweep, read_sweep, told_apart

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class OverTasks:
    """What is said about one arm over all tasks.

    Attributes:
        arm: its name and looks (of the first task).
        scores: of the finished replicates, one array a task; see `Suite.score`.
        iqm: interquartile mean of all scores, resampled within tasks.
        difference: mean over tasks of the mean paired difference of scores to the baseline; None for the
            baseline and without pairs in some task.
        task_differences: of each task, the mean paired difference; empty where `difference` is None.
        improvement: probability that a run of this arm is better than one of the baseline, mean over tasks.
    """

    arm: Arm
    scores: tuple[Scores, ...]
    iqm: Estimate
    difference: Estimate | None = None
    task_differences: tuple[float, ...] = ()
    improvement: Estimate | None = None


@dataclass(frozen=True)
class Suite:
    """One comparison a task, and what holds over all of them.

    `over_tasks` is empty for a single task; it has the arms that have finished replicates in every task.
    `score` says in words what a score is.
    """

    comparisons: tuple[Comparison, ...]
    over_tasks: tuple[OverTasks, ...] = ()
    score: str = ""

    @property
    def title(self) -> str:
        """What is compared, for a heading."""
        titles = [c.sweep.title for c in self.comparisons]
        return titles[0] if len(titles) == 1 else f"{len(titles)} tasks: {', '.join(titles)}"


def read_suite(folders: Sequence[str | Path]) -> tuple[Sweep, ...]:
    """The tasks of some sweeps, in the order given; sweeps of one task are joined into one.

    Raises:
        FileNotFoundError, ValueError: as `read_sweep`.
    """
    tasks: dict[tuple[object, ...], list[Sweep]] = {}
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        sweep = read_sweep(folder)
        tasks.setdefault(_task(sweep), []).append(sweep)
    return tuple(_join(sweeps) for sweeps in tasks.values())


def compare_suite(sweeps: Sequence[Sweep], against: str | None = None, *, seed: int = 0) -> Suite:
    """Compare the arms of every task, and over all tasks.

    Args:
        sweeps: one for each task.
        against: the baseline's name in every task; by default "sgd", or the first arm that all tasks have.
        seed: of all resampling.

    Raises:
        ValueError: a task has no such arm, no arm is common to all tasks, or as `compare_sweep`.
    """
    if against is None and len(sweeps) > 1:
        common = [a.name for a in sweeps[0].arms if all(_has(sweep, a.name) for sweep in sweeps)]
        if not common:
            names = "; ".join(f"{s.name}: {', '.join(a.name for a in s.arms)}" for s in sweeps)
            raise ValueError(f"the sweeps share no arm ({names}): compare them one by one")
        against = "sgd" if "sgd" in common else common[0]
    comparisons = tuple(compare_sweep(sweep, against, seed=seed) for sweep in sweeps)
    if len(comparisons) == 1:
        return Suite(comparisons)
    shares = all(c.test.is_share for c in comparisons)
    score = (
        comparisons[0].test.label
        if shares and len({c.test.name for c in comparisons}) == 1
        else "test metric relative to the baseline's mean, higher is better"
    )
    relative = not shares or len({c.test.name for c in comparisons}) > 1
    return Suite(comparisons, _over_tasks(comparisons, relative, seed), score)


def _task(sweep: Sweep) -> tuple[object, ...]:
    """What sweeps of one task share. An imported one without a base does not say what its task is."""
    unknown = not sweep.base and any(run.imported for run in sweep.runs)
    return (sweep.folder,) if unknown else (tuple(sorted(sweep.base)), sweep.objective)


def _has(sweep: Sweep, name: str) -> bool:
    return any(arm.name == name for arm in sweep.arms)


def _join(sweeps: Sequence[Sweep]) -> Sweep:
    """One task's sweeps as one: an arm whose name is taken is called after its sweep too."""
    if len(sweeps) == 1:
        return sweeps[0]
    counts = Counter(sweep.name for sweep in sweeps)
    arms: list[Arm] = []
    runs: list[Run] = []
    plans = {}
    for place, sweep in enumerate(sweeps):
        short = sweep.name if counts[sweep.name] == 1 else f"{sweep.name}#{place + 1}"
        taken = {arm.name for arm in arms}
        renamed = {a.name: f"{short}:{a.name}" if a.name in taken else a.name for a in sweep.arms}
        for arm in sweep.arms:
            name = renamed[arm.name]
            label = arm.label if name == arm.name else f"{arm.label} ({short})"
            arms.append(replace(arm, name=name, label=label))
            plans[name] = sweep.plan(arm.name)
        runs += [replace(run, arm=renamed[run.arm]) for run in sweep.runs]
    first = sweeps[0]
    return replace(
        first,
        name="+".join(sweep.name for sweep in sweeps),
        title=" and ".join(dict.fromkeys(sweep.title for sweep in sweeps)),
        sampler=", ".join(dict.fromkeys(sweep.sampler for sweep in sweeps)),
        arms=told_apart(arms),
        runs=tuple(runs),
        problems=tuple(problem for sweep in sweeps for problem in sweep.problems),
        plans=plans,
    )


def _over_tasks(comparisons: Sequence[Comparison], relative: bool, seed: int) -> tuple[OverTasks, ...]:
    baseline = comparisons[0].baseline.name
    results = []
    for arm in comparisons[0].sweep.arms:
        own = [next((r for r in c.results if r.arm.name == arm.name), None) for c in comparisons]
        scores = [_scores(c, r, relative) for c, r in zip(comparisons, own, strict=True)]
        if any(s.size == 0 for s in scores):
            continue
        iqm = stratified_estimate(scores, "iqm", seed=seed)
        result = OverTasks(arm, tuple(scores), iqm)
        if arm.name != baseline:
            reference = [_scores(c, c.result(baseline), relative) for c in comparisons]
            pairs = [_paired(c, r, relative) for c, r in zip(comparisons, own, strict=True)]
            paired = all(p.size for p in pairs)
            result = replace(
                result,
                difference=stratified_estimate(pairs, "mean", seed=seed) if paired else None,
                task_differences=tuple(float(p.mean()) for p in pairs) if paired else (),
                improvement=improvement_over_tasks(scores, reference)
                if all(s.size for s in reference)
                else None,
            )
        results.append(result)
    return tuple(results)


def _scores(c: Comparison, r: ArmResult | None, relative: bool) -> Scores:
    return _scored(c, np.array(seed_outcomes(r.finished, c.test) if r else [], dtype=np.float64), relative)


def _scored(c: Comparison, values: Scores, relative: bool) -> Scores:
    if not relative:
        return values
    mean = c.result(c.baseline.name).mean
    scale = abs(mean.value) if mean and mean.value else math.nan
    scored: Scores = 1 + c.test.sign * (values - (mean.value if mean else math.nan)) / scale
    return scored[np.isfinite(scored)]


def _paired(c: Comparison, r: ArmResult | None, relative: bool) -> Scores:
    """The arm's scores minus the baseline's, pairs that share a seed."""
    if r is None or r.versus is None:
        return np.array([], dtype=np.float64)
    pairs = seed_pairs(r, c.result(c.baseline.name), c.test)
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return _scored(c, both[:, 0], relative) - _scored(c, both[:, 1], relative)


def sentences_over_tasks(suite: Suite) -> tuple[str, ...]:
    """What may be said over all tasks: one sentence for each arm but the baseline; empty for a single task.

    A difference is said to be shown where the interval of the mean over tasks excludes zero. There is no test
    and no correction here: the tasks' own verdicts have them.
    """
    first = suite.comparisons[0]
    percent = first.test.is_share and suite.score == first.test.label
    towards_better = first.test.sign if percent else 1.0
    unit = " points" if percent else ""

    def write(number: float) -> str:
        return f"{number * (100.0 if percent else 1.0):+.2f}".replace("-", "−")

    lines = []
    for result in suite.over_tasks:
        difference, better = result.difference, result.improvement
        if difference is None or better is None:
            continue
        conclusion = "no difference is shown"
        if difference.excludes(0.0):
            conclusion = "better" if difference.value * towards_better > 0 else "worse"
        lines.append(
            f"{result.arm.label} minus {first.baseline.label}, mean over {len(suite.comparisons)} tasks: "
            f"{write(difference.value)}{unit}, 95 % interval {write(difference.low)} to "
            f"{write(difference.high)}; a run is better than one of {first.baseline.label} with probability "
            f"{better.value:.2f} ({better.low:.2f} to {better.high:.2f}). Over all tasks: {conclusion}."
        )
    return tuple(lines)
