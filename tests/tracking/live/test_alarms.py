"""Each alarm rings where it should, and none for what healthy runs do."""

from __future__ import annotations

import math

import pytest

from bbi_lightning.tracking.live import alarms
from bbi_lightning.tracking.live.telemetry import Telemetry


def seen(rows: int = 12, **changes) -> Telemetry:
    """A healthy BBI run of so many rows, with some metrics changed: a value, or a function of the row."""
    telemetry = Telemetry("val/acc", maximize=True)
    for i in range(rows):
        loss = 2.3 * 0.8**i
        row = {
            "step": 20 * (i + 1), "epoch": 0, "time": float(i), "train/loss": loss, "energy/energy": 2.3,
            "energy/potential": loss, "energy/potential_over_energy": loss / 2.3,
            "energy/energy_error": 0.3 * (-1) ** i, "energy/at_floor": 0.0, "energy/skipped": 0.0,
            "speed/data_wait": 0.05,
        }  # fmt: skip
        for name, value in changes.items():
            row[name.replace("__", "/")] = value(i) if callable(value) else value
        telemetry.take([row])
    return telemetry


def codes(telemetry: Telemetry) -> list[tuple[str, str]]:
    return [(alarm.level, alarm.code) for alarm in alarms.training_alarms(telemetry)]


def test_a_healthy_run_has_none():
    assert codes(seen()) == []


def test_nor_has_one_that_has_converged_and_still_moves():
    # V/E of 1e-9, as where a fitted network ends, the loss still falling
    assert codes(seen(energy__potential_over_energy=1e-9, energy__potential=2e-9)) == []


def test_nor_has_one_that_conserves_no_energy():
    telemetry = Telemetry("val/acc", maximize=True)
    telemetry.take({"step": i, "epoch": 0, "time": i, "train/loss": 1 / (i + 1)} for i in range(20))
    assert codes(telemetry) == []


def test_nor_has_one_that_has_just_begun():
    assert codes(seen(1, energy__potential_over_energy=1.0, energy__energy_error=0.0)) == []


@pytest.mark.parametrize(
    ("code", "level", "changes"),
    [
        ("nan", "error", {"train__loss": lambda i: math.nan if i > 8 else 1.0}),
        ("nan", "error", {"train__loss": lambda i: math.inf if i > 10 else 1.0}),
        ("skipped", "warning", {"energy__skipped": lambda i: float(max(0, i - 8))}),
        ("stall", "error", {"energy__potential": 0.0, "energy__potential_over_energy": 0.0}),
        ("stall", "error", {"energy__potential": -0.01}),
        ("stall", "error", {"energy__at_floor": lambda i: 20.0 * i}),
        ("stall", "error", {"energy__potential_over_energy": 1.0}),
        ("stall", "warning", {"energy__potential_over_energy": 1e-8, "train__loss": 0.02}),
        ("energy", "warning", {"energy__energy_error": 1.5}),
        ("energy", "warning", {"energy__energy_error": -3.0}),
        ("rising", "warning", {"train__loss": lambda i: 2.3 * 1.3**i}),
        ("data", "warning", {"speed__data_wait": 0.7}),
    ],
)
def test_each_rings_alone(code, level, changes):
    assert codes(seen(**changes)) == [(level, code)]


def test_a_loss_that_recovered_is_no_alarm():
    assert codes(seen(train__loss=lambda i: math.nan if i == 5 else 1 / (i + 1))) == []


def test_it_says_since_when_the_loss_is_no_number():
    (alarm,) = alarms.training_alarms(seen(train__loss=lambda i: math.nan if i >= 9 else 1.0))
    assert "since step 200" in alarm.sentence


def test_one_wild_step_is_no_alarm():
    assert codes(seen(energy__energy_error=lambda i: 40.0 if i == 11 else 0.1)) == []


@pytest.mark.parametrize(
    ("seconds", "gap", "rings"),
    [
        (59, 0.1, False),
        (61, 0.1, True),
        (290, 60, False),
        (400, 60, True),
        (250, None, False),
        (301, None, True),
    ],
)
def test_silence_is_measured_by_what_is_usual(seconds, gap, rings):
    assert (alarms.silence_alarm(seconds, gap) is not None) == rings
    assert (seconds > alarms.allowed_silence(gap)) == rings


def test_a_failure_is_its_last_line():
    alarm = alarms.failure_alarm("Traceback …\n  File x\nRuntimeError: CUDA out of memory\n")
    assert (alarm.code, alarm.sentence) == ("failed", "failed: RuntimeError: CUDA out of memory")
    assert alarms.failure_alarm(None).sentence == "failed: no traceback was kept"


def test_ranks_that_diverged_have_a_code_of_their_own():
    name = "bbi_lightning.training.rank_guard.RanksDivergedError: after optimizer step 40 rank 1 and rank 0 …"
    assert alarms.failure_alarm(f"Traceback\n{name}").code == "ranks"
