"""Times to a target and metrics at matched loss, against values counted by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison.matching import default_target, matched, reaching
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep

PAIR = (ARMS[0], ARMS[2])  # BBI and SGD


def write(folder, logs, *, states=None, replicates=4):
    """A sweep of BBI and SGD whose replicates have the given logs: arm → one list of rows a replicate."""
    SyntheticSweep(
        folder, arms=PAIR, trials=1, replicates=replicates, planned_replicates=replicates, states=states or {}
    ).write()
    sweep = read_sweep(folder)
    for arm, own in logs.items():
        for run, rows in zip(sweep.replicates(arm), own, strict=True):
            (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return compare_sweep(read_sweep(folder), "sgd")


def rows(accuracies, *, loss=None, pace=1.0):
    """A row every ten steps."""
    loss = loss or [math.exp(-i) for i in range(len(accuracies))]
    return [
        {"step": 10 * (i + 1), "epoch": i + 1, "time": pace * (i + 1), "val/acc": a, "train/loss": x}
        for i, (a, x) in enumerate(zip(accuracies, loss, strict=True))
    ]


FAST = [0.5, 0.9, 0.9, 0.95]
SLOW = [0.1, 0.5, 0.9, 0.92]
NEVER = [0.1, 0.5, 0.8, 0.85]


class TestReaching:
    def test_counts_steps_to_the_first_passage(self, tmp_path):
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [rows(SLOW)] * 3 + [rows(NEVER)]})
        k = reaching(c, "val/acc", "maximize", target=0.9)
        assert [arm.name for arm in k.arms] == ["bbi", "sgd"]
        assert k.durations[0].tolist() == [20, 20, 20, 20]
        assert sorted(k.durations[1].tolist()) == [30, 30, 30, 40]
        assert k.reached[1].sum() == 3
        assert k.survival[0].median.value == 20
        assert k.survival[1].median.value == 30
        assert k.survival[1].censored == 1

    @pytest.mark.parametrize(
        ("axis", "expected"), [("step", 20), ("epoch", 2), ("time", 1.0), ("samples", 1280)]
    )
    def test_on_every_axis(self, tmp_path, axis, expected):
        c = write(tmp_path / "s", {"bbi": [rows(FAST, pace=0.5)] * 4, "sgd": [rows(SLOW)] * 4})
        for run in c.sweep.runs:
            (run.folder / "config.yaml").write_text("data: {batch_size: 64}\n")
        k = reaching(c, "val/acc", "maximize", axis, target=0.9)
        assert k.survival[0].median.value == pytest.approx(expected)

    def test_without_a_batch_size_samples_are_not_known(self, tmp_path):
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [rows(SLOW)] * 4})
        assert reaching(c, "val/acc", "maximize", "samples", target=0.9) is None

    def test_a_diverged_run_is_not_taken_for_one_that_needed_longer(self, tmp_path):
        """It ended at step 10; censored there, it would leave the others to speak for it."""
        logs = {"bbi": [rows(FAST[:1]), *[rows(SLOW)] * 3], "sgd": [rows(SLOW)] * 4}
        c = write(tmp_path / "s", logs, states={("bbi", "replicate", 0): "diverged"})
        k = reaching(c, "val/acc", "maximize", target=0.9)
        assert sorted(k.durations[0].tolist()) == [30, 30, 30, 40]
        assert k.survival[0].survival[-1] == pytest.approx(0.25)

    def test_an_unfinished_run_is_censored_where_it_stands(self, tmp_path):
        logs = {"bbi": [rows(SLOW[:1]), *[rows(SLOW)] * 3], "sgd": [rows(SLOW)] * 4}
        c = write(tmp_path / "s", logs, states={("bbi", "replicate", 0): "running"})
        k = reaching(c, "val/acc", "maximize", target=0.9)
        assert sorted(k.durations[0].tolist()) == [10, 30, 30, 30]
        assert k.survival[0].survival[-1] == 0

    def test_the_default_target_is_what_half_of_the_baseline_ends_with(self, tmp_path):
        ends = [[0.1, v] for v in (0.7, 0.8, 0.9, 0.95)]
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [rows(e) for e in ends]})
        assert default_target(c, "val/acc", "maximize") == 0.8
        assert default_target(c, "train/loss", "minimize") == pytest.approx(math.exp(-1))
        k = reaching(c, "val/acc", "maximize")
        assert 2 * k.reached[1].sum() >= k.reached[1].size

    def test_a_loss_is_reached_from_above(self, tmp_path):
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [rows(SLOW, loss=[4, 3, 2, 1])] * 4})
        k = reaching(c, "train/loss", "minimize", target=2)
        assert k.survival[0].median.value == 10
        assert k.survival[1].median.value == 30

    def test_no_target_without_a_finished_baseline(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", arms=PAIR, trials=2, replicates=0).write()
        assert reaching(compare_sweep(read_sweep(folder), "sgd"), "val/acc", "maximize") is None

    def test_nor_for_a_metric_that_was_never_logged(self, tmp_path):
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [rows(SLOW)] * 4})
        assert reaching(c, "val/f1", "maximize") is None


class TestMatched:
    def test_reads_the_metric_where_the_loss_was_first_reached(self, tmp_path):
        """SGD's accuracy is a function of the loss, BBI's is two points above it at every loss."""
        losses = np.geomspace(2, 1e-3, 60)

        def log(speed, above):
            x = losses[::speed]
            return rows([0.9 - 0.05 * math.log10(v) / 3 + above for v in x], loss=x.tolist())

        c = write(tmp_path / "s", {"bbi": [log(3, 0.02)] * 4, "sgd": [log(1, 0.0)] * 4})
        m = matched(c)
        assert m.metric.name == "val/acc"
        assert (np.diff(m.levels) < 0).all()
        bbi, sgd = m.arms
        both = np.isfinite(bbi.median) & np.isfinite(sgd.median)
        assert both.sum() > 10
        assert bbi.median[both] - sgd.median[both] == pytest.approx(0.02, abs=0.004)
        assert sgd.median[both] == pytest.approx(0.9 - 0.05 * np.log10(m.levels[both]) / 3, abs=0.004)
        assert bbi.final > sgd.final

    def test_levels_that_few_runs_reached_are_not_spoken_of(self, tmp_path):
        deep = rows(FAST, loss=[1, 0.1, 0.01, 1e-6])
        shallow = rows(FAST, loss=[1, 0.5, 0.3, 0.2])
        c = write(tmp_path / "s", {"bbi": [deep] + [shallow] * 3, "sgd": [deep] * 4})
        bbi, sgd = matched(c).arms
        assert np.isnan(bbi.median[-1])
        assert bbi.runs[-1] == 1
        assert np.isfinite(sgd.median[-1])

    def test_another_metric(self, tmp_path):
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [rows(SLOW)] * 4})
        assert matched(c, Metric("val/f1", "maximize")) is None
        assert matched(c, Metric("val/acc", "maximize")) is not None

    def test_losses_that_cannot_be_spaced_by_factors(self, tmp_path):
        zero = rows(FAST, loss=[0, 0, 0, 0])
        c = write(tmp_path / "s", {"bbi": [zero] * 4, "sgd": [zero] * 4})
        assert matched(c) is None

    def test_one_arm_is_no_comparison(self, tmp_path):
        silent = [{"step": 1, "epoch": 0, "time": 0.0, "val/acc": 0.5}]
        c = write(tmp_path / "s", {"bbi": [rows(FAST)] * 4, "sgd": [silent] * 4})
        assert matched(c) is None


def test_a_sweep_without_logs_has_neither(tmp_path):
    folder = SyntheticSweep(tmp_path / "s", arms=(replace(ARMS[0]), ARMS[2]), trials=2, logs=False).write()
    c = compare_sweep(read_sweep(folder), "sgd")
    assert matched(c) is None
    assert reaching(c, "val/acc", "maximize") is None
