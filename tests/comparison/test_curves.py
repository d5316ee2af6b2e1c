"""Bands over runs on every axis: against definitions written out by hand, and what must not bend them."""

import math

import numpy as np
import pytest

from bbi_lightning.comparison.curves import Band, band, batch_size, positions, thin, thin_rows
from bbi_lightning.comparison.sweep_data import Curve


def curve(step, value, *, time=None, epoch=None):
    n = len(step)
    return Curve(
        np.array(step),
        np.zeros(n, int) if epoch is None else np.array(epoch),
        np.arange(n, dtype=float) if time is None else np.array(time, dtype=float),
        np.array(value, dtype=float),
    )


class TestPositions:
    def test_steps_seconds_and_samples(self):
        c = curve([10, 20], [1, 2], time=[0.5, 0.9])
        assert positions(c).tolist() == [10, 20]
        assert positions(c, "time").tolist() == [0.5, 0.9]
        assert positions(c, "samples", 64).tolist() == [640, 1280]
        assert np.isnan(positions(c, "samples")).all()

    def test_epochs_are_counted_with_the_part_that_is_done(self):
        """18 steps an epoch, rows every 20 steps and at each epoch's end, as the log has them."""
        step = [1, 18, 20, 36, 40, 54, 60]
        c = curve(step, step, epoch=[s // 18 for s in step])
        assert positions(c, "epoch") == pytest.approx(np.array(step) / 18)

    def test_epochs_never_leave_the_one_that_is_logged(self):
        """Epochs of 3 steps of which the log shows no end: no row may be moved into another epoch."""
        step, epoch = [5, 10, 20], [1, 3, 6]
        x = positions(curve(step, step, epoch=epoch), "epoch")
        assert (x >= epoch).all()
        assert (x <= np.array(epoch) + 1).all()
        assert (np.diff(x) > 0).all()

    def test_an_epoch_that_takes_longer_than_the_others_is_still_one(self):
        assert positions(curve([10, 35], [1, 1], epoch=[1, 2]), "epoch").tolist() == [1, 3]

    def test_without_a_finished_epoch_the_count_is_all_there_is(self):
        assert positions(curve([1, 2], [1, 1]), "epoch").tolist() == [0, 0]


class TestBatchSize:
    def test_is_read_from_the_config(self, tmp_path):
        (tmp_path / "config.yaml").write_text(
            "data: {batch_size: 32}\ntrainer: {accumulate_grad_batches: 4}\n"
        )
        assert batch_size(tmp_path) == 128

    @pytest.mark.parametrize("text", [None, "data: {}\n", "data: {batch_size: null}\n", "a: [\n"])
    def test_is_unknown_where_the_config_does_not_say(self, tmp_path, text):
        if text is not None:
            (tmp_path / "config.yaml").write_text(text)
        assert math.isnan(batch_size(tmp_path))


class TestBand:
    def test_quartiles_are_those_of_the_runs_at_each_step(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(9, 40))
        b = band([curve(range(40), row) for row in values])
        assert b.runs == 9
        assert b.step.tolist() == list(range(40))
        assert b.median == pytest.approx(np.median(values, axis=0))
        assert b.low == pytest.approx(np.quantile(values, 0.25, axis=0))
        assert b.high == pytest.approx(np.quantile(values, 0.75, axis=0))

    def test_many_rows_become_medians_of_each_run_in_a_cell_first(self):
        """A spike in one row of one run moves neither its cell nor the band."""
        one, other = np.ones(1000), np.full(1000, 3.0)
        one[500] = 1e9
        b = band([curve(range(1000), one), curve(range(1000), other)], points=50)
        assert b.step.size == 50
        assert b.median.tolist() == [2.0] * 50

    def test_a_run_that_logs_less_often_is_interpolated_and_never_extrapolated(self):
        dense, sparse = curve([0, 1, 2, 3, 4], [0, 0, 0, 0, 0]), curve([1, 3], [10, 30])
        b = band([dense, sparse])
        assert dict(zip(b.step.tolist(), b.median.tolist(), strict=True)) == {0: 0, 1: 5, 2: 10, 3: 15, 4: 0}

    def test_half_of_the_runs_are_enough_and_fewer_are_not(self):
        b = band([curve([1, 2, 3], [1, 1, 1]), curve([1, 2], [1, 1]), curve([1], [1]), curve([1], [1])])
        assert b.step.tolist() == [1, 2]
        b = band([curve([1, 2], [1, 1]), curve([1], [1]), curve([1], [1])])
        assert b.step.tolist() == [1]

    def test_a_cell_has_the_median_of_a_runs_values(self):
        b = band([curve(range(8), [1, 2, 3, 10, 7, 7, 7, 7])], points=2)
        assert b.median.tolist() == [2.5, 7]

    def test_seconds_never_agree_and_are_brought_onto_a_grid(self):
        """Runs of one exponential at paces 1 to 1.4: the band lies between the fastest and the slowest."""
        steps = np.arange(1, 401)
        runs = [curve(steps, np.exp(-steps / 80), time=steps * pace) for pace in np.linspace(1, 1.4, 9)]
        b = band(runs, points=60, axis="time")
        assert 30 < b.step.size <= 60
        assert (np.diff(b.step) > 0).all()
        fast, slow = np.exp(-b.step / 1.4 / 80), np.exp(-b.step / 80)
        assert (b.median <= fast * 1.15).all()
        assert (b.median >= slow * 0.85).all()
        assert (b.low <= b.median).all()
        assert (b.median <= b.high).all()

    def test_against_time_a_run_that_has_ended_counts_with_its_last_value(self):
        """Else the median would jump when the fast ones, which are ahead, are over."""
        fast = [curve([1, 2, 3], [9, 5, 1], time=[1, 2, 3]) for _ in range(2)]
        slow = [curve([1, 2, 3], [9, 8, 7], time=[1, 3, 5]) for _ in range(2)]
        b = band([*fast, *slow], axis="time")
        assert b.median[-1] == pytest.approx(4)
        assert (np.diff(b.median) <= 0).all()

    def test_samples_come_from_each_runs_own_batch(self):
        b = band([curve([10], [1]), curve([5], [3])], axis="samples", batches=[32, 64])
        assert b.step.tolist() == [320]
        assert b.median.tolist() == [2]

    @pytest.mark.parametrize("axis", ["samples", "time"])
    def test_nothing_where_nobody_knows_the_axis(self, axis):
        assert band([curve([1, 2], [1, 2], time=[math.nan] * 2)], axis=axis).step.size == 0

    def test_an_infinite_loss_is_left_out(self):
        b = band([curve([1, 2], [1, math.inf]), curve([1, 2], [1, 2]), curve([1, 2], [1, 4])])
        assert b.median.tolist() == [1, 3]

    def test_a_thousand_long_logs_take_a_second(self):
        import time

        rng = np.random.default_rng(0)
        curves = [curve(range(2000), rng.random(2000)) for _ in range(300)]
        start = time.process_time()
        assert isinstance(band(curves, 150), Band)
        assert time.process_time() - start < 3


class TestThin:
    def test_keeps_order_extremes_and_finite_rows(self):
        value = np.sin(np.arange(5000) / 50)
        value[1234], value[2345], value[3456] = 40, -40, math.nan
        rows = thin_rows(value, 100)
        assert rows.size <= 100
        assert (np.diff(rows) > 0).all()
        assert {1234, 2345} <= set(rows.tolist())
        assert 3456 not in rows

    def test_a_short_curve_is_left_alone(self):
        c = curve([1, 2], [1, math.nan])
        assert thin(c) is c
