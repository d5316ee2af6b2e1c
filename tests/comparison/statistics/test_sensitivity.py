"""Shares of variance against brute force over a grid, closed forms, and another implementation."""

import itertools
import math

import numpy as np
import optuna
import pytest
from scipy.stats import qmc

from bbi_lightning.comparison.statistics import functional_anova
from bbi_lightning.comparison.statistics.sensitivity import _shares, _Tree


def additive(x):
    """Main shares of sin(πu) + v/2: variances ½ − 4/π² and 1/48."""
    return np.sin(np.pi * x[:, 0]) + x[:, 1] / 2


ADDITIVE = np.array([0.5 - 4 / np.pi**2, 1 / 48, 0.0]) / (0.5 - 4 / np.pi**2 + 1 / 48)


class TestDecomposition:
    def test_is_that_of_the_trees_function_over_a_grid(self):
        """With splits on the cells' edges mains and pairs are exact: compare with sums over all cells."""
        cells, choices = 8, np.array([8, 8, 8])
        points = (np.array(list(itertools.product(range(cells), repeat=3))) + 0.5) / cells
        rng = np.random.default_rng(0)
        rows = rng.choice(len(points), 60, replace=False)
        x, y = points[rows], rng.normal(size=60)
        trees = [_Tree(x, y, np.ones(60), rng) for _ in range(5)]
        main, pairs, total = _shares(trees, points, choices)

        f = np.mean([t.model.predict(points) for t in trees], axis=0).reshape(cells, cells, cells)
        f = f - f.mean()
        assert total == pytest.approx(f.var())
        for j in range(3):
            others = tuple(k for k in range(3) if k != j)
            assert main[j] == pytest.approx(f.mean(axis=others).var() / f.var(), abs=1e-9)
        for j, k in itertools.combinations(range(3), 2):
            other = ({0, 1, 2} - {j, k}).pop()
            joint = f.mean(axis=other).var() / f.var() - main[j] - main[k]
            assert pairs[j, k] == pairs[k, j] == pytest.approx(joint, abs=1e-9)

    def test_leaves_of_a_tree_fill_the_cube_once(self):
        rng = np.random.default_rng(1)
        x = rng.random((40, 3))
        tree = _Tree(x, rng.normal(size=40), np.ones(40), rng)
        assert (tree.high - tree.low).prod(axis=1).sum() == pytest.approx(1)
        for point, predicted in zip(x, tree.model.predict(x), strict=True):
            inside = ((tree.low < point) & (point <= tree.high)).all(axis=1)
            assert tree.value[inside].tolist() == [predicted]


