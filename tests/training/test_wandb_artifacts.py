"""Checkpoints as W&B artifacts: a run's best and last, sent later and from elsewhere, byte for byte."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

sys.path.insert(0, str(Path(__file__).parents[1] / "tracking"))

from wandb_standin import WandbStandIn

from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.wandb_sync import send, unsent
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.config import compose
from bbi_lightning.training.run import train

QUIET = ["runtime.progress=none", "runtime.threads=1", "runtime.accelerator=cpu", "trainer.max_epochs=3"]


@pytest.mark.slow
def test_best_and_last_of_an_offline_run_arrive_when_it_is_sent_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    with WandbStandIn() as service:
        for name, value in service.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(elsewhere)
        wandb.init(mode="offline", dir=str(elsewhere)).finish()  # W&B's process has its own idea of "here"
        monkeypatch.chdir(tmp_path)
        overrides = [*QUIET, "tracking=offline", "tracking.artifacts=both", "runtime.root=runs"]
        folder = train(compose(overrides), labels={"sweep": "s", "arm": "bbi", "phase": "search"})
        store = CheckpointStore(folder.checkpoints.resolve(), folder.name)
        best, last = store.best(), store.newest_valid()[0]
        rows = read_metrics(folder.metrics_file.resolve())

        monkeypatch.chdir(elsewhere)
        waiting = unsent(tmp_path / "runs")
        assert [run.run for run in waiting] == [folder.name]
        assert send(waiting) == {}
        assert [*service.runs] == [folder.name], service.unanswered
        run = service.runs[folder.name]
        versions = {alias: a for a in service.api.artifacts for alias in a.aliases if alias != "latest"}

    assert best is not None
    assert last is not None
    for alias, there in (("best", best), ("last", last)):
        assert versions[alias].metadata == {"checkpoint": there.path.name}
        assert versions[alias].committed
        assert sorted(versions[alias].files) == sorted(file.name for file in there.path.iterdir())
        assert (there.path / "state.pt").read_bytes() in run.files.values()
    assert run.group == "s/bbi"
    assert {row["samples"] for row in run.history} == {64 * row["step"] for row in rows}


@pytest.mark.slow
def test_a_run_without_a_result_sends_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Classification.training_step

    def training_step(self: Classification, batch: Any, number: int) -> Any:
        if self.trainer.global_step == 40:  # two checkpoints are there by then
            raise RuntimeError("the machine has gone")
        return step(self, batch, number)

    monkeypatch.setattr(Classification, "training_step", training_step)
    with WandbStandIn() as service:
        for name, value in service.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        overrides = ["tracking=offline", "tracking.artifacts=both", "checkpoint.every=0.001"]
        with pytest.raises(RuntimeError, match="the machine has gone"):
            train(compose([*QUIET, *overrides, f"runtime.root={tmp_path / 'runs'}"]))
        assert list((tmp_path / "runs").glob("*/checkpoints/checkpoint-*"))
        assert send(unsent(tmp_path / "runs")) == {}
        (run,) = service.runs.values()
        assert run.state == "failed"
        assert service.api.artifacts == []
