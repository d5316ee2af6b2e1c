"""The metric at matched training loss: by hand and on curves whose answer is known."""

import math

import numpy as np
import pytest

from bbi_lightning.comparison.statistics import matched_metric


def test_reads_the_metric_where_the_loss_first_reaches_each_level():
    steps = np.arange(0, 101, 10)
    loss = 1 - steps / 100
    result = matched_metric((steps, loss), ([0, 50, 100], [0.0, 0.8, 0.9]), [0.5, 0.75, 0.0], window=0)
    assert result.step.tolist() == [50, 30, 100]
    assert result.value == pytest.approx([0.8, 0.48, 0.9])


def test_same_path_at_another_speed_gives_the_same_values():
    """Two runs that walk the same way, one three times as fast, generalise alike at the same loss."""
    levels = np.array([0.8, 0.5, 0.2])

    def run(speed):
        steps = np.arange(3001)
        done = 1 - np.exp(-steps * speed / 1000)
        return matched_metric((steps, 1 - done), (steps, done**2), levels, window=0).value

    assert run(1.0) == pytest.approx(run(3.0), abs=2e-3)
    assert run(1.0) == pytest.approx((1 - levels) ** 2, abs=2e-3)


def test_noise_of_single_batches_does_not_reach_a_level_early():
    rng = np.random.default_rng(0)
    steps = np.arange(5000)
    noisy = np.exp(-steps / 1000) + rng.normal(scale=0.15, size=5000)
    raw = matched_metric((steps, noisy), (steps, steps), [0.3], window=0).step[0]
    smooth = matched_metric((steps, noisy), (steps, steps), [0.3]).step[0]
    truth = -1000 * math.log(0.3)
    assert raw < truth - 300
    assert abs(smooth - truth) < 120


def test_a_loss_that_rises_again_counts_from_its_first_passage():
    result = matched_metric(([0, 1, 2, 3], [1.0, 0.4, 2.0, 0.1]), ([0, 3], [0, 3]), [0.5], window=0)
    assert result.step.tolist() == [1]


def test_is_nan_where_the_loss_was_not_reached_or_the_metric_not_measured():
    loss = ([0, 10, 20], [1.0, 0.5, 0.25])
    result = matched_metric(loss, ([15, 18], [0.7, 0.8]), [0.5, 0.2, 0.25], window=0)
    assert np.isnan(result.value).tolist() == [True, True, True]
    assert result.step[0] == 10
    assert math.isnan(result.step[1])
    assert np.isnan(matched_metric(([], []), ([1], [1]), [0.5]).value).all()
    assert np.isnan(matched_metric(loss, ([], []), [0.5]).value).all()


def test_rows_that_are_not_finite_are_dropped():
    result = matched_metric(
        ([0, 1, 2], [1.0, math.nan, 0.2]), ([0, 1, 2], [0.1, math.nan, 0.3]), [0.5], window=0
    )
    assert result.value.tolist() == [0.3]


def test_refuses():
    with pytest.raises(ValueError, match="train_loss has 2 steps for 1"):
        matched_metric(([0, 1], [1.0]), ([0], [1]), [0.5])
    with pytest.raises(ValueError, match="not finite"):
        matched_metric(([0], [1.0]), ([0], [1]), [math.nan])
