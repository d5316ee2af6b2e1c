"""A sweep's folder is read as it is: complete, half-finished or damaged."""

import json
import math
import time

import numpy as np
import pytest

from bbi_lightning.comparison.curves import band, thin
from bbi_lightning.comparison.sweep_data import Axis, Curve, read_sweep
from tests.comparison.synthetic_sweep import ARMS, COMMIT, EPOCHS, EVERY, SyntheticSweep, realistic


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return read_sweep(realistic(tmp_path_factory.mktemp("sweeps") / "digits"))


def test_reads_the_plan(sweep):
    assert sweep.name == "digits"
    assert sweep.title.startswith("Handwritten digits")
    assert (sweep.planned_trials, sweep.planned_replicates, sweep.sampler) == (16, 10, "halton")
    assert [arm.label for arm in sweep.arms] == ["BBI", "ECDSep", "SGD", "AdamW"]
    assert sweep.arm("bbi").space == (Axis("optim.lr", 0.05, 0.8, log=True),)
    assert sweep.objective.metric == "val/acc"
    assert (sweep.objective.tie_metric, sweep.objective.tie_direction) == ("val/loss", "minimize")
    assert sweep.problems == ()


def test_reads_the_runs_in_order(sweep):
    assert len(sweep.runs) == 4 * 26
    for arm in ARMS:
        assert [run.number for run in sweep.trials(arm.name)] == list(range(16))
        assert [run.seed for run in sweep.replicates(arm.name)] == list(range(1000, 1010))
    run = sweep.trials("sgd")[0]
    assert run.seed == 0
    assert set(run.params) == {"optim.lr", "optim.momentum"}
    assert run.record.attempts[0].commit == COMMIT


def test_a_run_without_a_result_has_no_final_metric(sweep):
    diverged = next(run for run in sweep.trials("bbi") if run.state == "diverged")
    assert "val/acc" in diverged.record.summary  # from before it diverged
    assert math.isnan(diverged.final("val/acc"))
    assert math.isnan(sweep.trials("sgd")[0].final("no/such"))
    assert sweep.trials("sgd")[0].final("val/acc") == sweep.trials("sgd")[0].record.summary["val/acc"]


def test_reads_curves_with_non_finite_values(sweep):
    curve = sweep.replicates("bbi")[0].curve("val/acc")
    assert curve.step.tolist() == list(range(EVERY, EPOCHS * EVERY + 1, EVERY))
    assert curve.value.dtype == np.float64
    diverged = next(run for run in sweep.trials("bbi") if run.state == "diverged")
    assert math.isnan(diverged.curve("train/loss").value[-1])
    assert sweep.replicates("sgd")[0].curve("energy/energy").step.size == 0


