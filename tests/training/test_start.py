"""Runs that begin at another run's checkpoint, anew, or where a shorter run has ended."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bbi_lightning.checkpoints.shard_files import read_whole
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import compose, run_name
from bbi_lightning.training.run import train
from training.test_run import SMALL, assert_equal, checkpoint, rows, saved, small

BBI = Path(sys.executable).with_name("bbi")


def begun_from(folder: RunFolder, take: str, *overrides: str) -> list[str]:
    return ["start=checkpoint", f"start.checkpoint='{folder.path}'", f"start.take={take}", *overrides]


def energy(folder: RunFolder) -> float:
    return float(checkpoint(folder)["optimizer_states"][0]["param_groups"][0]["ecd"]["energy"])


def test_weights_alone_are_taken_into_a_new_run(tmp_path: Path) -> None:
    source = train(small(tmp_path, epochs=1))
    at_rest = begun_from(source, "weights", "optim=sgd", "optim.lr=0", "optim.momentum=0")
    folder = train(small(tmp_path, *at_rest, epochs=1))
    weights, expected = (
        {name: w for name, w in checkpoint(run)["state_dict"].items() if name.endswith(("weight", "bias"))}
        for run in (folder, source)
    )
    assert_equal(weights, expected)
    assert folder.record.origin == {"run": source.name, "step": 18, "take": "weights"}
    assert [a.from_step for a in folder.record.attempts] == [0]


def test_momenta_and_energy_are_taken_if_asked_for_and_settings_are_the_configs(tmp_path: Path) -> None:
    source = train(small(tmp_path, epochs=1))
    both = train(small(tmp_path, *begun_from(source, "weights_and_optimizer", "optim.lr=0.05"), epochs=1))
    only = train(small(tmp_path, *begun_from(source, "weights"), epochs=1))
    assert energy(both) == energy(source)
    assert energy(only) != energy(source)
    assert checkpoint(both)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.05
    assert checkpoint(both)["global_step"] == 18


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["bbi", "adamw"])
def test_momenta_are_taken_into_a_run_whose_processes_share_the_parameters(
    optimizer: str, tmp_path: Path
) -> None:
    exact = ["trainer.precision=64-true", "model=mlp", f"optim={optimizer}"]
    source = train(small(tmp_path / "source", *exact, epochs=1))
    words = [*exact, *begun_from(source, "weights_and_optimizer"), "trainer.max_steps=5"]
    alone = train(small(tmp_path / "alone", *words))
    sharing = [*SMALL, "trainer.max_epochs=2", *words, f"runtime.root={tmp_path}/both"]
    command = [BBI, "train", *sharing, "runtime.devices=2", "runtime.strategy=fsdp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    both = RunFolder(tmp_path / "both" / alone.name)
    ours, expected = (read_whole(saved(folder)[-1].path) for folder in (both, alone))
    for index, state in expected["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(
                ours["optimizer_states"][0]["state"][index][name], value, rtol=1e-10, atol=1e-12
            )


def test_start_is_part_of_the_identity_by_content_not_by_place(tmp_path: Path) -> None:
    source = train(small(tmp_path, epochs=1))
    here = small(tmp_path, *begun_from(source, "weights"))
    moved = RunFolder(source.path.rename(tmp_path / "elsewhere"))
    there = small(tmp_path, *begun_from(moved, "weights"))
    assert run_name(here) == run_name(there)
    assert run_name(here) != run_name(small(tmp_path, *begun_from(moved, "weights_and_optimizer")))
    assert run_name(here) != run_name(small(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=mlp"], r"does not fit the model: \S+ is (absent|\(.*\)) there and .* here"),
        (["optim=sgd", "start.take=weights_and_optimizer"], "SGD cannot go on from the optimizer of run"),
        (["optim=ecdsep", "start.take=weights_and_optimizer"], "another member of the family"),
    ],
)
def test_what_does_not_fit_is_one_sentence(overrides: list[str], said: str, tmp_path: Path) -> None:
    source = train(small(tmp_path, epochs=1))
    config = small(tmp_path / "new", *begun_from(source, "weights"), *overrides, epochs=1)
    with pytest.raises(ConfigError, match=said):
        train(config)


def test_missing_or_changed_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"start\.checkpoint=\S*nowhere holds no checkpoint: give a run's"):
        compose(["start=checkpoint", f"start.checkpoint={tmp_path}/nowhere"])
    source = train(small(tmp_path, epochs=1))
    with pytest.raises(ConfigError, match="has changed since this run was begun"):
        train(small(tmp_path, *begun_from(source, "weights"), "start.digest='0123456789abcdef'"))


def test_longer_run_goes_on_like_one_that_was_meant_to_be_long(tmp_path: Path) -> None:
    long = train(small(tmp_path / "long", epochs=4))
    short = train(small(tmp_path, epochs=2))
    before = {path: path.stat().st_mtime_ns for path in short.path.rglob("*")}
    longer = train(small(tmp_path, *begun_from(short, "everything"), epochs=4))

    assert longer.path != short.path
    assert {path: path.stat().st_mtime_ns for path in short.path.rglob("*")} == before
    assert longer.record.origin == {"run": short.name, "step": 36, "take": "everything"}
    assert [a.from_step for a in longer.record.attempts] == [36]
    ours, expected = checkpoint(longer), checkpoint(long)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_equal(ours[part], expected[part], part)
    validations = [[r for r in rows(folder) if "val/loss" in r] for folder in (longer, long)]
    assert [(r["step"], r["val/loss"]) for r in validations[0]] == [
        (r["step"], r["val/loss"]) for r in validations[1]
    ]
    tests = [row["step"] for row in rows(longer) if "test/acc" in row]
    assert tests == [72]
    assert saved(longer)[-1].step == 72


def test_beginning_anew_sets_the_old_run_aside(tmp_path: Path) -> None:
    config = small(tmp_path, epochs=1)
    first = train(config)
    note = first.path / "note.txt"
    note.write_text("mine")
    again = train(config, fresh=True)
    assert again.path == first.path
    assert not note.exists()
    old = tmp_path / ".replaced" / f"{first.name}-1"
    assert (old / "note.txt").read_text() == "mine"
    assert RunFolder(old).record.state == "finished"
    assert [a.from_step for a in again.record.attempts] == [0]
    assert_equal(checkpoint(again)["state_dict"], checkpoint(RunFolder(old))["state_dict"])
    train(config, fresh=True)
    assert {path.name for path in old.parent.iterdir()} == {f"{first.name}-1", f"{first.name}-2"}
    assert math.isfinite(again.record.summary["test/loss"])
