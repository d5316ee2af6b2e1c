"""The best of k trials, the choice of the best, the share near it: brute force and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbi_lightning.comparison.statistics import expected_best, rank_trials, search, share_within, tuning_curve

SMALL_FLOATS = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


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
        monkeypatch.setattr(search, "_RESAMPLES", 1000)
        rng, n, repeats = np.random.default_rng(9), 16, 500
        k = np.arange(1, n + 1)
        truth = 1 - 0.01 / k  # the smallest of k exponential errors has mean 1/k
        hits = np.zeros(n)
        for seed in range(repeats):
            curve = tuning_curve(1 - 0.01 * rng.exponential(size=n), seed=seed)
            hits += (curve.low <= truth) & (truth <= curve.high)
        coverage = hits / repeats
        assert (coverage[: n // 4] > 0.91).all()
        assert (coverage[: n // 2] > 0.86).all()
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

    def test_interval_does_not_fall_with_the_resamples_best(self):
        """A resample repeats trials, so its best is too low; the interval is centred all the same."""
        x = np.random.default_rng(4).random(24)
        curve = tuning_curve(x)
        resamples = np.random.default_rng(5).choice(x, (4000, 24))
        k = 12
        drawn = np.array([expected_best(row)[k - 1] for row in resamples])
        assert drawn.mean() < curve.value[k - 1] - 0.005
        assert curve.high[k - 1] - curve.value[k - 1] > 0.3 * (curve.value[k - 1] - curve.low[k - 1])

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
