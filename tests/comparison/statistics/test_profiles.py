"""Profiles over tasks: by hand, against binomial intervals, and in simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from bbi_lightning.comparison.statistics import dolan_more, performance_profile


class TestPerformanceProfile:
    def test_counts_runs_at_least_so_good_and_averages_tasks(self):
        profile = performance_profile({"a": [[0.2, 0.4, 0.6, 0.8], [0.5, 0.5]]}, [0.0, 0.5, 0.7, 0.9])
        assert profile.arms == ("a",)
        assert profile.share.tolist() == [[1.0, 0.75, 0.125, 0.0]]  # (½ + 1)/2, (¼ + 0)/2

    def test_one_task_has_wilsons_interval(self):
        x = np.arange(10) / 10
        profile = performance_profile({"a": [x]}, [0.25, 0.75])
        for column, count in ((0, 7), (1, 2)):
            reference = stats.binomtest(count, 10).proportion_ci(method="wilson")
            limits = (profile.low[0, column], profile.high[0, column])
            assert limits == pytest.approx((reference.low, reference.high))

    def test_smaller_can_be_better(self):
        losses = {"a": [[0.1, 0.3]], "b": [[0.2, math.inf]]}
        profile = performance_profile(losses, [0.05, 0.2, 0.4], direction="minimize")
        assert profile.share.tolist() == [[0.0, 0.5, 1.0], [0.0, 0.5, 0.5]]

    def test_a_threshold_met_in_float32_is_met(self):
        assert performance_profile({"a": [np.array([0.9], dtype=np.float32)]}, [0.9]).share[0, 0] == 1

    def test_a_run_that_diverged_never_counts(self):
        assert performance_profile({"a": [[-math.inf, 1.0]]}, [-1e9]).share[0, 0] == 0.5

    @pytest.mark.parametrize("tasks", [1, 4])
    def test_covers_in_the_middle(self, tasks):
        rng, tau = np.random.default_rng(tasks), np.array([-0.5, 0.0, 0.5])
        shift = np.linspace(-0.3, 0.4, tasks)[:, None]
        truth, hits, repeats = stats.norm.sf(tau - shift).mean(axis=0), 0, 1000
        for _ in range(repeats):
            profile = performance_profile({"a": list(shift + rng.normal(size=(tasks, 10)))}, tau)
            hits = hits + ((profile.low[0] <= truth) & (truth <= profile.high[0]))
        assert (hits / repeats > 0.92).all()
        assert (hits / repeats < 0.985).all()

    @pytest.mark.parametrize("scores", [{}, {"a": []}, {"a": [[]]}, {"a": [[math.nan]]}])
    def test_refuses(self, scores):
        with pytest.raises(ValueError, match="at least one"):
            performance_profile(scores, [0.5])


class TestDolanMore:
    def test_by_hand(self):
        """Ratios: a 1, 2, never, 1; b 3, 1, never, never."""
        costs = {"a": [10, 20, math.inf, 5], "b": [30, 10, math.inf, math.inf]}
        profile = dolan_more(costs, [1, 2, 3, 100])
        assert profile.share.tolist() == [[0.5, 0.75, 0.75, 0.75], [0.25, 0.25, 0.5, 0.5]]
        assert np.isnan(profile.low).all()

    def test_at_one_it_is_the_share_of_tasks_won_and_far_out_of_tasks_solved(self):
        rng = np.random.default_rng(0)
        table = rng.exponential(size=(3, 40)) + 0.1
        table[rng.random((3, 40)) < 0.2] = np.inf
        profile = dolan_more(dict(zip("abc", table, strict=True)), [1.0, 1e9])
        solved = np.isfinite(table)
        won = (table == table.min(axis=0)) & solved
        assert profile.share[:, 0] == pytest.approx(won.mean(axis=1))
        assert profile.share[:, 1] == pytest.approx(solved.mean(axis=1))

    @pytest.mark.parametrize(
        ("costs", "ratios", "message"),
        [
            ({}, [1], "same tasks"),
            ({"a": [1], "b": [1, 2]}, [1], "same tasks"),
            ({"a": [0.0]}, [1], "positive"),
            ({"a": [math.nan]}, [1], "positive"),
            ({"a": [1.0]}, [0.5], "from 1"),
        ],
    )
    def test_refuses(self, costs, ratios, message):
        with pytest.raises(ValueError, match=message):
            dolan_more(costs, ratios)
