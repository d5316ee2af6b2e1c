"""Each estimator against a reference, brute force, or a simulation of what it promises."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bbi_lightning.comparison import statistics
from bbi_lightning.comparison.statistics import (
    expected_best,
    holm,
    mean_estimate,
    median_estimate,
    paired_difference,
    rank_trials,
    share_within,
    sign_flip_test,
    tuning_curve,
)

ACCURACIES = np.array([354, 351, 355, 350, 353, 356, 352, 354, 357, 349]) / 360
EXPERIMENTS = {  # name: (n replicates of it, their true mean)
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "accuracy": (lambda rng, n: rng.binomial(360, 0.985, n) / 360, 0.985),
    "difference": (lambda rng, n: (rng.binomial(360, 0.993, n) - rng.binomial(360, 0.985, n)) / 360, 0.008),
}
SMALL_FLOATS = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


class TestMean:
    def test_is_scipys_bca_at_the_expanded_level(self):
        n = ACCURACIES.size
        t = stats.t.ppf(0.975, n - 1)
        level = 1 - 2 * stats.norm.cdf(-t * math.sqrt(n / (n - 1)))
        rng = np.random.default_rng(9)
        reference = stats.bootstrap(
            (ACCURACIES,), np.mean, n_resamples=200_000, confidence_level=level, method="BCa", rng=rng
        ).confidence_interval
        estimate = mean_estimate(ACCURACIES)
        assert estimate.value == pytest.approx(ACCURACIES.mean(), abs=1e-15)
        assert estimate.low == pytest.approx(reference.low, abs=4e-4)
        assert estimate.high == pytest.approx(reference.high, abs=4e-4)
        assert "BCa" in estimate.method

    def test_is_students_interval_below_eight_values(self):
        x = ACCURACIES[:5]
        low, high = stats.t.interval(0.95, 4, loc=x.mean(), scale=stats.sem(x))
        estimate = mean_estimate(x)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-12)
        assert estimate.method == "Student's t"

    @pytest.mark.parametrize("name", EXPERIMENTS)
    @pytest.mark.parametrize("n", [5, 10, 20])
    def test_covers_the_truth_as_often_as_it_says(self, monkeypatch, name, n):
        draw, mean = EXPERIMENTS[name]
        monkeypatch.setattr(statistics, "_RESAMPLES", 1500)
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
        assert (moved.low, moved.high) == pytest.approx((5 - 2 * first.high, 5 - 2 * first.low), abs=5e-3)

    def test_equal_values_give_width_zero_and_one_value_no_interval(self):
        same = mean_estimate([0.1 + 0.2, 0.3, 0.3])
        assert same.low == same.value == same.high
        one = mean_estimate([0.9])
        assert not one.has_interval
        assert not one.excludes(0.0)

    def test_falls_back_to_percentiles_where_bca_is_undefined(self, monkeypatch):
        def only_percentile(data, statistic, *, method, **rest):
            if method == "BCa":
                return type("R", (), {"confidence_interval": (math.nan, math.nan)})
            return real(data, statistic, method=method, **rest)

        real = stats.bootstrap
        monkeypatch.setattr(stats, "bootstrap", only_percentile)
        estimate = mean_estimate(ACCURACIES)
        assert estimate.has_interval
        assert "percentile" in estimate.method

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


class TestPairs:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(SMALL_FLOATS, min_size=1, max_size=9))
    def test_p_is_the_share_of_all_sign_patterns(self, differences):
        d = np.array(differences)
        sums = [abs(np.dot(signs, d)) for signs in itertools.product([1, -1], repeat=d.size)]
        expected = np.mean([total >= abs(d.sum()) - 1e-9 for total in sums])
        p, smallest = sign_flip_test(d)
        assert p == pytest.approx(expected, abs=1e-12)
        assert smallest == 2 / 2**d.size
        assert p >= smallest

    def test_agrees_with_scipy(self):
        rng = np.random.default_rng(4)
        a, b = rng.normal(0.4, 1, 11), rng.normal(0, 1, 11)
        reference = stats.permutation_test(
            (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_test(a - b)[0] == pytest.approx(reference.pvalue, abs=4 / 2**11)  # near ties count

    def test_accuracies_in_float32_give_the_p_value_of_the_counts_themselves(self):
        """Equal sums of differences must stay equal when the accuracies were rounded on their way here."""
        rng = np.random.default_rng(3)
        for _ in range(50):
            a, b = rng.binomial(360, 0.99, 10), rng.binomial(360, 0.985, 10)
            rounded = [(x.astype(np.float32) / np.float32(360)).astype(float) for x in (a, b)]
            assert sign_flip_test(rounded[0] - rounded[1])[0] == sign_flip_test(a - b)[0]

    def test_drawn_patterns_agree_with_all_of_them(self, monkeypatch):
        d = np.random.default_rng(5).normal(0.35, 1, 16)
        exact, _ = sign_flip_test(d)
        monkeypatch.setattr(statistics, "_EXACT_UP_TO", 8)
        drawn, smallest = sign_flip_test(d, seed=1)
        assert drawn == pytest.approx(exact, abs=0.004)
        assert smallest == pytest.approx(1e-5, rel=0.01)

    def test_rejects_five_per_cent_when_nothing_differs(self):
        rng = np.random.default_rng(6)
        p = np.array([sign_flip_test(rng.normal(size=8))[0] for _ in range(3000)])
        assert np.mean(p <= 0.05) == pytest.approx(0.047, abs=0.012)  # 12/256: the attainable level below 5 %

    def test_a_shift_shared_by_both_arms_cancels(self):
        rng = np.random.default_rng(7)
        seeds = rng.normal(scale=10, size=10)
        noise = rng.normal(scale=0.01, size=10)
        result = paired_difference(seeds + 0.1 + noise, seeds)
        assert result.difference.excludes(0.0)
        assert result.difference.value == pytest.approx(0.1, abs=0.01)
        assert result.p_value == result.smallest_p

    def test_needs_pairs(self):
        with pytest.raises(ValueError, match="2 values against 3"):
            paired_difference([1, 2], [1, 2, 3])


class TestHolm:
    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
    def test_is_the_closed_test_of_bonferroni(self, p):
        """Holm rejects i exactly when Bonferroni rejects every intersection that contains i."""
        expected = [
            max(
                min(1.0, len(subset) * min(p[j] for j in subset))
                for size in range(1, len(p) + 1)
                for subset in itertools.combinations(range(len(p)), size)
                if i in subset
            )
            for i in range(len(p))
        ]
        assert holm(p) == pytest.approx(expected)

    def test_textbook_example(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_edges(self):
        assert holm([]).size == 0
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            holm([0.2, 1.2])
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            holm([math.nan])


class TestBestOfK:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(SMALL_FLOATS, min_size=1, max_size=8))
    def test_is_the_mean_over_all_subsets(self, values):
        for direction, best in (("maximize", max), ("minimize", min)):
            expected = [
                np.mean([best(subset) for subset in itertools.combinations(values, k)])
                for k in range(1, len(values) + 1)
            ]
            assert expected_best(values, direction) == pytest.approx(expected, abs=1e-12)

    def test_is_unbiased(self):
        """The expected best of k uniform numbers is k/(k + 1)."""
        rng = np.random.default_rng(8)
        curves = np.array([expected_best(rng.random(12)) for _ in range(8000)])
        k = np.arange(1, 13)
        error = 4 * curves.std(axis=0) / math.sqrt(8000)
        assert (np.abs(curves.mean(axis=0) - k / (k + 1)) < error).all()

    def test_holds_for_a_thousand_trials(self):
        x = np.random.default_rng(0).random(1000)
        curve = expected_best(x)
        assert curve[0] == pytest.approx(x.mean())
        assert curve[-1] == x.max()
        assert (np.diff(curve) >= -1e-12).all()

    def test_interval_covers_what_it_says_up_to_half_of_the_trials(self, monkeypatch):
        monkeypatch.setattr(statistics, "_RESAMPLES", 1000)
        rng, n, repeats = np.random.default_rng(9), 16, 500
        k = np.arange(1, n + 1)
        truth = 1 - 0.01 / k  # the smallest of k exponential errors has mean 1/k
        hits = np.zeros(n)
        for seed in range(repeats):
            curve = tuning_curve(1 - 0.01 * rng.exponential(size=n), seed=seed)
            hits += (curve.low <= truth) & (truth <= curve.high)
        coverage = hits / repeats
        assert (coverage[: n // 4] > 0.91).all()
        assert (coverage[: n // 2] > 0.80).all()
        assert (coverage[n // 2 :] == 0).all()  # no interval there

    def test_curve_holds_its_own_interval_and_mirrors(self):
        x = np.random.default_rng(1).random(20)
        up, down = tuning_curve(x, seed=2), tuning_curve(-x, "minimize", seed=2)
        shown = slice(0, 10)
        assert (up.low[shown] <= up.value[shown]).all()
        assert (up.value[shown] <= up.high[shown]).all()
        assert down.value == pytest.approx(-up.value)
        assert down.low[shown] == pytest.approx(-up.high[shown])
        assert tuning_curve(x, seed=2).low[shown] == pytest.approx(up.low[shown])

    def test_one_trial(self):
        curve = tuning_curve([0.9])
        assert curve.value.tolist() == [0.9]
        assert np.isnan(curve.low).all()


class TestChoice:
    def test_ties_go_to_the_tie_breaker_then_to_the_earlier(self):
        values = [0.98, 0.99, 0.99, 0.99, math.nan]
        assert rank_trials(values, "maximize", [0.1, 0.3, 0.2, 0.2, 0.0], "minimize") == [2, 3, 1, 0]
        assert rank_trials(values) == [1, 2, 3, 0]

    def test_minimize_and_a_tie_breaker_that_is_maximized(self):
        assert rank_trials([1.0, 0.5, 0.5], "minimize", [0, 0.1, 0.2], "maximize") == [2, 1, 0]

    def test_a_missing_tie_breaker_loses_the_tie(self):
        assert rank_trials([0.9, 0.9], "maximize", [math.nan, 5.0]) == [1, 0]

    def test_nothing_to_rank(self):
        assert rank_trials([]) == []
        assert rank_trials([math.nan, math.inf]) == []

    def test_share_near_the_best(self):
        assert share_within([0.99, 0.98, 0.97, math.nan], 0.01) == 0.5
        assert share_within([2.0, 2.1, 5.0], 0.5, "minimize") == pytest.approx(2 / 3)
        assert math.isnan(share_within([math.nan], 0.1))
