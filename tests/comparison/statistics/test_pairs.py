"""Paired tests, effect sizes and the probability of improvement: brute force, references, simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from bbi_lightning.comparison.statistics import (
    effect_size,
    holm,
    improvement_over_tasks,
    paired_difference,
    paired_effect,
    pairs,
    probability_of_improvement,
    sign_flip_test,
)
from bbi_lightning.comparison.statistics.noncentral import noncentral_t_cdf, noncentrality_interval

SMALL_FLOATS = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


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
        monkeypatch.setattr(pairs, "_EXACT_UP_TO", 8)
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


class TestNoncentral:
    @pytest.mark.parametrize("freedom", [1, 4, 9, 60])
    def test_agrees_with_scipy_where_scipy_has_a_value(self, freedom):
        for t, shift in itertools.product((-2.0, 0.0, 1.0, 4.0), (-1.0, 0.0, 2.0, 5.0)):
            reference = stats.nct.cdf(t, freedom, shift)
            assert float(noncentral_t_cdf(t, freedom, shift)) == pytest.approx(reference, abs=1e-8)

    def test_interval_puts_t_at_its_ends(self):
        low, high = noncentrality_interval(2.3, 9, 0.9)
        assert stats.nct.sf(2.3, 9, low) == pytest.approx(0.05, abs=1e-7)
        assert stats.nct.cdf(2.3, 9, high) == pytest.approx(0.05, abs=1e-7)

    def test_is_finite_and_mirrored_far_out(self):
        low, high = noncentrality_interval(1e6, 9, 0.95)
        assert 0 < low < 1e6 < high
        assert noncentrality_interval(-1e6, 9, 0.95) == pytest.approx((-high, -low), rel=1e-9)


class TestEffect:
    def test_interval_by_its_formula(self):
        """Algina and Keselman (2003): the noncentrality's limits times √(2 s_d²/(n (s₁² + s₂²)))."""
        rng = np.random.default_rng(1)
        a, b = rng.normal(0.8, 1, 12), rng.normal(0, 1.5, 12)
        t = stats.ttest_rel(a, b).statistic
        unit = math.sqrt(2 * (a - b).var(ddof=1) / (12 * (a.var(ddof=1) + b.var(ddof=1))))

        def limit(share):
            return optimize.brentq(lambda delta: stats.nct.cdf(t, 11, delta) - share, -10, 10) * unit

        estimate = effect_size(a, b)
        assert (estimate.low, estimate.high) == pytest.approx((limit(0.975), limit(0.025)), abs=1e-6)

    def test_unbiased_factor_is_hedges(self):
        # Hedges (1981): J(m) ≈ 1 − 3/(4m − 1); exact values of table 1
        assert pairs._unbiased(2) == pytest.approx(0.5642, abs=1e-4)
        assert pairs._unbiased(10) == pytest.approx(0.9228, abs=1e-4)
        assert pairs._unbiased(50) == pytest.approx(1 - 3 / 199, abs=1e-4)

    @pytest.mark.parametrize("tie", [0.0, 0.8])
    @pytest.mark.parametrize("truth", [0.0, 1.0, 2.0])
    def test_is_unbiased_and_covers_whatever_ties_the_pairs(self, tie, truth):
        rng, n, repeats = np.random.default_rng(2), 10, 1000
        values, hits = [], 0
        for _ in range(repeats):
            seed = rng.normal(scale=math.sqrt(tie), size=n)
            a, b = (seed + rng.normal(shift, math.sqrt(1 - tie), n) for shift in (truth, 0.0))
            estimate = effect_size(a, b)
            values.append(estimate.value)
            hits += estimate.low <= truth <= estimate.high
        assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / math.sqrt(repeats) + 0.02)
        assert 0.93 - 0.014 <= hits / repeats <= 0.99

    def test_covers_for_accuracies(self):
        rng, hits = np.random.default_rng(3), 0
        p, q = 0.993, 0.985
        truth = (p - q) / math.sqrt((p * (1 - p) + q * (1 - q)) / 2 / 360)
        for _ in range(1000):
            estimate = effect_size(rng.binomial(360, p, 10) / 360, rng.binomial(360, q, 10) / 360)
            hits += estimate.low <= truth <= estimate.high
        assert 0.93 - 0.014 <= hits / 1000 <= 0.99

    def test_is_free_of_units_and_changes_sign_with_the_order(self):
        rng = np.random.default_rng(4)
        a, b = rng.normal(1, 1, 9), rng.normal(size=9)
        first, scaled, turned = effect_size(a, b), effect_size(3 - 5 * a, 3 - 5 * b), effect_size(b, a)
        for other in (scaled, turned):
            assert other.value == pytest.approx(-first.value)
            assert (other.low, other.high) == pytest.approx((-first.high, -first.low))

    def test_the_paired_one_is_the_t_statistic_over_root_n(self):
        d = np.random.default_rng(5).normal(0.5, 1, 11)
        t = stats.ttest_1samp(d, 0).statistic
        assert paired_effect(d) == pytest.approx(t / math.sqrt(11) * pairs._unbiased(10))

    def test_edges(self):
        assert math.isnan(effect_size([1.0, 1.0, 1.0], [0.3, 0.3, 0.3]).value)
        constant = effect_size([1.1, 2.1, 3.1, 4.1], [1.0, 2.0, 3.0, 4.0])
        assert constant.value == pytest.approx(pairs._unbiased(3) * 0.1 / np.std([1, 2, 3, 4], ddof=1))
        assert not constant.has_interval
        assert "fewer than three" in effect_size([1.0, 2.0], [0.0, 3.0]).method
        assert math.isnan(paired_effect([0.1, 0.1, 0.1]))
        with pytest.raises(ValueError, match="2 values against 3"):
            effect_size([1, 2], [1, 2, 3])

    def test_comes_with_the_paired_difference(self):
        rng = np.random.default_rng(6)
        a, b = rng.normal(1, 1, 8), rng.normal(size=8)
        result = paired_difference(a, b)
        assert result.effect == effect_size(a, b)
        assert result.standardised == paired_effect(a - b)