class TestShares:
    @pytest.mark.parametrize(("n", "within"), [(32, 0.25), (128, 0.1)])
    def test_closed_form_of_a_sum(self, n, within):
        x = qmc.Halton(3, seed=0).random(n)
        result = functional_anova(x, additive(x), ["lr", "momentum", "decay"])
        assert result.main == pytest.approx(ADDITIVE, abs=within)
        assert result.main / result.main.sum() == pytest.approx(ADDITIVE, abs=0.05)
        assert (result.main <= ADDITIVE + 0.03).all()
        assert result.trustworthy
        assert (result.low <= ADDITIVE + 0.01).all()
        assert (result.high >= ADDITIVE - 0.01).all()

    def test_closed_form_of_an_interaction(self):
        """(u − ½)(v − ½) has no mains: all of its variance is the pair's."""
        x = qmc.Halton(2, seed=0).random(256)
        result = functional_anova(x, (x[:, 0] - 0.5) * (x[:, 1] - 0.5), ["u", "v"])
        assert result.pairs[0, 1] > 0.75
        assert result.main.sum() < 0.1

    def test_an_interaction_that_the_forest_smooths_away_is_not_given_to_the_others(self):
        """4(u − ½)(v − ½) + w/2 with noise in a fourth: variances 1/9 and 1/48, so w has a share of 0.16."""
        x = qmc.Halton(4, seed=0).random(96)
        y = 4 * (x[:, 0] - 0.5) * (x[:, 1] - 0.5) + x[:, 2] / 2
        result = functional_anova(x, y, list("uvwz"))
        assert result.main[2] == pytest.approx(0.158, abs=0.06)
        assert result.low[2] <= 0.158 <= result.high[2]
        assert result.unexplained > 0.3

    def test_choices(self):
        """A choice of 0, 1, 4 plus v/2: variances 26/9 and 1/48."""
        rng = np.random.default_rng(1)
        choice, v = rng.integers(0, 3, 60), rng.random(60)
        y = np.array([0.0, 1.0, 4.0])[choice] + v / 2
        result = functional_anova(np.column_stack([choice, v]), y, ["schedule", "v"], levels=[3, 0])
        assert result.main[0] == pytest.approx(26 / 9 / (26 / 9 + 1 / 48), abs=0.02)

    def test_ranks_parameters_as_optuna_does(self):
        x = np.random.default_rng(2).random((80, 3))
        y = 4 * (x[:, 0] - 0.5) ** 2 + 0.3 * x[:, 1]
        space = {name: optuna.distributions.FloatDistribution(0, 1) for name in "abc"}
        study = optuna.create_study()
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=dict(zip("abc", map(float, row), strict=True)), distributions=space, value=float(v)
                )
                for row, v in zip(x, y, strict=True)
            ]
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        reference = optuna.importance.get_param_importances(study, evaluator=evaluator)
        result = functional_anova(x, y, list("abc"))
        assert [result.names[i] for i in np.argsort(-result.main)] == list(reference)
        truth = np.array([16 / 180, 0.09 / 12, 0])
        ours = result.main / result.main.sum()  # optuna's are made to sum to one
        assert ours == pytest.approx(truth / truth.sum(), abs=0.05)
        assert [reference[name] for name in "abc"] == pytest.approx(truth / truth.sum(), abs=0.1)

    def test_noise_is_not_trusted(self):
        rng = np.random.default_rng(3)
        result = functional_anova(rng.random((40, 3)), rng.normal(size=40), list("abc"))
        assert result.r2 < 0.2
        assert not result.trustworthy

    def test_all_shares_are_shares(self):
        rng = np.random.default_rng(4)
        for d in (1, 2, 4):
            result = functional_anova(rng.random((24, d)), rng.normal(size=24), ["abcd"[i] for i in range(d)])
            total = result.main.sum() + result.pairs.sum() / 2 + result.unexplained
            assert total == pytest.approx(1)
            assert (result.main >= 0).all()
            assert (result.low <= result.main).all()
            assert (result.main <= result.high).all()
            assert (result.high <= 1).all()

    def test_is_the_same_for_the_same_seed(self):
        x = np.random.default_rng(5).random((20, 2))
        first, again = (functional_anova(x, x[:, 0], ["a", "b"], seed=7) for _ in range(2))
        assert first.main.tolist() == again.main.tolist()
        assert first.low.tolist() == again.low.tolist()

    def test_equal_values_have_no_shares(self):
        result = functional_anova(np.random.default_rng(6).random((20, 2)), np.full(20, 0.9), ["a", "b"])
        assert np.isnan(result.main).all()
        assert not result.trustworthy

    @pytest.mark.parametrize(
        ("points", "names", "levels", "message"),
        [
            (np.zeros((11, 1)), ["a"], None, "11 trials are too few"),
            (np.zeros((20, 2)), ["a"], None, "one column for each name"),
            (np.full((20, 1), 1.5), ["lr"], None, r"lr lies outside \[0, 1\]"),
            (np.full((20, 1), math.nan), ["lr"], None, "missing in some"),
            (np.full((20, 1), 3), ["schedule"], [3], r"outside \[0, 2\]"),
        ],
    )
    def test_refuses(self, points, names, levels, message):
        with pytest.raises(ValueError, match=message):
            functional_anova(points, np.arange(len(points)), names, levels=levels)
