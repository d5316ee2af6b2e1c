"""Each estimate against a reference, a definition, or a simulation of what its interval promises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bbi_lightning.comparison.statistics import (
    intervals,
    iqm_estimate,
    mean_estimate,
    median_estimate,
    stratified_estimate,
)

ACCURACIES = np.array([354, 351, 355, 350, 353, 356, 352, 354, 357, 349]) / 360
EXPERIMENTS = {  # name: (n replicates of it, their true mean)
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 0.5, n), math.exp(0.125)),
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "accuracy": (lambda rng, n: rng.binomial(360, 0.985, n) / 360, 0.985),
    "difference": (lambda rng, n: (rng.binomial(360, 0.993, n) - rng.binomial(360, 0.985, n)) / 360, 0.008),
}
SMALL_FLOATS = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


class TestMean:
    def test_is_the_bootstrap_t_interval(self):
        rng, n = np.random.default_rng(9), ACCURACIES.size
        mean, spread = ACCURACIES.mean(), ACCURACIES.std(ddof=1)
        t = []
        for _ in range(20_000):
            x = rng.choice(ACCURACIES, n)
            t.append((x.mean() - mean) / (max(x.std(ddof=1), 0.3 * spread) / math.sqrt(n)))
        low, high = mean - np.quantile(t, [0.975, 0.025]) * spread / math.sqrt(n)
        estimate = mean_estimate(ACCURACIES)
        assert estimate.value == pytest.approx(ACCURACIES.mean(), abs=1e-15)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)
        assert estimate.method == "bootstrap-t"

    def test_reaches_farther_on_the_side_of_the_tail(self):
        x = np.random.default_rng(0).exponential(size=20)
        estimate = mean_estimate(x)
        assert estimate.high - estimate.value > 1.3 * (estimate.value - estimate.low)

    def test_one_outlier_does_not_blow_up_the_interval(self):
        collapsed = np.append(ACCURACIES[:9], 0.1)
        estimate = mean_estimate(collapsed)
        t = stats.t.ppf(0.975, 9) * stats.sem(collapsed)
        assert estimate.high - estimate.low < 4 * t

    def test_is_students_interval_below_eight_values(self):
        x = ACCURACIES[:5]
        low, high = stats.t.interval(0.95, 4, loc=x.mean(), scale=stats.sem(x))
        estimate = mean_estimate(x)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-12)
        assert estimate.method == "Student's t"

    @pytest.mark.parametrize("name", EXPERIMENTS)
    @pytest.mark.parametrize("n", [8, 10, 20])
    def test_covers_the_truth_as_often_as_it_says(self, monkeypatch, name, n):
        draw, mean = EXPERIMENTS[name]
        monkeypatch.setattr(intervals, "_RESAMPLES", 1500)
        rng = np.random.default_rng([n, len(name)])
        repeats = 1000
        hits = 0
        for seed in range(repeats):
            estimate = mean_estimate(draw(rng, n), seed=seed)
            hits += estimate.low <= mean <= estimate.high
        # 93 to 97 %, give or take twice the simulation's own error
        assert 0.93 - 0.014 <= hits / repeats <= 0.97 + 0.014

    def test_is_the_same_for_the_same_seed_and_follows_shift_and_scale(self):
        first, again = mean_estimate(ACCURACIES, seed=3), mean_estimate(ACCURACIES, seed=3)
        assert first == again
        moved = mean_estimate(5 - 2 * ACCURACIES, seed=3)
        assert (moved.low, moved.high) == pytest.approx((5 - 2 * first.high, 5 - 2 * first.low))

    def test_equal_values_give_width_zero_and_one_value_no_interval(self):
        same = mean_estimate([0.1 + 0.2, 0.3, 0.3])
        assert same.low == same.value == same.high
        one = mean_estimate([0.9])
        assert not one.has_interval
        assert not one.excludes(0.0)

    @pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
    def test_refuses_what_has_no_mean(self, values):
        with pytest.raises(ValueError, match=r"pass at least one|not finite"):
            mean_estimate(values)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(SMALL_FLOATS, min_size=2, max_size=12))
    def test_always_holds_its_own_mean(self, values):
        estimate = mean_estimate(values)
        assert estimate.low <= estimate.value + 1e-12
        assert estimate.high >= estimate.value - 1e-12


class TestMedian:
    @pytest.mark.parametrize("n", [6, 9, 10, 15, 40])
    def test_is_the_narrowest_symmetric_pair_of_order_statistics_that_covers(self, n):
        x = np.arange(n, dtype=float)
        estimate = median_estimate(x)
        assert estimate.value == np.median(x)
        rank = int(estimate.low) + 1
        assert estimate.high == n - rank

        def coverage(rank):
            return 1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n

        assert coverage(rank) >= 0.95
        assert coverage(rank + 1) < 0.95

    def test_covers_in_simulation(self):
        rng = np.random.default_rng(0)
        x = rng.exponential(size=(4000, 10))
        hits = [(e := median_estimate(row)).low <= math.log(2) <= e.high for row in x]
        assert np.mean(hits) == pytest.approx(0.979, abs=0.01)  # 1 − 2·11/1024

    def test_has_no_interval_below_six_values(self):
        assert not median_estimate([1, 2, 3, 4, 5]).has_interval


def middle_half_by_copies(groups):
    """The interquartile mean by its definition: equal weights by copying, the outer quarters cut off."""
    sizes = [len(group) for group in groups]
    common = 4 * math.lcm(*sizes)
    pooled = np.sort(np.concatenate([np.repeat(g, common // n) for g, n in zip(groups, sizes, strict=True)]))
    return pooled[pooled.size // 4 : -(pooled.size // 4)].mean()


class TestInterquartileMean:
    @pytest.mark.parametrize("n", [4, 8, 12, 20])
    def test_is_scipys_trimmed_mean_where_four_divides_n(self, n):
        x = np.random.default_rng(n).exponential(size=n)
        assert iqm_estimate(x).value == pytest.approx(stats.trim_mean(x, 0.25), rel=1e-12)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.lists(SMALL_FLOATS, min_size=2, max_size=7), min_size=1, max_size=4))
    def test_is_the_mean_of_the_middle_half_with_equal_weight_for_every_task(self, groups):
        assert stratified_estimate(groups).value == pytest.approx(middle_half_by_copies(groups), abs=1e-9)

    def test_one_task_is_the_same_with_and_without_tasks(self):
        assert stratified_estimate([ACCURACIES], seed=4) == iqm_estimate(ACCURACIES, seed=4)
        assert stratified_estimate([ACCURACIES], "mean") == mean_estimate(ACCURACIES)

    def test_an_outlier_moves_it_less_than_the_mean(self):
        spoiled = np.append(ACCURACIES[:9], 0.1)
        assert abs(iqm_estimate(spoiled).value - iqm_estimate(ACCURACIES).value) < 0.003
        assert abs(mean_estimate(spoiled).value - mean_estimate(ACCURACIES).value) > 0.08

    @pytest.mark.parametrize("n", [5, 10, 20])
    @pytest.mark.parametrize("name", ["normal", "exponential", "accuracy"])
    def test_covers_the_population_value(self, monkeypatch, name, n):
        monkeypatch.setattr(intervals, "_RESAMPLES", 1000)
        draw = {
            "normal": lambda rng, size: rng.normal(size=size),
            "exponential": lambda rng, size: rng.exponential(size=size),
            "accuracy": lambda rng, size: rng.binomial(360, 0.985, size) / 360,
        }[name]
        truth = iqm_of_population(draw)
        rng, repeats = np.random.default_rng([n, len(name)]), 600
        hits = 0
        for seed in range(repeats):
            estimate = iqm_estimate(draw(rng, n), seed=seed)
            hits += estimate.low <= truth <= estimate.high
        assert 0.93 - 0.02 <= hits / repeats <= 0.99


def iqm_of_population(draw):
    x = np.sort(draw(np.random.default_rng(99), 400_000))
    return x[100_000:300_000].mean()


class TestOverTasks:
    TASKS = (np.array([0.1, 0.3, 0.2]), np.array([0.9, 0.8, 0.7]), np.array([0.4, 0.6, 0.5]))

    def test_values_by_hand(self):
        assert stratified_estimate(self.TASKS, "mean").value == pytest.approx(0.5)
        assert stratified_estimate(self.TASKS, "median").value == pytest.approx(0.5)
        assert stratified_estimate(self.TASKS, "iqm").value == pytest.approx(0.5)
        uneven = (np.array([0.0, 0.0, 0.0, 0.0]), np.array([1.0, 1.0]))
        assert stratified_estimate(uneven, "mean").value == pytest.approx(
            0.5
        )  # not 1/3: every task counts once
        assert stratified_estimate(uneven, "iqm").value == pytest.approx(0.5)

    def test_differences_between_tasks_are_no_uncertainty(self):
        """Shifting a whole task moves the mean and leaves the interval's width."""
        near = stratified_estimate(self.TASKS, "mean")
        far = stratified_estimate([self.TASKS[0], self.TASKS[1] + 100, self.TASKS[2]], "mean")
        assert far.high - far.low == pytest.approx(near.high - near.low, rel=1e-6)
        assert far.value == pytest.approx(near.value + 100 / 3)

    def test_freedom_and_factor_are_welchs_for_a_mean(self):
        a, b = np.random.default_rng(0).normal(size=6), 3 * np.random.default_rng(1).normal(size=9)
        freedom, narrow = intervals._spread_of_tasks([a, b], "mean")
        v = np.array([a.var(ddof=1) / 6, b.var(ddof=1) / 9])
        assert freedom == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df)
        assert narrow == pytest.approx(math.sqrt(v.sum() / (v * [5 / 6, 8 / 9]).sum()))

    @pytest.mark.parametrize("statistic", ["mean", "iqm", "median"])
    @pytest.mark.parametrize("name", ["normal", "lognormal", "accuracy"])
    def test_covers_where_the_plain_bootstrap_does_not(self, monkeypatch, name, statistic):
        monkeypatch.setattr(intervals, "_RESAMPLES", 1000)
        shift = np.array([[-1.0], [0.0], [1.5]])
        draw = {
            "normal": lambda rng, n: shift + rng.normal(size=(3, n)),
            "lognormal": lambda rng, n: shift + rng.lognormal(0, 0.5, (3, n)),
            "accuracy": lambda rng, n: np.stack([rng.binomial(360, p, n) / 360 for p in (0.9, 0.97, 0.99)]),
        }[name]
        truth = stratified_value(draw(np.random.default_rng(99), 200_000), statistic)
        rng, repeats, hits = np.random.default_rng(len(name)), 500, 0
        for seed in range(repeats):
            estimate = stratified_estimate(draw(rng, 5), statistic, seed=seed)
            hits += estimate.low <= truth <= estimate.high
        assert 0.92 - 0.02 <= hits / repeats <= 0.98

    def test_a_task_with_one_run_has_no_interval(self):
        estimate = stratified_estimate([[1.0, 2.0], [3.0]])
        assert not estimate.has_interval
        assert "one run" in estimate.method

    def test_tasks_without_spread_have_width_zero_and_ties_in_the_middle_do_not(self):
        assert stratified_estimate([[1.0, 1.0], [3.0, 3.0]], "mean").low == 2.0
        tied = iqm_estimate([1, 5, 5, 5, 5, 5, 5, 5, 5, 9.0])
        assert tied.low <= 5 <= tied.high

    def test_is_the_same_for_the_same_seed(self):
        tasks = np.random.default_rng(0).normal(size=(3, 10))
        assert stratified_estimate(tasks, seed=1) == stratified_estimate(tasks, seed=1)
        assert stratified_estimate(tasks, seed=1) != stratified_estimate(tasks, seed=2)

    def test_refuses_no_tasks_and_empty_ones(self):
        with pytest.raises(ValueError, match="no tasks"):
            stratified_estimate([])
        with pytest.raises(ValueError, match="at least one"):
            stratified_estimate([[1.0, 2.0], []])


def stratified_value(tasks, statistic):
    if statistic == "iqm":
        pooled = np.sort(tasks.ravel())
        return pooled[pooled.size // 4 : -(pooled.size // 4)].mean()
    means = tasks.mean(axis=1)
    return means.mean() if statistic == "mean" else np.median(means)
