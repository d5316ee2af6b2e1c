"""How often the intervals of a comparison hold the truth: the table of docs/jobs/statistics.md.

    python benchmarks/interval_coverage.py [--repeats 2000]

Question: does a 95 % interval of a few replicates hold the population's value in 95 of 100 repetitions, for
values that are normal, skewed, heavy-tailed, or accuracies on 360 images? One row a kind of value and number
of replicates, one column an estimator. About ten minutes of one core; 2000 repetitions are right to ±1 point.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.statistics import (
    Estimate,
    effect_size,
    iqm_estimate,
    mean_estimate,
    median_estimate,
    probability_of_improvement,
    stratified_estimate,
)

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal, σ = ½": lambda rng, n: rng.lognormal(0, 0.5, n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "Student's t₃": lambda rng, n: rng.standard_t(3, size=n),
    "accuracy 98.5 %": lambda rng, n: rng.binomial(360, 0.985, n) / 360,
    "accuracy 99.3 %": lambda rng, n: rng.binomial(360, 0.993, n) / 360,
}
TASKS = 3


def middle_half(values: Values) -> float:
    """The interquartile mean of a population."""
    ordered = np.sort(values, axis=None)
    return float(ordered[ordered.size // 4 : -(ordered.size // 4)].mean())


def coverage(draw: Draw, n: int, repeats: int) -> dict[str, float]:
    """Share of repetitions in which each estimator's interval holds the truth; NaN where it has none."""
    rng = np.random.default_rng([n, repeats])
    many = draw(np.random.default_rng(1), 1_000_000)
    apart = float(many.std())  # the arm is one standard deviation ahead of the baseline
    shifts = 2 * apart * np.arange(TASKS)
    tasks = shifts[:, None] + many[None, ::5]
    other = draw(np.random.default_rng(2), 1_000_000)
    ahead = other + apart - many
    truth = {
        "mean": float(many.mean()),
        "IQM": middle_half(many),
        "median": float(np.median(many)),
        "effect": 1.0,
        "improvement": float((ahead > 1e-9).mean() + (np.abs(ahead) <= 1e-9).mean() / 2),
        "IQM, 3 tasks": middle_half(tasks),
    }
    found: dict[str, list[float]] = {name: [] for name in truth}
    for seed in range(repeats):
        a, b = draw(rng, n), draw(rng, n)
        estimates: dict[str, Estimate] = {
            "mean": mean_estimate(b, seed=seed),
            "IQM": iqm_estimate(b, seed=seed),
            "median": median_estimate(b),
            "effect": effect_size(a + apart, b),
            "improvement": probability_of_improvement(a + apart, b),
            "IQM, 3 tasks": stratified_estimate([shift + draw(rng, n) for shift in shifts], "iqm", seed=seed),
        }
        for name, estimate in estimates.items():
            held = estimate.low - 1e-12 <= truth[name] <= estimate.high + 1e-12
            found[name].append(float(held) if estimate.has_interval else np.nan)
    return {name: float(np.nanmean(h)) if np.isfinite(h).any() else np.nan for name, h in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    for name, draw in DRAWS.items():
        for n in (5, 10, 20):
            row = coverage(draw, n, repeats)
            if name == "normal" and n == 5:
                print(f"| values | n | {' | '.join(row)} |", "|---|---|" + "---|" * len(row), sep="\n")
            cells = " | ".join("–" if np.isnan(c) else f"{100 * c:.1f}" for c in row.values())
            print(f"| {name} | {n} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
