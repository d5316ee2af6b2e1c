"""A disk that is really full, or really read-only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bbi_lightning.checkpoints.manifest import STATE, Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter

MEGABYTE = 2**20


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def state(step: int, megabytes: float) -> dict:
    return {"step": step, "w": torch.full((int(megabytes * MEGABYTE / 4),), float(step))}


def assert_intact(store: CheckpointStore, step: int) -> None:
    newest, passed_over = store.newest_valid()
    assert passed_over == []
    assert newest.step == step
    loaded = torch.load(newest.path / STATE, weights_only=True)
    assert torch.equal(loaded["w"], torch.full_like(loaded["w"], step))


def test_a_full_disk_keeps_the_old_checkpoint_and_saving_goes_on_when_there_is_room(disk):
    store = CheckpointStore(disk / "checkpoints", "toy-s0", keep_last=1)
    said: list[str] = []
    writer = CheckpointWriter(store, on_trouble=said.append)
    writer.submit(state(1, 1), Note(1, 0))
    assert writer.flush()

    others = disk / "others"
    others.write_bytes(bytes(int(2.5 * MEGABYTE)))
    for step in (2, 3):
        writer.submit(state(step, 1), Note(step, 0))
        assert not writer.flush()
        assert_intact(store, 1)
        assert [path.name for path in store.folder.iterdir()] == ["checkpoint-000001-step-1"]
    assert len(said) == 1
    assert "step 2 could not be written" in said[0]
    assert "No space left on device" in said[0]
    assert "checkpoint-000001-step-1 is still the newest" in said[0]

    others.unlink()
    assert writer.flush(), "the refused state is tried again"
    assert_intact(store, 3)
    writer.submit(state(4, 1), Note(4, 0))
    writer.close()
    assert_intact(store, 4)


def test_no_length_of_room_leaves_a_checkpoint_that_is_not_whole(disk):
    store = CheckpointStore(disk / "checkpoints", "toy-s0", keep_last=1)
    writer = CheckpointWriter(store, on_trouble=lambda sentence: None)
    writer.submit(state(1, 0.5), Note(1, 0))
    assert writer.flush()
    saved = 1
    outcomes = set()
    page = 4096
    for step, pages in enumerate(range(120, 145), start=2):  # around the size of the state
        room = shutil.disk_usage(disk).free - pages * page
        filler = disk / "filler"
        filler.write_bytes(bytes(room))
        writer.submit(state(step, 0.5), Note(step, 0))
        safe = writer.flush()
        outcomes.add(safe)
        saved = step if safe else saved
        filler.unlink()
        assert_intact(CheckpointStore(store.folder, "toy-s0"), saved)
    writer.close()
    assert outcomes == {True, False}


def test_a_disk_that_became_read_only_keeps_its_checkpoint_and_is_said(disk):
    store = CheckpointStore(disk / "checkpoints", "toy-s0")
    said: list[str] = []
    writer = CheckpointWriter(store, on_trouble=said.append)
    writer.submit(state(1, 0.5), Note(1, 0))
    assert writer.flush()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    writer.submit(state(2, 0.5), Note(2, 0))
    assert not writer.flush()
    assert_intact(store, 1)
    assert "Read-only file system" in said[0]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    writer.close()
    assert_intact(store, 2)
