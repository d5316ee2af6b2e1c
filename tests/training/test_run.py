"""The life of a run: its states, its files, and that resuming is as if it had never stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from bbi_lightning.checkpoints.store import Checkpoint, CheckpointStore, ForeignCheckpointError
from bbi_lightning.checkpoints.writer import CheckpointWriter
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training import interrupts
from bbi_lightning.training.checkpointing import opened
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import compose, run_name
from bbi_lightning.training.run import exit_if_interrupted, train

STEPS_PER_EPOCH = 18
SMALL = ["tracking=none", "runtime.progress=none", "runtime.threads=1", "runtime.accelerator=cpu"]


def small(root: Path, *overrides: str, epochs: int = 2) -> DictConfig:
    return compose([*SMALL, f"trainer.max_epochs={epochs}", f"runtime.root={root}", *overrides])


def saved(folder: RunFolder) -> list[Checkpoint]:
    return CheckpointStore(folder.checkpoints, folder.name).checkpoints()


def checkpoint(folder: RunFolder) -> dict[str, Any]:
    """The newest, without what a clock measured."""
    state = opened(saved(folder)[-1].path)
    del state["callbacks"]["RunCheckpoint"]["history"]["seconds"]
    return state


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The metric log without what a clock measured."""
    timeless = [
        {k: v for k, v in row.items() if not k.startswith(("time", "speed/"))}
        for row in read_metrics(folder.metrics_file)
    ]
    return [row for row in timeless if set(row) - {"step", "epoch"}]


def kill_self_at(monkeypatch: pytest.MonkeyPatch, batch: int, number: int = signal.SIGTERM) -> None:
    """A signal arrives while the process works on its n-th training batch (counted from 1)."""
    step, count = Classification.training_step, [0]

    def training_step(self: Classification, *args: Any) -> Any:
        count[0] += 1
        if count[0] == batch:
            os.kill(os.getpid(), number)
        return step(self, *args)

    monkeypatch.setattr(Classification, "training_step", training_step)


def test_finished_run_holds_everything(tmp_path: Path) -> None:
    config = small(tmp_path, "runtime.labels.why=test")
    folder = train(config, labels={"arm": "bbi"}, overrides=["optim=bbi"])

    assert folder.path == tmp_path / run_name(config)
    assert OmegaConf.load(folder.config_file).optim.lr == config.optim.lr
    record = folder.record
    assert record.state == "finished"
    assert record.labels == {"why": "test", "arm": "bbi"}
    assert record.overrides == ("optim=bbi",)
    assert [a.from_step for a in record.attempts] == [0]
    summary = record.summary
    assert summary["steps"] == 2 * STEPS_PER_EPOCH
    assert summary["parameters"] > 1000
    assert summary["wall_s"] > 0
    assert 0.5 < summary["test/acc"] <= 1
    for metric in ("train/loss", "val/loss", "val/acc", "test/loss", "energy/energy", "speed/samples_per_s"):
        assert math.isfinite(summary[metric])
    assert [row["step"] for row in rows(folder)] == [1, 18, 20, 36, 36]
    assert saved(folder)[-1].step == 36


def test_same_config_finds_the_finished_run_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(small(tmp_path, epochs=1))
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    again = train(small(tmp_path, "runtime.progress=lines", epochs=1))
    assert again.path == first.path
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before
    assert "has finished already" in capsys.readouterr().err


def test_same_seed_same_bits_other_seed_other_bits(tmp_path: Path) -> None:
    one, two = (checkpoint(train(small(tmp_path / name, epochs=1))) for name in "ab")
    other = checkpoint(train(small(tmp_path, "seed=1", epochs=1)))
    for name, weights in one["state_dict"].items():
        assert torch.equal(weights, two["state_dict"][name])
    assert any(not torch.equal(w, other["state_dict"][n]) for n, w in one["state_dict"].items())


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Equal to the last bit, tensors included."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one.nan_to_num(nan=7.0), other.nan_to_num(nan=7.0)), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}/{k}")
    else:
        assert one == other or one != one, path


CASES = {
    "bbi": [],
    "bbi with bounces": ["optim.bounce_every=5", "optim.n_bounces=5"],
    "ecdsep with chance": ["optim=ecdsep", "optim.nu=1e-3"],
    "sgd": ["optim=sgd"],
    "adamw, cosine": ["optim=adamw", "scheduler=cosine", "scheduler.warmup=0.2"],
    "dropout": ["model.dropout=0.3"],
    "augmentation": ["data.augment=true"],
    "accumulation": ["trainer.accumulate_grad_batches=4"],
    "step limit": ["trainer.max_steps=30"],
    "only a step limit": ["trainer.max_epochs=null", "trainer.max_steps=30"],
    "validation every other epoch": ["trainer.check_val_every_n_epoch=2"],
    "no validation": ["data.val_size=0"],
}


