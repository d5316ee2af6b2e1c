"""Runs sent from their folders: which, and what is said of those that cannot be. With W&B: test_push.py."""

import pytest

from bbi_lightning.comparison.dashboard import upload as module
from bbi_lightning.comparison.dashboard.content import dashboard
from bbi_lightning.comparison.dashboard.upload import lacking, record, upload
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.tracking.wandb_logger import WandbTracking
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


@pytest.fixture
def comparison(tmp_path):
    states = {("sgd", "search", 0): "running", ("sgd", "search", 1): "failed"}
    sweep = SyntheticSweep(tmp_path / "small", arms=ARMS[2:], trials=2, replicates=1, states=states)
    return compare_sweep(read_sweep(sweep.write()))


def built(comparison):
    return dashboard(comparison, project="p")


def test_what_is_over_and_not_there_is_sent(comparison):
    runs = comparison.sweep.runs
    there = [run.name for run in runs if run.arm == "adamw"]
    assert {(run.arm, run.phase, run.state) for run in lacking(runs, there)} == {("sgd", "search", "failed")}
    assert len(lacking(runs, ())) == len(runs) - 1, "the one that is running is not"


def test_a_run_that_was_sent_elsewhere_is_said_and_not_sent_again(comparison):
    (run,) = [run for run in comparison.sweep.runs if run.phase == "replicate"]
    attempt = run.folder / "wandb" / "offline-run-20260101_000000-x"
    attempt.mkdir(parents=True)
    for name in ("run-x.wandb", "run-x.wandb.synced"):
        (attempt / name).touch()
    did = []
    troubles = upload(built(comparison), "me", [run], did=lambda what, name: did.append((what, name)))
    assert list(troubles) == [run.name]
    assert "it was sent before, but is not in me/p" in troubles[run.name]
    assert did == [("recording", run.name)]


def test_a_damaged_log_is_said_and_leaves_no_record(comparison):
    (run,) = [run for run in comparison.sweep.runs if run.phase == "replicate"]
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write("not a row\n")
    troubles = upload(built(comparison), "me", [run])
    assert "is damaged" in troubles[run.name]
    assert not (run.folder / "wandb").exists()


def test_a_record_that_was_stopped_half_way_is_not_kept(comparison, monkeypatch):
    (run,) = [run for run in comparison.sweep.runs if run.phase == "replicate"]
    begun = run.folder / "wandb" / "offline-run-20260101_000000-x"

    class Stopped:
        """A W&B run during which somebody presses Ctrl-C."""

        def log(self, row):
            raise KeyboardInterrupt

    def start(*arguments):
        begun.mkdir(parents=True)
        return Stopped()

    monkeypatch.setattr(module, "start_run", start)
    with pytest.raises(KeyboardInterrupt):
        record(run, WandbTracking())
    assert not begun.exists()