class TestImprovement:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(SMALL_FLOATS, min_size=1, max_size=7), st.lists(SMALL_FLOATS, min_size=1, max_size=7))
    def test_counts_pairs(self, a, b):
        won = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
        assert probability_of_improvement(a, b).value == pytest.approx(np.mean(won))
        assert probability_of_improvement(a, b, direction="minimize").value == pytest.approx(1 - np.mean(won))

    def test_is_the_mann_whitney_statistic(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=9), rng.normal(size=7)
        assert probability_of_improvement(a, b).value == pytest.approx(
            stats.mannwhitneyu(a, b).statistic / 63
        )

    def test_interval_solves_newcombes_equation(self):
        a, b = np.arange(10.0), np.arange(10.0) - 2.5
        estimate = probability_of_improvement(a, b)
        for theta in (estimate.low, estimate.high):
            inner = 1 + 9 * ((1 - theta) / (2 - theta) + theta / (1 + theta))
            error = math.sqrt(theta * (1 - theta) * inner / 100)
            assert abs(estimate.value - theta) == pytest.approx(stats.norm.ppf(0.975) * error, rel=1e-6)

    def test_has_a_width_where_one_arm_always_wins(self):
        best = probability_of_improvement(np.arange(10) + 20.0, np.arange(10))
        assert best.value == best.high == 1.0
        assert 0.7 < best.low < 0.9
        worst = probability_of_improvement(np.arange(10), np.arange(10) + 20.0)
        assert worst.high == pytest.approx(1 - best.low)

    def test_rounding_to_float32_does_not_break_a_tie(self):
        a = np.array([0.98, 0.99])
        assert probability_of_improvement(a.astype(np.float32), a).value == 0.5

    @pytest.mark.parametrize("name", ["equal", "apart", "far", "spreads", "accuracy"])
    @pytest.mark.parametrize("n", [5, 10])
    def test_covers(self, name, n):
        draws = {
            "equal": (lambda rng, k: rng.normal(size=k), lambda rng, k: rng.normal(size=k)),
            "apart": (lambda rng, k: rng.normal(1, 1, k), lambda rng, k: rng.normal(size=k)),
            "far": (lambda rng, k: rng.normal(3, 1, k), lambda rng, k: rng.normal(size=k)),
            "spreads": (lambda rng, k: rng.normal(1, 1, k), lambda rng, k: rng.normal(0, 3, k)),
            "accuracy": (
                lambda rng, k: rng.binomial(360, 0.993, k),
                lambda rng, k: rng.binomial(360, 0.985, k),
            ),
        }[name]
        a, b = (draw(np.random.default_rng(9 + i), 300_000) for i, draw in enumerate(draws))
        truth = np.mean(a > b) + np.mean(a == b) / 2
        rng, hits, repeats = np.random.default_rng(1), 0, 800
        for _ in range(repeats):
            estimate = probability_of_improvement(*(draw(rng, n) for draw in draws))
            hits += estimate.low <= truth <= estimate.high
        assert 0.93 - 0.016 <= hits / repeats <= 0.97 + 0.014

    def test_over_tasks(self):
        rng = np.random.default_rng(2)
        a, b = rng.normal(0.5, 1, (4, 8)), rng.normal(size=(4, 8))
        each = [probability_of_improvement(x, y) for x, y in zip(a, b, strict=True)]
        together = improvement_over_tasks(list(a), list(b))
        assert together.value == pytest.approx(np.mean([e.value for e in each]))
        assert together.high - together.low < min(e.high - e.low for e in each)
        alone = improvement_over_tasks(a[:1], b[:1])
        assert (alone.low, alone.value, alone.high) == pytest.approx(
            (each[0].low, each[0].value, each[0].high)
        )

    def test_over_tasks_covers(self):
        rng, hits = np.random.default_rng(3), 0
        shift = np.array([[0.2], [1.0], [2.0]])
        truth = stats.norm.cdf(shift / math.sqrt(2)).mean()
        for _ in range(800):
            estimate = improvement_over_tasks(
                list(shift + rng.normal(size=(3, 8))), list(rng.normal(size=(3, 8)))
            )
            hits += estimate.low <= truth <= estimate.high
        assert 0.93 - 0.016 <= hits / 800 <= 0.97 + 0.014

    def test_edges(self):
        assert not probability_of_improvement([1.0], [0.0, 0.5]).has_interval
        with pytest.raises(ValueError, match="1 tasks against 2"):
            improvement_over_tasks([[1.0]], [[1.0], [2.0]])
        with pytest.raises(ValueError, match="0 tasks"):
            improvement_over_tasks([], [])
        with pytest.raises(ValueError, match="not finite"):
            probability_of_improvement([math.nan, 1.0], [0.0])