@pytest.mark.parametrize("batch", [1, 7, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH - 1])
@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_is_as_if_never_stopped(
    case: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(small(tmp_path / "whole", *CASES[case]))
    with monkeypatch.context() as patch:
        kill_self_at(patch, batch)
        folder = train(small(tmp_path / "parts", *CASES[case]))
    finished_before = "step limit" in case and batch > 30
    if not finished_before:
        assert folder.record.state == "interrupted"
        assert folder.record.attempts[-1].reason == "SIGTERM"
        assert not [row for row in rows(folder) if "test/acc" in row]
    folder = train(small(tmp_path / "parts", *CASES[case]))

    assert folder.record.state == "finished"
    ours, expected = checkpoint(folder), checkpoint(whole)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch"):
        assert_equal(ours[part], expected[part], part)
    assert_equal(rows(folder), rows(whole))
    for metric in ("val/loss", "test/loss", "test/acc", "train/loss"):
        assert folder.record.summary.get(metric) == whole.record.summary.get(metric)


def test_interrupted_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(small(tmp_path / "whole"))
    steps = []
    for _ in range(20):
        with monkeypatch.context() as patch:
            kill_self_at(patch, batch=5)
            folder = train(small(tmp_path / "parts"))
        steps.append(saved(folder)[-1].step)
        if folder.record.state == "finished":
            break
    assert steps[:3] == [5, 10, 15]
    assert len(folder.record.attempts) == len(steps)
    assert [a.from_step for a in folder.record.attempts] == [0, *steps[:-1]]
    assert_equal(checkpoint(folder)["state_dict"], checkpoint(whole)["state_dict"])
    assert_equal(rows(folder), rows(whole))


def test_rows_after_the_checkpoint_are_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process has logged more than it saved."""
    whole = train(small(tmp_path / "whole", "runtime.log_every=1"))
    with monkeypatch.context() as patch:
        kill_self_at(patch, batch=7)
        folder = train(small(tmp_path / "parts", "runtime.log_every=1"))
    with folder.metrics_file.open("a") as file:
        file.write('{"step": 8, "epoch": 0, "time": 9.0, "train/loss": 123.0}\n{"step": 9, "ep')
    folder = train(small(tmp_path / "parts", "runtime.log_every=1"))
    assert_equal(rows(folder), rows(whole))


def test_run_that_was_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=1)
    folder = RunFolder.create(tmp_path / run_name(config), config="")
    folder.begin_attempt()
    folder.release()
    folder.metrics_file.write_text('{"step": 3, "epoch": 0, "time": 1.0, "train/loss": 9.0}\n')

    folder = train(config)

    assert folder.record.state == "finished"
    assert [a.reason for a in folder.record.attempts] == ["lost", "trained to the end"]
    assert 3 not in [row["step"] for row in rows(folder)]


def test_interrupted_in_the_last_validation_only_the_test_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_self_at(patch, batch=2 * STEPS_PER_EPOCH)
        folder = train(small(tmp_path))
    assert folder.record.state == "interrupted"
    assert saved(folder)[-1].step == 2 * STEPS_PER_EPOCH

    def no_training(self: Classification, *args: Any) -> None:
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(Classification, "training_step", no_training)
    folder = train(small(tmp_path))
    assert folder.record.state == "finished"
    assert folder.record.summary["test/acc"] > 0.5
    assert folder.record.summary["steps"] == 2 * STEPS_PER_EPOCH


@pytest.mark.parametrize("optimizer", ["sgd", "bbi"])
@pytest.mark.filterwarnings("ignore:.*a loss that is not finite was skipped.*")
def test_diverged_run_is_a_result(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, count = Classification.training_step, [0]

    def poisoned(self: Classification, *args: Any) -> Any:
        count[0] += 1
        return step(self, *args) * (math.nan if count[0] > 5 else 1.0)

    monkeypatch.setattr(Classification, "training_step", poisoned)
    folder = train(small(tmp_path, f"optim={optimizer}", epochs=50))
    record = folder.record
    assert record.state == "diverged"
    assert record.attempts[-1].exception is None
    assert record.summary["steps"] == 20  # not 900
    assert math.isnan(record.summary["train/loss"])
    assert "test/acc" not in record.summary
    assert train(small(tmp_path, f"optim={optimizer}", epochs=50)).record == record


def test_failure_is_written_down_and_raised_and_the_run_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Classification, *args: Any) -> Any:
        raise RuntimeError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "validation_step", broken)
        with pytest.raises(RuntimeError, match="on fire"):
            train(small(tmp_path))
    (folder,) = (RunFolder(path) for path in tmp_path.iterdir())
    assert folder.record.state == "failed"
    assert "RuntimeError: the disk is on fire" in str(folder.record.attempts[-1].exception)
    assert train(small(tmp_path)).record.state == "finished"


def test_mistake_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr=-1"):
        train(small(tmp_path, "optim.lr=-1"))
    assert list(tmp_path.iterdir()) == []


def test_damaged_checkpoint_is_passed_over_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(small(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        kill_self_at(patch, batch=7)
        folder = train(small(tmp_path / "parts", "checkpoint.every=0"))
    before, newest = saved(folder)
    (newest.path / "state.pt").write_bytes(b"half a check")
    folder = train(small(tmp_path / "parts"))
    assert f"{newest.path.name} is passed over: state.pt has 12 of" in caplog.text
    assert folder.record.attempts[-1].from_step == before.step > 0
    assert_equal(checkpoint(folder)["state_dict"], checkpoint(whole)["state_dict"])
    assert_equal(rows(folder), rows(whole))


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    other = train(small(tmp_path / "other", "seed=1", epochs=1))
    config = small(tmp_path, epochs=1)
    folder = RunFolder.create(tmp_path / run_name(config), config="")
    other.checkpoints.rename(folder.checkpoints)
    with pytest.raises(ForeignCheckpointError, match=r"is a checkpoint of run .*-s1, not of"):
        train(config)
    assert folder.record.attempts == ()


def noted(patch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...]]]:
    """Every checkpoint that is handed to the writer: after which step, and why."""
    notes = []
    submit = CheckpointWriter.submit

    def noting(self: CheckpointWriter, state: Any, note: Any) -> None:
        notes.append((note.step, note.reasons))
        submit(self, state, note)

    patch.setattr(CheckpointWriter, "submit", noting)
    return notes


def test_checkpoints_are_at_most_so_many_seconds_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = noted(monkeypatch)
    train(small(tmp_path / "rarely", "checkpoint.keep_best=null", epochs=1))
    assert notes == [(STEPS_PER_EPOCH, ("last",))]
    notes.clear()
    train(small(tmp_path / "always", "checkpoint.every=0", epochs=1))
    before_validation = [STEPS_PER_EPOCH]
    assert [step for step, _ in notes] == [*range(1, STEPS_PER_EPOCH + 1), *before_validation]


def test_run_leaves_before_its_time_is_up_and_goes_on_in_the_next(tmp_path: Path) -> None:
    began = time.monotonic()
    folder = train(small(tmp_path, "runtime.max_time=8", epochs=10_000))
    assert time.monotonic() - began < 8
    assert folder.record.state == "interrupted"
    assert folder.record.attempts[-1].reason == "time limit"
    reached = saved(folder)[-1].step
    assert reached > 10
    assert rows(folder)[-1]["step"] <= reached
    again = train(small(tmp_path, "runtime.max_time=8", epochs=10_000))
    assert again.record.attempts[-1].from_step == reached
    assert saved(again)[-1].step > reached


def test_milestones_are_saved_at_their_step_and_stay(tmp_path: Path) -> None:
    folder = train(small(tmp_path, "checkpoint.milestones=[3,18]", "checkpoint.keep_every=10"))
    kept = {c.step for c in saved(folder) if "milestone" in c.manifest.reasons}
    assert kept == {3, 10, 18, 20, 30}


def test_best_checkpoint_is_that_of_the_best_validation(tmp_path: Path) -> None:
    folder = train(small(tmp_path, "checkpoint.keep_best=val/loss", "optim=sgd", "optim.lr=3", epochs=6))
    curve = {row["step"]: row["val/loss"] for row in rows(folder) if "val/loss" in row}
    best = CheckpointStore(folder.checkpoints, folder.name).best()
    assert best is not None
    assert curve[best.step] == min(curve.values())
    assert best.manifest.values == {"val/loss": pytest.approx(curve[best.step], rel=1e-6)}  # one is float32
    assert opened(best.path)["global_step"] == best.step


def test_interrupted_process_exits_with_the_signals_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, interrupts.listening():
        kill_self_at(patch, batch=3, number=signal.SIGTERM)
        folder = train(small(tmp_path), labels={"sweep": "s"})
        with pytest.raises(SystemExit) as stopped:
            exit_if_interrupted(folder)
    assert stopped.value.code == 143
    with interrupts.listening():
        exit_if_interrupted(train(small(tmp_path), labels={"sweep": "s"}))
    (record,) = (json.loads((path / "run.json").read_text()) for path in tmp_path.iterdir())
    assert record["state"] == "finished"
    assert record["labels"] == {"sweep": "s"}


def test_wandb_offline_gets_the_run(tmp_path: Path) -> None:
    folder = train(small(tmp_path, "tracking=offline", epochs=1))
    assert folder.record.state == "finished"
    assert list(folder.path.glob("wandb/offline-run-*/*.wandb"))


def test_accumulation_counts_optimizer_steps(tmp_path: Path) -> None:
    folder = train(small(tmp_path, "trainer.accumulate_grad_batches=4", epochs=2))
    assert folder.record.summary["steps"] == 2 * 5  # windows of 4, 4, 4, 4 and 2


def test_step_limit_ends_with_a_validation(tmp_path: Path) -> None:
    folder = train(small(tmp_path, "trainer.max_steps=25", epochs=30))
    assert folder.record.summary["steps"] == 25
    assert [row["step"] for row in rows(folder) if "val/acc" in row] == [18, 25]