def test_a_foreign_log_may_hold_what_is_no_number(tmp_path):
    folder = SyntheticSweep(tmp_path / "s", trials=1, replicates=0, arms=ARMS[2:]).write()
    (file,) = folder.glob("runs/*sgd*/metrics.jsonl")
    rows = [
        {"step": 1, "epoch": None, "time": None, "val/acc": 0.5},
        {"step": 2, "val/acc": None},
        {"step": 3, "val/acc": "high"},
        {"step": 4, "time": 2.0, "val/acc": 0.75},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = read_sweep(folder).trials("sgd")[0].curve("val/acc")
    assert curve.step.tolist() == [1, 4]
    assert curve.epoch.tolist() == [0, 0]
    assert curve.value.tolist() == [0.5, 0.75]
    assert math.isnan(curve.time[0])


def test_a_sweep_that_has_just_begun(tmp_path):
    folder = SyntheticSweep(tmp_path / "new", trials=0).write()
    sweep = read_sweep(folder)
    assert sweep.runs == ()
    (folder / "runs").mkdir()
    (folder / "runs" / "being-made").mkdir()
    assert read_sweep(folder).problems == ()


def test_says_what_it_could_not_use_and_keeps_the_rest(tmp_path):
    folder = SyntheticSweep(tmp_path / "damaged", trials=3, replicates=2).write()
    runs = sorted((folder / "runs").iterdir())
    (runs[0] / "run.json").write_text('{"format": 1,')
    for run, labels in (
        (runs[1], {}),
        (runs[2], {"arm": "lion", "phase": "search", "trial": 0, "params": {}}),
    ):
        record = json.loads((run / "run.json").read_text()) | {"labels": labels}
        (run / "run.json").write_text(json.dumps(record))
    (runs[3] / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    (runs[4] / "metrics.jsonl").unlink()

    sweep = read_sweep(folder)
    assert len(sweep.runs) == len(runs) - 3
    damaged, by_hand, unknown = sweep.problems
    assert "run.json cannot be read" in damaged
    assert "started by hand" in by_hand
    assert "'lion'" in unknown
    by_name = {run.name: run for run in sweep.runs}
    assert "line 2 is damaged" in by_name[runs[3].name].log_damage
    assert by_name[runs[3].name].curve("train/loss").step.size == 0
    assert by_name[runs[4].name].log_damage is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("arms", None, "arms=None should be a mapping"),
        ("objective", {"metric": "val/acc", "direction": "up"}, "direction='up'"),
        ("objective", {"direction": "maximize"}, "metric=None"),
        ("search", {"sampler": "halton"}, "trials=None should be a int"),
        ("arms", {"sgd": 3}, "arms.sgd=3"),
        ("arms", {"sgd": {"space": {"optim.lr": {"low": 1}}}}, "arms.sgd.space.optim.lr="),
    ],
)
def test_a_spec_that_is_wrong_is_told_in_one_sentence(tmp_path, key, value, words):
    folder = SyntheticSweep(tmp_path / "wrong", trials=0).write()
    spec = json.loads((folder / "sweep.yaml").read_text()) | {key: value}
    (folder / "sweep.yaml").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match=r"sweep\.yaml cannot be read") as caught:
        read_sweep(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_spec_that_is_not_yaml_or_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sweep\.yaml"):
        read_sweep(tmp_path)
    for text in ("a: [1, 2", "- 1\n- 2\n"):
        (tmp_path / "sweep.yaml").write_text(text)
        with pytest.raises(ValueError, match="cannot be read"):
            read_sweep(tmp_path)


def test_numbers_in_the_spec_may_be_written_with_exponents(tmp_path):
    folder = SyntheticSweep(tmp_path / "exponents", trials=0).write()
    spec = (folder / "sweep.yaml").read_text().replace('"low": 0.0003', '"low": 3e-4')
    (folder / "sweep.yaml").write_text(spec)
    assert read_sweep(folder).arm("adamw").space[0].low == 3e-4


def test_the_edge_of_an_axis_is_its_outer_twentieth_on_its_own_scale():
    log, linear = Axis("lr", 0.001, 1.0, log=True), Axis("momentum", 0.0, 1.0)
    assert log.at_edge(0.001)
    assert log.at_edge(0.00141)
    assert not log.at_edge(0.00142)
    assert linear.at_edge(0.951)
    assert not linear.at_edge(0.949)
    assert not Axis("act", choices=("relu", "gelu")).at_edge("relu")
    assert not log.at_edge(None)


def curve(step, value):
    n = len(step)
    return Curve(np.array(step), np.zeros(n, int), np.zeros(n), np.array(value, dtype=float))


class TestBand:
    def test_is_the_median_and_the_quartiles_at_each_step(self):
        b = band([curve([1, 2], [v, 10 * v]) for v in (1, 2, 3, 4, 5)])
        assert b.step.tolist() == [1, 2]
        assert b.median.tolist() == [3, 30]
        assert (b.low.tolist(), b.high.tolist()) == ([2, 20], [4, 40])
        assert b.runs == 5

    def test_leaves_out_what_is_not_finite_and_steps_that_few_runs_reached(self):
        b = band([curve([1, 2], [1, math.nan]), curve([1, 2], [3, 4]), curve([1, 2, 3], [5, 6, 7])])
        assert b.step.tolist() == [1, 2]
        assert b.median.tolist() == [3, 5]

    def test_pools_bins_when_there_are_many_steps(self):
        steps = list(range(1, 10_001))
        b = band([curve(steps, steps), curve(steps, steps)], points=100)
        assert b.step.size == 100
        assert b.step[-1] == 10_000
        assert b.median[0] == pytest.approx(50.5)

    def test_nothing_to_aggregate(self):
        assert band([]).step.size == 0
        assert band([curve([], [])]).step.size == 0
        assert band([curve([1], [math.nan])]).step.size == 0


def test_thinning_keeps_every_spike():
    value = np.ones(10_000)
    value[[17, 5000]], value[9000], value[3] = 50.0, -50.0, math.nan
    thinned = thin(curve(range(10_000), value), points=200)
    assert thinned.value.size <= 200
    assert (thinned.value == 50).sum() == 2
    assert thinned.value.min() == -50
    assert (np.diff(thinned.step) > 0).all()


def test_a_thousand_runs_are_read_in_seconds(tmp_path):
    folder = SyntheticSweep(tmp_path / "large", trials=240, replicates=10, logs=False).write()
    start = time.process_time()
    assert len(read_sweep(folder).runs) == 1000
    assert time.process_time() - start < 5
