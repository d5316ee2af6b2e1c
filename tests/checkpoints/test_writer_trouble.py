"""The writer on a disk that refuses: what is said, what is tried again, what is dropped."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from bbi_lightning.checkpoints.manifest import Note
from bbi_lightning.checkpoints.writer import CheckpointWriter
from checkpoints.gated_store import PATIENCE, occupy, steps, submit


def test_a_full_disk_is_said_once_and_leaves_the_old_checkpoint(writer, store, said):
    submit(writer, 1)
    assert writer.flush()
    store.full = True
    for step in range(2, 6):
        submit(writer, step)
        assert not writer.flush()
    assert said == [
        f"the checkpoint of step 2 could not be written to {store.folder} (No space left on device): "
        "checkpoint-000001-step-1 is still the newest. Training goes on, and saving is tried again"
    ]
    assert steps(store) == [1]
    assert [path.name for path in store.folder.iterdir()] == ["checkpoint-000001-step-1"]


def test_when_the_disk_has_room_again_the_newest_state_is_written_and_it_is_said(writer, store, said):
    store.full = True
    submit(writer, 1)
    assert not writer.flush()
    assert "there is no earlier one" in said[0]
    store.full = False
    submit(writer, 2)
    assert writer.flush()
    assert steps(store) == [2]
    assert said[1:] == [f"the checkpoint of step 2 is written: the trouble with {store.folder} is over"]
    assert not writer.wants_retry


def test_a_flush_tries_once_more(writer, store):
    store.full = True
    submit(writer, 1)
    assert not writer.flush()
    store.full = False
    assert writer.flush()
    assert steps(store) == [1]


def test_a_refused_milestone_is_written_when_the_disk_has_room_again_and_before_what_is_newer(writer, store):
    store.full = True
    submit(writer, 1, "milestone")
    assert not writer.flush()
    for step in (2, 3, 4):
        submit(writer, step)
    store.full = False
    assert writer.flush()
    assert steps(store) == [1, 4]


def test_with_two_refused_milestones_a_third_is_dropped_and_that_is_said(writer, store, said):
    store.full = True
    for step in (1, 2, 3):
        submit(writer, step, "milestone")
    assert not writer.flush()
    assert (
        said[-1] == "the checkpoint of step 3 (last, milestone) is lost: the disk still refuses earlier ones"
    )
    store.full = False
    writer.flush()
    assert steps(store) == [1, 2]


def test_a_dropped_state_is_not_called_safe(writer, store):
    store.full = True
    for step in (1, 2):
        submit(writer, step, "milestone")
    submit(writer, 3)
    store.full = False
    assert not writer.flush(), "the newest state is not on the disk"
    assert steps(store) == [1, 2]
    submit(writer, 4)
    assert writer.flush()


def test_a_failure_behind_which_a_newer_state_waits_ends_with_the_newer_one_safe(writer, store):
    real = store.commit
    failures = [OSError(errno.EIO, "Input/output error")]

    def once(folder, note):
        store.arrived.release()
        assert store.gate.wait(PATIENCE)
        if failures:
            raise failures.pop()
        return real(folder, note)

    store.commit = once
    occupy(writer, store, 1)
    submit(writer, 2)
    store.gate.set()
    assert writer.flush()
    assert steps(store) == [2]


def test_another_cause_is_said_too(writer, store, said, monkeypatch):
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EDQUOT, errno.EROFS):
        monkeypatch.setattr(
            store, "begin", lambda number=number: (_ for _ in ()).throw(OSError(number, os.strerror(number)))
        )
        submit(writer, 1)
        assert not writer.flush()
    assert [sentence.partition("(")[2].partition(")")[0] for sentence in said] == [
        "No space left on device",
        "Disk quota exceeded",
        "Read-only file system",
    ]


def test_no_kind_of_error_comes_out_of_the_thread_or_stops_it(writer, store, said, monkeypatch):
    def broken(*args):
        raise RuntimeError("unexpected pos 576 vs 534")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken)
        submit(writer, 1)
        assert not writer.flush()
    assert "RuntimeError: unexpected pos" in said[0]
    submit(writer, 2)
    assert writer.flush()
    assert [path.name for path in store.folder.iterdir()] == ["checkpoint-000001-step-2"]


def test_a_listener_that_fails_does_not_stop_the_writer(store):
    def listener(sentence):
        raise ValueError("no terminal")

    writer = CheckpointWriter(store, on_trouble=listener)
    store.full = True
    submit(writer, 1)
    assert not writer.flush()
    store.full = False
    assert writer.flush()
    writer.close()


def test_a_state_that_cannot_be_saved_is_an_error_in_the_caller_and_harms_nothing(writer, store):
    with pytest.raises(TypeError, match=r"^bad in the checkpoint is a builtins\.object"):
        writer.submit({"w": torch.ones(2), "bad": object()}, Note(1, 0))
    assert len(writer._idle_copies) == 2
    submit(writer, 2)
    assert writer.flush()
    assert steps(store) == [2]


def test_a_host_without_memory_for_the_copy_is_trouble_and_no_error(writer, store, said, monkeypatch):
    from bbi_lightning.checkpoints.host_copy import HostCopy

    def take(self, state):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(HostCopy, "take", take)
        submit(writer, 1)
        assert not writer.flush()
    assert "the checkpoint of step 1 could not be written" in said[0]
    submit(writer, 2)
    assert writer.flush()


def test_wants_a_retry_after_a_pause_that_grows(store, monkeypatch):
    from bbi_lightning.checkpoints.trouble import Trouble

    now = 100.0
    trouble = Trouble(store, [].append, clock=lambda: now)
    pauses = []
    assert not trouble.wants_retry
    for _ in range(8):
        trouble.begin(OSError(errno.ENOSPC, "full"))
        start = now
        assert not trouble.wants_retry
        while not trouble.wants_retry:
            now += 1
        pauses.append(now - start)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    trouble.end(Note(1, 0))
    assert not trouble.wants_retry


def test_a_folder_filled_by_others_is_committed_or_reported(writer, store, said):
    def fill(step):
        folder = store.begin()
        (folder / "shard").write_bytes(b"x")
        writer.commit(folder, Note(step, 0, layout="sharded", world_size=2))

    fill(1)
    assert writer.flush()
    store.full = True
    fill(2)
    assert not writer.flush()
    assert steps(store) == [1]
    assert "step 2 could not be written" in said[0]
    writer.report(OSError(errno.EIO, "Input/output error"))
    assert "a checkpoint could not be written" in said[1]
    store.full = False
    fill(3)
    assert writer.flush()
    assert steps(store) == [1, 3]
