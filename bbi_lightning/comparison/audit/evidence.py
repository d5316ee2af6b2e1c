"""Are there enough replicates, rightly paired, and does the conclusion hang on one of them?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.audit.finding import Finding, command
from bbi_lightning.comparison.results import ALPHA, ArmResult, Comparison, seed_pairs
from bbi_lightning.comparison.statistics import mean_estimate
from bbi_lightning.comparison.verdict import count, listed


def too_few(c: Comparison) -> Iterator[Finding]:
    """No result could reach significance, or the differences seen need more seeds."""
    pairs = [r.versus for r in c.results if r.versus is not None]
    if not pairs:
        return
    if len(pairs) * min(p.smallest_p for p in pairs) > ALPHA:
        have = max(p.difference.n for p in pairs)
        needed = math.ceil(1 + math.log2(len(pairs) / ALPHA))
        more = max(1, needed - min(len(r.replicates) for r in c.results if r.replicates))
        yield Finding(
            "warning",
            "too-few-seeds",
            f"{count(have, 'pair')}: too few for the test to reach p < {ALPHA} in "
            f"{count(len(pairs), 'comparison')}, whatever the numbers are.",
            f"Train at least {needed} replicates an arm: {command(c, 'extend', '--replicates', more)}.",
            evidence={"pairs": have, "needed": needed},
        )
        return
    plans = {
        r.arm.label: r.more_seeds
        for r in c.contestants
        if r.conclusion == "undecided" and r.more_seeds is not None
    }
    wanted = {label: plan.n for label, plan in plans.items() if plan.n is not None}
    if wanted:
        more = max(plan.more or 0 for plan in plans.values())
        if more:
            yield Finding(
                "note",
                "more-seeds-would-tell",
                f"To settle a difference of the size seen would take so many pairs: {listed(wanted)} "
                f"(there are {max(plan.pairs for plan in plans.values())}).",
                f"If so small a difference matters: {command(c, 'extend', '--replicates', more)}.",
                evidence=dict(wanted),
            )


def unmeasured(c: Comparison) -> Iterator[Finding]:
    """Finished runs of an arm of which none has the metric that selects, or the one that judges."""
    for metric, phase in ((c.validation, "search"), (c.test, "replicate")):
        runs = {r.arm.label: r.trials if phase == "search" else r.finished for r in c.results}
        finished = {label: [run for run in own if run.state == "finished"] for label, own in runs.items()}
        lacking = {
            label: own
            for label, own in finished.items()
            if own and not any(math.isfinite(run.final(metric.name)) for run in own)
        }
        if lacking:
            there = sorted({key for own in lacking.values() for run in own for key in run.record.summary})
            prefix = metric.name.partition("/")[0] + "/"
            others = ", ".join(key for key in there if key.startswith(prefix)) or "none that begins so"
            yield Finding(
                "error",
                "metric-missing",
                f"No finished {'trial' if phase == 'search' else 'replicate'} of {', '.join(lacking)} has "
                f"{metric.name} (there is {others}): nothing can be said of it.",
                "Name a metric that every arm measures in objective.metric.",
                arm=next((r.arm.name for r in c.results if r.arm.label in lacking), "")
                if len(lacking) == 1
                else "",
                evidence={"metric": metric.name, "runs": {label: len(own) for label, own in lacking.items()}},
            )


def pairing(c: Comparison) -> Iterator[Finding]:
    """Finished replicates without a partner of the same seed."""
    reference = c.result(c.baseline.name)
    for r in c.contestants:
        if r.mean is None or reference.mean is None:
            continue  # nothing to pair: `unmeasured`
        n = len(seed_pairs(r, reference, c.test))
        if n < min(r.mean.n, reference.mean.n):
            yield Finding(
                "warning" if n else "error",
                "broken-pairs",
                f"{r.arm.label} and {c.baseline.label} have {r.mean.n} and {reference.mean.n} "
                f"finished replicates, and share {count(n, 'seed') if n else 'no seed'}: "
                f"{'the others are not' if n else 'nothing is'} compared.",
                "Train both on the same seeds (replicates.first_seed in sweep.yaml).",
                arm=r.arm.name,
                evidence={"pairs": n},
            )


def seeds(c: Comparison) -> Iterator[Finding]:
    """Replicates use a seed of the search, or one seed twice."""
    for r in c.results:
        searched = {run.seed for run in r.trials if run.seed is not None}
        used = Counter(
            (run.study, run.seed, repr(sorted(run.params.items())))
            for run in r.replicates
            if run.seed is not None
        )
        again = sorted({seed for _, seed, _ in used if seed is not None} & searched)
        if again:
            yield Finding(
                "warning",
                "seed-of-the-search",
                f"Replicates of {r.arm.label} use {count(len(again), 'seed')} of its search "
                f"({', '.join(map(str, again[:3]))}): its best trial was chosen for its luck with it.",
                "Replicate on fresh seeds (replicates.first_seed in sweep.yaml).",
                arm=r.arm.name,
                evidence={"seeds": again},
            )
        doubles = sum(used.values()) - len(used)
        if doubles:
            yield Finding(
                "error",
                "seed-twice",
                f"{count(doubles, 'replicate')} of {r.arm.label} "
                f"{'repeats' if doubles == 1 else 'repeat'} a seed: one run is counted twice.",
                "Remove the doubles, or give them seeds of their own.",
                arm=r.arm.name,
                evidence={"doubles": doubles},
            )


def equal_results(c: Comparison) -> Iterator[Finding]:
    """Replicates with different seeds that have the very same losses: the seed does nothing."""
    for r in c.results:
        metric = next((m for m in ("train/loss", "test/loss", "val/loss") if _has(r, m)), None)
        if metric is None:
            continue
        values = [v for run in r.finished if math.isfinite(v := run.final(metric))]
        if len(values) > 2 and len(set(values)) == 1 and values[0] != 0:
            yield Finding(
                "error",
                "seeds-do-nothing",
                f"All {len(values)} replicates of {r.arm.label} end at the very same {metric}: their seeds "
                "change nothing, and the interval means nothing.",
                "Let the seed choose initial weights and the order of the data.",
                arm=r.arm.name,
                evidence={metric: values[0]},
            )


def outliers(c: Comparison) -> Iterator[Finding]:
    """A conclusion that hangs on one pair: without it, it would be another."""
    for r in c.contestants:
        if r.conclusion not in ("better", "worse"):
            continue
        d = differences(c, r)
        for place in _most_helpful(d):
            rest = np.delete(d, place)
            if rest.size > 1 and not mean_estimate(rest).excludes(0.0):
                yield Finding(
                    "warning",
                    "one-pair-decides",
                    f"{r.arm.label} is {r.conclusion} only because of one pair of replicates (difference "
                    f"{c.test.number(float(d[place]), signed=True)}): without it the interval contains zero.",
                    f"Look at that run, and train more: {command(c, 'extend', '--replicates', d.size)}.",
                    arm=r.arm.name,
                    evidence={"difference": float(d[place])},
                )
                break


def skewed(c: Comparison) -> Iterator[Finding]:
    """Mean and median of the paired differences point in different directions."""
    for r in c.contestants:
        d = differences(c, r)
        if d.size < 5 or r.conclusion not in ("better", "worse"):
            continue
        mean, median = float(np.mean(d)), float(np.median(d))
        if mean * median < 0:
            yield Finding(
                "warning",
                "mean-against-median",
                f"{r.arm.label}: mean and median of the differences to {c.baseline.label} have different "
                f"signs ({c.test.number(mean, signed=True)} and {c.test.number(median, signed=True)}): a "
                "few runs carry the mean.",
                "Look at the points and at the median, not at the mean alone.",
                arm=r.arm.name,
                evidence={"mean": mean, "median": median},
            )


def foreign(c: Comparison) -> Iterator[Finding]:
    """Replicates that are not of the best trial."""
    for r in c.results:
        if r.best and r.replicates and not r.replicates_its_best:
            yield Finding(
                "error",
                "replicates-not-of-best",
                f"The replicates of {r.arm.label} do not have the parameters of its best trial.",
                "Run the sweep again to replicate the best.",
                arm=r.arm.name,
            )
        elif r.best and r.foreign:
            yield Finding(
                "note",
                "replicates-left-out",
                f"{count(r.foreign, 'replicate')} of {r.arm.label} left out: not of its best trial.",
                arm=r.arm.name,
                evidence={"left_out": r.foreign},
            )


def differences(c: Comparison, r: ArmResult) -> NDArray[np.float64]:
    """(n,) the arm's test metric minus the baseline's, pairs that share a seed."""
    pairs = seed_pairs(r, c.result(c.baseline.name), c.test)
    return np.array([own - other for own, other in pairs], dtype=np.float64)


def _most_helpful(d: NDArray[np.float64]) -> list[int]:
    """The three pairs that speak most for the side the mean is on: no other can be what decides."""
    toward = d * (1.0 if d.size == 0 or d.mean() > 0 else -1.0)
    return [int(place) for place in np.argsort(-toward)[:3]]


def _has(r: ArmResult, metric: str) -> bool:
    return any(math.isfinite(run.final(metric)) for run in r.finished)


CHECKS = (unmeasured, too_few, pairing, seeds, equal_results, foreign, outliers, skewed)
