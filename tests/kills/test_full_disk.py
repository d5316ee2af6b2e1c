"""A disk that is full for a while: training goes on, and nobody can tell afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bbi_lightning.checkpoints.store import CheckpointStore
from kills.comparison import assert_as_if_never_killed
from kills.harness import Training
from kills.moments import Kill
from kills.server import Warm

OVERRIDES = [
    "model=mlp",
    "model.widths=[16]",
    "model.dropout=0.2",
    "runtime.log_every=2",
    "trainer.max_epochs=4",
]
EVERY_STEP = "checkpoint.every=0"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def whole(warm: Warm, tmp_path: Path) -> Training:
    training = Training(warm, tmp_path / "whole", OVERRIDES)
    training.attempt()
    return training


def full(disk: Path, after: int, until: int | None) -> dict[str, object]:
    return {"full_disk": {"ballast": str(disk / "ballast"), "after": after, "until": until}}


def on_small_disk(warm: Warm, disk: Path, tmp_path: Path) -> Training:
    """Its run lies on the disk; what it prints does not."""
    training = Training(warm, disk / "runs", OVERRIDES)
    training.printed_to = tmp_path / "output.txt"
    return training


def test_disk_that_is_full_for_a_while_leaves_no_trace(
    warm: Warm, disk: Path, whole: Training, tmp_path: Path
) -> None:
    training = on_small_disk(warm, disk, tmp_path)
    training.attempt(EVERY_STEP, world=full(disk, 10, 50))
    said = training.output.read_text()
    assert "metrics.jsonl takes no more rows" in said
    assert "No space left on device" in said
    assert_as_if_never_killed(training, whole)


def test_killed_while_the_disk_is_full_goes_on_from_before(
    warm: Warm, disk: Path, whole: Training, tmp_path: Path
) -> None:
    training = on_small_disk(warm, disk, tmp_path)
    kill = Kill("after the optimizer", 40, "SIGKILL")
    training.attempt(EVERY_STEP, kill=kill, world=full(disk, 20, None))
    newest, passed_over = CheckpointStore(training.folder.checkpoints, training.folder.name).newest_valid()
    assert newest is not None
    assert newest.step < 40  # a save that failed leaves room for the next, until that is filled too
    assert passed_over == []
    assert "No space left on device" in training.output.read_text()
    (disk / "ballast").unlink()
    training.attempt()
    assert_as_if_never_killed(training, whole)
