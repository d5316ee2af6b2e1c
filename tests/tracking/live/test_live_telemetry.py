"""Numbers told from rows agree with those told from the whole log."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.tracking.live.telemetry import Telemetry, ThinnedCurve

finite = st.floats(-1e6, 1e6)


@given(st.lists(finite, min_size=1, max_size=500), st.sampled_from([2, 8, 96]))
def test_a_thinned_curve_is_short_and_keeps_the_mean(values, most):
    curve = ThinnedCurve(most)
    for value in values:
        curve.add(value)
    points = curve.points()
    assert len(points) <= most + 1
    assert min(values) - 1e-6 <= min(points)
    assert max(points) <= max(values) + 1e-6
    each = 1
    while each * most < len(values):
        each *= 2
    expected = [sum(values[i : i + each]) / len(values[i : i + each]) for i in range(0, len(values), each)]
    assert points == pytest.approx(expected, abs=1e-6)


def test_one_value_that_is_no_number_shows_however_many_there_are():
    curve = ThinnedCurve(4)
    for i in range(100):
        curve.add(math.inf if i == 50 else 1.0)
    assert [math.isnan(point) for point in curve.points()].count(True) == 1


def rows(per_epoch: int, count: int, every: int = 5, validates_as: int = 0):
    """What a run logs: a training row every few steps, a validation at an epoch's last step."""
    for step in range(1, count + 1):
        if step % every == 0 or step == 1:
            yield {"step": step, "epoch": (step - 1) // per_epoch, "time": step / 10, "train/loss": 1 / step}
        if step % per_epoch == 0:
            epoch = (step - 1) // per_epoch + validates_as
            yield {"step": step, "epoch": epoch, "time": step / 10, "val/acc": 1 - 1 / step}


@pytest.mark.parametrize("per_epoch", [1, 7, 18, 40, 391])
@pytest.mark.parametrize("validates_as", [0, 1])
@pytest.mark.parametrize("epochs", [2, 3, 10])
def test_the_steps_of_an_epoch_are_found(per_epoch, validates_as, epochs):
    seen = Telemetry("val/acc", maximize=True)
    seen.take(rows(per_epoch, per_epoch * epochs, validates_as=validates_as))
    assert seen.steps_per_epoch == per_epoch


def test_the_steps_of_an_epoch_are_found_where_it_validates_now_and_then():
    seen = Telemetry("val/acc", maximize=True)
    seen.take(row for row in rows(18, 18 * 12) if "val/acc" not in row or row["step"] % 54 == 0)
    assert seen.steps_per_epoch == 18


def test_the_steps_of_an_epoch_are_known_once_the_first_was_validated():
    seen = Telemetry("val/acc", maximize=True)
    seen.take(rows(18, 17))
    assert seen.steps_per_epoch is None
    seen.take([{"step": 18, "epoch": 0, "time": 2.0, "val/acc": 0.5}])
    assert seen.steps_per_epoch == 18


def test_the_end_of_a_log_is_enough_for_rates_and_an_epochs_length():
    everything = list(rows(18, 3600))
    seen = Telemetry("val/acc", maximize=True)
    seen.take(everything[-100:])
    assert seen.steps_per_epoch == 18
    assert seen.steps_per_second == pytest.approx(10)
    assert seen.step == 3600


def test_the_beginning_may_come_later():
    everything = list(rows(18, 900))
    whole, parts = Telemetry("val/loss", maximize=False), Telemetry("val/loss", maximize=False)
    everything[3]["val/loss"] = 0.125
    everything[-2]["val/loss"] = 0.5
    whole.take(everything)
    parts.take(everything[100:])
    assert parts.best == 0.5
    parts.take(everything[:50], late=False)
    parts.take(everything[50:100], late=False)
    for name in ("best", "best_step", "first_loss", "lowest_loss", "step", "steps_per_second", "rows"):
        assert getattr(parts, name) == getattr(whole, name), name
    assert parts.best == 0.125
    losses = parts.losses
    assert losses[0] == pytest.approx(max(losses))  # the curve begins at its beginning
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(("maximize", "best", "at"), [(True, 0.9, 2), (False, 0.3, 4)])
def test_the_best_is_of_the_first_that_has_it_and_never_nan(maximize, best, at):
    seen = Telemetry("val/x", maximize=maximize)
    values = [math.nan, 0.9, 0.9, 0.3, 0.3, math.inf, -math.inf]
    seen.take({"step": step, "epoch": 0, "val/x": value} for step, value in enumerate(values, start=1))
    assert (seen.best, seen.best_step) == (best, at)


def test_without_rows_nothing_is_known():
    seen = Telemetry("val/acc", maximize=True)
    for name in ("steps_per_second", "usual_gap", "steps_per_epoch", "energy_error", "best", "lowest_loss"):
        assert getattr(seen, name) is None, name
    assert seen.losses == []


def test_the_energy_error_is_the_median_size_of_the_newest():
    seen = Telemetry("val/acc", maximize=True)
    errors = [50.0] * 20 + [-0.1, 0.2, -0.3, 0.2, 0.2, 0.2, math.nan, 9.0]
    seen.take({"step": s, "epoch": 0, "energy/energy_error": e} for s, e in enumerate(errors))
    assert seen.energy_error == pytest.approx(0.2)


def test_a_new_attempt_has_a_rate_of_its_own():
    seen = Telemetry("val/acc", maximize=True)
    seen.take({"step": s, "epoch": 0, "time": float(s)} for s in range(10))
    seen.forget_recent()
    assert seen.steps_per_second is None
    seen.take({"step": 10 + s, "epoch": 0, "time": 10 + s / 4} for s in range(5))
    assert seen.steps_per_second == pytest.approx(4)
