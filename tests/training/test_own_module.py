"""A LightningModule that knows nothing of us is trained by every optimizer, and is a run like any other."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.own_module import OwnModule

COMMON = [
    "scheduler=constant", "trainer.max_epochs=2", "tracking=none", "runtime.progress=none",
    "runtime.threads=1", "runtime.accelerator=cpu", "runtime.log_every=3", "checkpoint.every=0",
]  # fmt: skip


class Lines(pl.LightningModule):
    """Linear regression with a dropout; no batch index, no schedule, and an optimizer nobody asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def training_step(self, batch: Any) -> torch.Tensor:
        return (self.net(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch: Any) -> None:
        self.log("val/loss", self.training_step(batch))

    def test_step(self, batch: Any) -> None:
        self.log("test/loss", self.training_step(batch))

    def configure_optimizers(self) -> Any:
        raise AssertionError("the sweep's optimizer takes its place")


class Points(pl.LightningDataModule):
    def loader(self, seed: int, **options: Any) -> DataLoader[Any]:
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, **options)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader(0, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(1)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader(2)


class ByHand(Lines):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


TASK = OwnModule(Lines, Points)


def run(root: Path, *overrides: str, task: OwnModule = TASK) -> RunFolder:
    given = [*COMMON, *overrides]
    task.run(given, root, {"sweep": "s", "arm": "a"})
    return RunFolder(root / task.run_name(given))


@pytest.mark.parametrize(
    "optim", ["bbi", "ecdsep", "sgd", "adamw", "schedule_free_adamw", "schedule_free_sgd", "muon", "sam"]
)
def test_every_optimizer_trains_it(optim: str, tmp_path: Path) -> None:
    folder = run(tmp_path, f"optim={optim}", "seed=1", "trainer.max_epochs=4")
    record = folder.record
    assert record.state == "finished"
    assert record.labels["arm"] == "a"
    rows = read_metrics(folder.metrics_file)
    validations = [row for row in rows if "val/loss" in row]
    assert [row["step"] for row in validations] == [8, 16, 24, 32]
    assert validations[-1]["val/loss"] < validations[0]["val/loss"]
    assert record.summary["test/loss"] < 3.0
    assert record.summary["steps"] == 32
    assert any("energy/energy_error" in row for row in rows) == (optim in ("bbi", "ecdsep"))


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    def losses(where: str, seed: int) -> list[Any]:
        rows = read_metrics(run(tmp_path / where, f"seed={seed}").metrics_file)
        return [row.get("train/loss") for row in rows]

    assert losses("a", 1) == losses("b", 1) != losses("a", 2)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    before = run(tmp_path).record
    assert run(tmp_path).record == before


def test_a_stopped_run_goes_on_and_ends_after_as_many_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    step = Lines.training_step

    def stopping(self: Lines, batch: Any) -> torch.Tensor:
        calls[0] += self.training
        if calls[0] == 11 and self.training:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "training_step", stopping)
        with pytest.raises(SystemExit):
            run(tmp_path, "optim=bbi")
    with pytest.warns(UserWarning, match="dataloader is not resumable"):
        folder = run(tmp_path, "optim=bbi")
    record = folder.record
    assert (record.state, record.summary["steps"]) == ("finished", 16)
    assert [attempt.from_step for attempt in record.attempts] == [0, 11]
    assert [row["step"] for row in read_metrics(folder.metrics_file) if "val/loss" in row] == [8, 16]


def test_names_follow_what_shapes_the_result() -> None:
    name = TASK.run_name
    assert name(["optim.lr=0.1"]) == name(["optim.lr=0.1", "runtime.log_every=7", "tracking=none"])
    assert name(["optim.lr=0.1"]) != name(["optim.lr=0.2"])
    assert name(["seed=0"]).rpartition("-")[0] == name(["seed=5"]).rpartition("-")[0]
    assert name([]) != OwnModule(ByHand, Points, name="lines").run_name([])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=mlp", "model=mlp changes nothing of .*Lines.*drop it"),
        ("optim.lr=-1", "optim.lr=-1"),
        ("optim.mu=1", "optim.mu=1 is unknown"),
    ],
)
def test_mistakes_are_found_before_anything_runs(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TASK.validate([*COMMON, override])


def test_manual_optimization_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps its optimizers itself"):
        run(tmp_path, task=OwnModule(ByHand, Points))


def test_the_config_tells_no_tales_of_data_that_were_not_used() -> None:
    text = TASK.resolve([*COMMON, "optim=muon"])
    assert "module: " in text
    assert "Lines" in text
    assert "digits" not in text


@pytest.mark.parametrize("optim", ["bbi", "schedule_free_sgd"])
def test_stopped_in_its_test_only_the_test_is_made_up_for(
    optim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", f"optim={optim}").record.summary
    test = Lines.test_step

    def stopping(self: Lines, batch: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        test(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "test_step", stopping)
        with pytest.raises(SystemExit):
            run(tmp_path / "again", f"optim={optim}")
    record = run(tmp_path / "again", f"optim={optim}").record
    assert [attempt.from_step for attempt in record.attempts] == [0, 16]
    for metric in ("train/loss", "val/loss", "test/loss", "steps"):
        assert record.summary[metric] == whole[metric]
