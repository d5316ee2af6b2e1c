"""Survival curves against published numbers, brute force and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bbi_lightning.comparison.statistics import first_passage, kaplan_meier, log_rank, restricted_mean

# Weeks of remission on 6-MP and placebo: Freireich et al. (1963), Blood 21
TREATED = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
RELAPSED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
# time: at risk, survival, log-log limits (lifelines 0.30.3; Stata's `sts list` prints the same)
PUBLISHED = {
    6: (21, 0.857143, 0.619718, 0.951552),
    7: (17, 0.806723, 0.563147, 0.922809),
    10: (15, 0.752941, 0.503200, 0.889362),
    13: (12, 0.690196, 0.431610, 0.849066),
    16: (11, 0.627451, 0.367511, 0.804912),
    22: (7, 0.537815, 0.267779, 0.746791),
    23: (6, 0.448179, 0.188052, 0.680143),
}


@pytest.fixture
def treated():
    return kaplan_meier(TREATED, RELAPSED)


@pytest.fixture
def placebo():
    return kaplan_meier(PLACEBO, [True] * 21)


class TestKaplanMeier:
    @pytest.mark.parametrize("time", PUBLISHED)
    def test_published_example(self, treated, time):
        at = int(np.flatnonzero(treated.time == time)[0])
        row = (treated.at_risk[at], treated.survival[at], treated.low[at], treated.high[at])
        assert row == pytest.approx(PUBLISHED[time], abs=1e-6)

    def test_published_medians(self, treated, placebo):
        assert (treated.median.value, treated.median.low, treated.median.high) == (23, 13, math.inf)
        assert (placebo.median.value, placebo.median.low, placebo.median.high) == (8, 4, 11)
        assert not treated.median.has_interval
        assert (treated.n, treated.censored, placebo.censored) == (21, 12, 0)

    def test_without_censoring_it_is_the_share_still_running(self):
        t = np.random.default_rng(0).exponential(size=12)
        survival = kaplan_meier(t, np.ones(12))
        assert survival.survival == pytest.approx([np.mean(t > u) for u in survival.time])

    def test_starts_at_time_zero_and_counts_every_run(self, treated):
        assert (treated.time[0], treated.survival[0], treated.at_risk[0]) == (0, 1, 21)
        assert treated.reached_at.sum() == 9
        assert treated.censored_at.sum() == 12

    def test_where_nobody_is_there_yet_the_limit_is_that_of_a_share(self):
        survival = kaplan_meier([3, 4, 5, 6, 7, 8, 9, 10, 10, 10], [1] * 7 + [0] * 3)
        assert survival.high[0] == 1
        # with nobody of ten there, a share p of runs still on their way has p¹⁰ = 2.5 %
        assert survival.low[0] ** 10 == pytest.approx(0.025)

    def test_when_all_are_there_the_upper_limit_stays(self, placebo):
        assert placebo.survival[-1] == placebo.low[-1] == 0
        assert placebo.high[-1] == placebo.high[-2] > 0

    def test_nobody_and_everybody_at_once(self):
        never = kaplan_meier([10, 10, 10], [0, 0, 0])
        assert (never.survival == 1).all()
        assert math.isnan(never.median.value)
        assert never.median.high == math.inf
        at_once = kaplan_meier([0, 0, 0], [1, 1, 1])
        assert at_once.time.tolist() == [0]
        assert (at_once.survival[0], at_once.low[0], at_once.high[0], at_once.median.value) == (0, 0, 1, 0)

    def test_limits_hold_the_curve_and_stay_in_range(self):
        rng = np.random.default_rng(1)
        for _ in range(200):
            n = rng.integers(1, 12)
            curve = kaplan_meier(rng.integers(0, 8, n), rng.random(n) < 0.7)
            assert (curve.low <= curve.survival + 1e-12).all()
            assert (curve.survival <= curve.high + 1e-12).all()
            assert (curve.low >= 0).all()
            assert (curve.high <= 1).all()
            assert (np.diff(curve.survival) <= 0).all()

    def test_covers_along_the_curve_and_at_the_median(self):
        rng, repeats = np.random.default_rng(2), 1500
        shares = np.array(
            [0.1, 0.2, 0.3, 0.5, 0.65]
        )  # that have arrived; the first hardly ever has in the sample
        inside, median = np.zeros(5), 0
        for _ in range(repeats):
            t = rng.exponential(size=10)
            curve = kaplan_meier(np.minimum(t, 1.2), t <= 1.2)
            at = np.searchsorted(curve.time, -np.log(1 - shares), side="right") - 1
            inside += (curve.low[at] <= 1 - shares) & (1 - shares <= curve.high[at])
            median += curve.median.low <= math.log(2) <= curve.median.high
        assert (inside / repeats > 0.91).all()
        assert 0.93 - 0.012 <= median / repeats <= 0.98

    @pytest.mark.parametrize(
        ("durations", "reached", "message"),
        [
            ([], [], "at least one"),
            ([1.0, 2.0], [True], "2 durations for 1"),
            ([-1.0], [True], "not negative"),
        ],
    )
    def test_refuses(self, durations, reached, message):
        with pytest.raises(ValueError, match=message):
            kaplan_meier(durations, reached)


class TestRestrictedMean:
    def test_published_example(self, treated):
        # lifelines 0.30.3, restricted_mean_survival_time(…, t=20)
        assert restricted_mean(treated, 20).value == pytest.approx(16.116526610644254)

    def test_variance_by_the_textbook(self, treated):
        """Σ (area beyond tᵢ)² dᵢ/(nᵢ(nᵢ − dᵢ)), with m/(m − 1) for m passages."""
        edges = [0, 6, 7, 10, 13, 16, 20]
        share = [1, 0.857143, 0.806723, 0.752941, 0.690196, 0.627451]
        areas = [s * (b - a) for s, a, b in zip(share, edges[:-1], edges[1:], strict=True)]
        counts = [(3, 21), (1, 17), (1, 15), (1, 12), (1, 11)]
        variance = (
            sum(sum(areas[i + 1 :]) ** 2 * d / (n * (n - d)) for i, (d, n) in enumerate(counts)) * 7 / 6
        )
        estimate = restricted_mean(treated, 20)
        half = stats.t.ppf(0.975, 6) * math.sqrt(variance)
        assert estimate.high - estimate.value == pytest.approx(half, rel=1e-4)

    def test_is_students_interval_without_censoring(self):
        t = np.random.default_rng(0).normal(10, 1, 12)
        low, high = stats.t.interval(0.95, 11, loc=t.mean(), scale=stats.sem(t))
        estimate = restricted_mean(kaplan_meier(t, np.ones(12)), 100)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((t.mean(), low, high))

    def test_is_the_mean_of_the_times_cut_at_the_horizon(self):
        t = np.random.default_rng(1).exponential(size=15)
        curve = kaplan_meier(np.minimum(t, 1.0), t <= 1.0)
        assert restricted_mean(curve, 0.8).value == pytest.approx(np.minimum(t, 0.8).mean())

    @pytest.mark.parametrize("share", [0.99, 0.7, 0.4])
    def test_covers(self, share):
        times = stats.gamma(9)
        budget = times.ppf(share)
        grid = np.linspace(0, budget, 4001)
        truth = np.trapezoid(times.sf(grid), grid)
        rng, hits, given_ = np.random.default_rng(2), 0, 0
        for _ in range(1000):
            t = times.ppf(rng.random(10))
            estimate = restricted_mean(kaplan_meier(np.minimum(t, budget), t <= budget), budget)
            given_ += estimate.has_interval
            hits += estimate.low <= truth <= estimate.high
        assert given_ > 900
        assert 0.93 - 0.014 <= hits / given_ <= 0.99

    def test_edges(self):
        never = restricted_mean(kaplan_meier([10, 10], [0, 0]), 10)
        assert never.value == 10
        assert not never.has_interval
        with pytest.raises(ValueError, match="horizon=0"):
            restricted_mean(kaplan_meier([1], [1]), 0)


class TestLogRank:
    def test_published_chi_square(self, treated, placebo):
        p = log_rank(treated, placebo, draws=0)
        assert stats.chi2.isf(p, 1) == pytest.approx(16.792940989216547)  # 16.79 in the textbooks
        assert log_rank(placebo, treated, draws=0) == pytest.approx(p)

    def test_permutation_agrees_with_all_exchanges(self):
        rng = np.random.default_rng(3)
        t, there = rng.integers(1, 9, 8), rng.random(8) < 0.8
        hazard = np.array(
            [
                sum(np.sum(there & (t == u)) / np.sum(t >= u) for u in np.unique(t[there]) if u <= own)
                for own in t
            ]
        )
        score = there - hazard
        sums = [abs(score[list(chosen)].sum()) for chosen in itertools.combinations(range(8), 4)]
        expected = np.mean(np.array(sums) >= abs(score[:4].sum()) - 1e-9)
        p = log_rank(kaplan_meier(t[:4], there[:4]), kaplan_meier(t[4:], there[4:]))
        assert p == pytest.approx(expected, abs=0.015)

    def test_rejects_five_per_cent_when_nothing_differs(self):
        rng = np.random.default_rng(4)
        p = []
        for _ in range(800):
            a, b = rng.exponential(size=(2, 8))
            p.append(
                log_rank(
                    *(kaplan_meier(np.minimum(t, 1.5), t <= 1.5) for t in (a, b)), draws=500, seed=len(p)
                )
            )
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.016)

    def test_never_is_zero_and_is_nan_where_nobody_gets_there(self):
        fast, slow = kaplan_meier(np.arange(1, 11), [1] * 10), kaplan_meier(np.arange(101, 111), [1] * 10)
        assert 0 < log_rank(fast, slow) < 0.001
        never = kaplan_meier([5, 5], [0, 0])
        assert math.isnan(log_rank(never, never))


class TestFirstPassage:
    X = (10, 20, 30, 40)

    def test_first_and_sustained(self):
        loss = [0.9, 0.4, 0.6, 0.3]
        assert first_passage(self.X, loss, 0.5) == (20, True)
        assert first_passage(self.X, loss, 0.5, sustained=True) == (40, True)
        assert first_passage(self.X, loss, 0.2) == (40, False)
        assert first_passage(self.X, loss, 0.35, "maximize") == (10, True)
        assert first_passage(self.X, [0.1, 0.1, 0.1, 0.9], 0.5, sustained=True) == (40, False)

    def test_reaching_exactly_counts_in_float32_too(self):
        accuracy = np.array([0.5, 0.9, 0.98, 0.97], dtype=np.float32)
        assert float(accuracy[1]) < 0.9
        assert first_passage(self.X, accuracy, 0.9, "maximize") == (20, True)

    def test_what_is_not_finite_has_not_reached_anything(self):
        assert first_passage(self.X, [math.nan, -math.inf, 0.1, 0.1], 0.5) == (30, True)
        assert first_passage(self.X, [0.1, 0.1, 0.1, math.nan], 0.5, sustained=True) == (40, False)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(-1, 1))
    def test_sustained_is_never_earlier_and_directions_mirror(self, values, target):
        x = np.arange(len(values))
        first, later = first_passage(x, values, target), first_passage(x, values, target, sustained=True)
        assert later[0] >= first[0]
        assert first[1] or not later[1]
        assert first_passage(x, np.negative(values), -target, "maximize") == first

    def test_refuses(self):
        with pytest.raises(ValueError, match="2 positions for 1"):
            first_passage([1, 2], [1], 0.5)
        with pytest.raises(ValueError, match="target=nan"):
            first_passage([1], [1], math.nan)
