"""A run goes on wherever it wakes up: another place, host, clock, number of processes."""

from __future__ import annotations

import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from kills.comparison import assert_as_if_never_killed, assert_same, newest_state
from kills.harness import PATIENCE, Training
from kills.moments import Kill
from kills.server import Warm, wait

OVERRIDES = [
    "model=mlp",
    "model.widths=[16]",
    "model.dropout=0.2",
    "optim.bounce_every=5",
    "optim.n_bounces=5",
    "runtime.log_every=2",
    "trainer.max_epochs=3",
]
DAY = 86400.0


def restamp(folder: Path, dice: random.Random) -> None:
    """Files get stamps of any year, in any order, as after a copy or from a host whose clock is wrong."""
    for path in folder.rglob("*"):
        when = dice.uniform(0, 2 * 1.7e9)
        os.utime(path, (when, when))


def test_moved_folder_other_host_and_another_clock_do_not_matter(warm: Warm, tmp_path: Path) -> None:
    dice = random.Random(0)
    whole = Training(warm, tmp_path / "whole", OVERRIDES)
    whole.attempt()
    killed = Training(warm, tmp_path / "place-0", OVERRIDES)
    worlds = [
        {"clock": 400 * DAY, "host": "node-1"},
        {"clock": -9000 * DAY, "host": "node-2"},
        {"clock": 0.0, "host": "node-3"},
    ]
    for number, world in enumerate(worlds, start=1):
        kill = Kill("after the optimizer", 11, "SIGKILL" if number < 3 else "SIGTERM")
        killed.attempt("checkpoint.every=0", kill=kill, world=world, resume=number > 1)
        killed.root = Path(shutil.move(killed.root, tmp_path / f"place-{number}"))
        restamp(killed.root, dice)
    killed.attempt(world={"clock": -1 * DAY, "host": "node-4"}, resume=True)

    assert_as_if_never_killed(killed, whole)
    record = killed.folder.record
    assert [attempt.host for attempt in record.attempts] == ["node-1", "node-2", "node-3", "node-4"]
    assert [attempt.reason for attempt in record.attempts] == [
        "lost",
        "lost",
        "SIGTERM",
        "trained to the end",
    ]
    assert record.attempts[0].started > record.attempts[3].started > record.attempts[1].started


def test_run_that_goes_further_than_it_was_meant_to_is_the_longer_run(warm: Warm, tmp_path: Path) -> None:
    longer = Training(warm, tmp_path / "longer", [*OVERRIDES, "trainer.max_epochs=5"])
    longer.attempt()
    shorter = Training(warm, tmp_path / "shorter", OVERRIDES)
    shorter.attempt()
    command = ["resume", str(shorter.folder.path), "trainer.max_epochs=5"]
    assert wait([warm.start(command, {}, shorter.output)], PATIENCE) == [0], shorter.report()

    (extended,) = (
        RunFolder(path.parent)
        for path in shorter.root.glob("*/run.json")
        if path.parent != shorter.folder.path
    )
    assert_same(extended, longer.folder)


def assert_close(one: Any, other: Any, place: str) -> None:
    if isinstance(one, torch.Tensor) and one.is_floating_point():
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=lambda text: f"{place}: {text}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_close(one[key], other[key], f"{place}, {key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{place}[{k}]")
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-8, abs_tol=1e-10) or one != one, f"{place}: {one}, {other}"
    else:
        assert one == other, place


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [["optim.bounce_every=7", "optim.n_bounces=9"], ["optim=ecdsep", "optim.nu=1e-3"], ["optim=sgd"]],
    ids=["bbi", "ecdsep", "sgd"],
)
def test_any_number_of_processes_goes_on_with_the_same_physics(
    optimizer: list[str], warm: Warm, tmp_path: Path
) -> None:
    """Two, then one, then four; to rounding, in double precision."""
    overrides = [
        "model=mlp",
        "model.widths=[16]",
        "data.augment=true",
        "trainer.precision=64-true",
        "trainer.max_epochs=3",
        "runtime.log_every=2",
        *optimizer,
    ]
    whole = Training(warm, tmp_path / "whole", overrides)
    whole.attempt()
    killed = Training(warm, tmp_path / "killed", overrides)
    for ranks, kill in ((2, Kill("in backward", 14, "SIGKILL", 1)), (1, Kill("in forward", 9, "SIGUSR1"))):
        killed.ranks = ranks
        killed.attempt("checkpoint.every=0", kill=kill)
    killed.ranks = 4
    killed.attempt()

    steps = [attempt.from_step for attempt in killed.folder.record.attempts]
    assert len(steps) == 3
    assert 0 < steps[1] < steps[2] < 54, steps
    ours, expected = newest_state(killed.folder), newest_state(whole.folder)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_close(ours[part], expected[part], part)
    rows = [
        [
            {key: value for key, value in row.items() if not key.startswith(("time", "speed/"))}
            for row in read_metrics(training.folder.metrics_file)
        ]
        for training in (killed, whole)
    ]
    assert_close(*rows, "metrics.jsonl")
