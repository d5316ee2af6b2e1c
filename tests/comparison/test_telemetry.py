"""Energy telemetry read from logs as BBI writes them."""

import json
import math
from dataclasses import replace

import pytest

from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.telemetry import energy_summary, read_telemetry
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


@pytest.fixture
def sweep(tmp_path):
    return read_sweep(SyntheticSweep(tmp_path / "s", trials=2, replicates=3).write())


def rewrite(run, change):
    """Pass every row of a run's log through `change`."""
    file = run.folder / "metrics.jsonl"
    rows = [change(json.loads(line)) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.__dict__.pop("_log", None)


def test_bounces_are_found_where_the_count_rises(sweep):
    t = read_telemetry(sweep.replicates("bbi")[0])
    assert t.bounces.tolist() == [7 * 18, 14 * 18, 21 * 18, 28 * 18]
    assert t.bounce_count == 4
    assert t.potential_over_energy.value.size == 30
    assert t.loss.value[0] == t.potential_over_energy.value[0] * 2.3


def test_several_bounces_between_two_rows_are_counted(sweep):
    run = sweep.replicates("bbi")[0]
    rewrite(run, lambda row: row | ({"energy/bounces": 5} if row["epoch"] >= 7 else {}))
    t = read_telemetry(run)
    assert t.bounces.tolist() == [7 * 18]
    assert t.bounce_count == 5


def test_a_bounce_before_the_first_row_counts(sweep):
    run = sweep.replicates("bbi")[0]
    rewrite(run, lambda row: row | {"energy/bounces": 1})
    assert read_telemetry(run).bounces.tolist() == [18]


def test_an_optimizer_without_energy_has_none(sweep):
    assert read_telemetry(sweep.replicates("sgd")[0]) is None
    assert energy_summary(sweep.replicates("sgd")) is None


def test_the_first_of_several_optimizers_is_read(sweep):
    run = sweep.replicates("bbi")[0]
    rewrite(run, lambda row: {key.replace("energy/", "energy/0/"): value for key, value in row.items()})
    assert read_telemetry(run).bounce_count == 4


class TestSummary:
    def test_numbers_by_hand(self, sweep):
        runs = sweep.replicates("bbi")
        errors = [1e-3, -2e-2, 0.5]
        for run, error in zip(runs, errors, strict=True):
            rewrite(
                run,
                lambda row, error=error: row | {"energy/energy_error": error, "energy/skipped": row["epoch"]},
            )
        s = energy_summary(runs)
        assert s.runs == 3
        assert s.typical_error == pytest.approx(2e-2)
        assert s.largest_error == pytest.approx(0.5)
        assert s.error_share == 0
        assert s.bounces == 4
        assert s.skipped == 30
        assert s.stalled == 0
        least = min(run.curve("energy/potential_over_energy").value.min() for run in runs)
        assert s.least_ratio == pytest.approx(least)

    def test_a_particle_without_potential_stands_still(self, sweep):
        runs = sweep.replicates("bbi")
        rewrite(runs[0], lambda row: row | {"energy/potential_over_energy": 0.0})
        rewrite(runs[1], lambda row: row | {"energy/at_floor": 0.7 * row["step"]})
        rewrite(runs[2], lambda row: row | {"energy/at_floor": 3})  # three steps of 540 are no standstill
        assert energy_summary(runs).stalled == 2

    def test_values_that_are_not_numbers_are_left_out(self, sweep):
        run = sweep.replicates("bbi")[0]
        rewrite(run, lambda row: row | {"energy/energy_error": "nan"})
        s = energy_summary([run])
        assert math.isnan(s.typical_error)
        assert math.isnan(s.largest_error)

    def test_of_no_runs(self):
        assert energy_summary([]) is None


def test_a_log_of_one_row_is_no_curve(tmp_path):
    arms = (replace(ARMS[0]), ARMS[2])
    sweep = read_sweep(SyntheticSweep(tmp_path / "s", arms=arms, trials=1, replicates=1).write())
    run = sweep.replicates("bbi")[0]
    file = run.folder / "metrics.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert read_telemetry(run) is None
