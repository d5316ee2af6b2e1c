"""Trials in real processes that fall behind are stopped, and everybody takes them for what they are."""

import os
import time

import pytest
import toy_task

from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.sweeps import Task
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.growing_curve import GrowingCurve
from bbi_lightning.sweeps.live import PlainLines
from bbi_lightning.sweeps.run import run_sweep
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.tracking.run_folder import RunFolder

EPOCHS = 6
SPACE = {"x": {"low": 0.001, "high": 1.0, "log": True}}


def train(overrides, root, labels):
    """Six epochs; the value rises with x. Only what is to be stopped takes its time after the first one."""
    given = toy_task.settings(overrides)
    folder = RunFolder.create(
        root / toy_task.run_name(overrides), config="", labels=labels, overrides=list(overrides)
    )
    if folder.record.is_result:
        return
    folder.begin_attempt()
    with folder.metrics_file.open("a") as log:
        for epoch in range(1, EPOCHS + 1):
            print(
                f'{{"step": {epoch}, "epoch": {epoch}, "time": 1.0, "val/acc": {given["x"] * epoch}}}',
                file=log,
                flush=True,
            )
            time.sleep(8.0 if given.get("slow") and given["x"] < 0.1 else 0.01)
    folder.end_attempt("finished", summary={"val/acc": given["x"] * EPOCHS, "test/acc": given["x"]})


TASK = Task(run=train, run_name=toy_task.run_name, validate=toy_task.validate)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished sweep with a pruner; what it stops would have taken minutes."""
    from rich.console import Console

    root = tmp_path_factory.mktemp("sweeps")
    spec = toy_task.spec(
        base=["slow=true"],
        search={"sampler": "halton", "trials": 6, "pruner": {"kind": "asha", "reduction": 6}},
        objective={"metric": "val/acc", "direction": "maximize"},
        replicates={"count": 1},
        workers=2,
        arms={"a": {"space": SPACE}, "b": {"overrides": ["other=1"], "space": SPACE}},
    )
    with (root / "output.txt").open("w") as output:
        end = run_sweep(spec, root, TASK, PlainLines(Console(file=output)), grace=2.0)
    assert end.reason == "done"
    assert end.status.failures == ()
    return SweepFolder(root / "toy")


def test_what_falls_behind_is_stopped_and_nobody_goes_on_with_it(sweep):
    studies = Studies(sweep.journal, sweep.read_spec())
    search = [t for arm in ("a", "b") for t in studies.due(arm) if t.job.phase == "search"]
    pruned = [t for t in search if t.state == "pruned"]
    assert {t.state for t in search} == {"finished", "pruned"}
    assert all(t.job.params["x"] < 0.1 for t in pruned), "what is best so far goes on"
    for trial in pruned:
        record = RunFolder(sweep.runs / trial.run).record
        assert (record.state, record.is_result) == ("pruned", True)
        assert trial.outcome.value == pytest.approx(trial.job.params["x"])
    before = {run.name: (sweep.runs / run.name / "run.json").read_bytes() for run in sweep.runs.iterdir()}
    toy_task.go(sweep.path.parent, studies.spec)
    assert before == {run: (sweep.runs / run / "run.json").read_bytes() for run in before}


def test_a_comparison_counts_what_was_pruned_as_spent(sweep):
    comparison = compare_sweep(read_sweep(sweep.path), against="a")
    assert comparison.missing() == 0
    for result in comparison.results:
        assert result.count("search", "finished", "pruned") == 6
        assert result.best.params["x"] == max(run.params["x"] for run in result.trials)
        assert result.tuning is not None
        assert len(result.tuning.k) == 6


def test_a_growing_log_is_read_once_and_again_when_it_was_cut_back(tmp_path):
    file = tmp_path / "metrics.jsonl"
    curve = GrowingCurve(file, "val/acc")
    assert curve.new() == []
    file.write_text('{"step": 1, "epoch": 1, "val/acc": 0.5}\n{"step": 2, "epoch": 1, "train/loss": 1}\n{"st')
    assert curve.new() == [(1, 0.5)]
    assert curve.new() == []
    with file.open("a") as log:
        log.write('ep": 3, "epoch": 2, "val/acc": "nan"}\n{"step": 4, "epoch": 3, "val/acc": 0.75}\n')
    assert curve.new() == [(3, 0.75)]
    os.truncate(file, 40)
    assert curve.new() == [(1, 0.5)]
