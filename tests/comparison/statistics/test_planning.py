"""Seed plans against simulations of the test that they plan for, and a textbook's numbers."""

import math

import numpy as np
import pytest

from bbi_lightning.comparison.statistics import seeds_needed, sign_flip_test
from bbi_lightning.comparison.statistics.planning import detectable_effect, paired_power


@pytest.mark.parametrize(("effect", "n"), [(0.5, 34), (0.8, 15), (0.2, 199), (0.3, 90)])
def test_agrees_with_published_sample_sizes(effect, n):
    """Pairs for a two-sided t test at 5 % with a power of 80 % (G*Power's "difference from constant")."""
    assert paired_power(effect, n, 0.05) >= 0.8 > paired_power(effect, n - 1, 0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize(("effect", "n"), [(0.8, 8), (0.8, 18), (1.5, 10), (0.4, 25)])
def test_is_the_power_of_the_sign_flip_test(effect, n, alpha):
    rng = np.random.default_rng(n)
    found = [sign_flip_test(rng.normal(effect, 1, n), draws=2000)[0] <= alpha for _ in range(600)]
    assert paired_power(effect, n, alpha) == pytest.approx(np.mean(found), abs=0.03 + 0.04)


def test_too_few_pairs_have_no_power_however_large_the_difference():
    assert paired_power(100.0, 5, 0.05) == 0  # 2/2⁵ = 0.0625
    assert paired_power(100.0, 6, 0.05) > 0.99
    assert paired_power(100.0, 7, 0.01) == 0
    assert detectable_effect(5, 0.05, 0.8) == math.inf


def test_the_detectable_effect_has_the_power_asked_for():
    assert paired_power(detectable_effect(12, 0.01, 0.9), 12, 0.01) == pytest.approx(0.9, abs=1e-6)


def test_plan_is_made_of_these():
    d = np.random.default_rng(0).normal(0.6, 1, 10)
    plan = seeds_needed(d, alpha=0.01)
    effect = d.mean() / d.std(ddof=1)
    assert plan.power_now == pytest.approx(paired_power(effect, 10, 0.01))
    assert paired_power(effect, plan.n, 0.01) >= 0.8 > paired_power(effect, plan.n - 1, 0.01)
    assert plan.more == plan.n - 10
    assert plan.detectable == pytest.approx(detectable_effect(10, 0.01, 0.8) * d.std(ddof=1))
    assert plan.fewest <= plan.n
    assert plan.most is None or plan.most >= plan.n
    assert (plan.difference, plan.spread) == pytest.approx((d.mean(), d.std(ddof=1)))


def test_is_free_of_units_and_sign():
    d = np.random.default_rng(1).normal(1, 1, 12)
    first, other = seeds_needed(d), seeds_needed(-100 * d)
    assert (first.n, first.fewest, first.most) == (other.n, other.fewest, other.most)
    assert other.detectable == pytest.approx(100 * first.detectable)


def test_a_difference_that_is_too_small_asks_for_no_number():
    d = np.array([-1.0, 1.0] * 5) + 0.001
    plan = seeds_needed(d)
    assert plan.n is None
    assert plan.most is None
    assert plan.more is None
    assert plan.fewest is not None


def test_enough_pairs_need_no_more():
    assert seeds_needed(np.random.default_rng(2).normal(5, 1, 12)).more == 0


def test_range_holds_the_number_that_the_true_effect_needs():
    rng, hits, repeats = np.random.default_rng(3), 0, 200
    truth = 1.0
    needed = next(n for n in range(2, 100) if paired_power(truth, n, 0.05) >= 0.8)
    for _ in range(repeats):
        plan = seeds_needed(rng.normal(truth, 1, 10))
        hits += plan.fewest <= needed and (plan.most is None or needed <= plan.most)
    assert 0.74 <= hits / repeats <= 0.93  # 80 %, more since n is a whole number


@pytest.mark.parametrize("differences", [[1.0], [1.0, 2.0], [0.5, 0.5, 0.5]])
def test_nothing_can_be_planned_from_too_little(differences):
    assert seeds_needed(differences) is None


def test_refuses():
    with pytest.raises(ValueError, match="alpha=0"):
        seeds_needed([1, 2, 3], alpha=0)
    with pytest.raises(ValueError, match="at least one"):
        seeds_needed([])
