"""The writer: what waits for what, what is dropped, and that trouble never reaches the training."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from bbi_lightning.checkpoints.manifest import STATE, Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter

PATIENCE = 20.0  # seconds for what takes milliseconds


class GatedStore(CheckpointStore):
    """A store whose disk is closed, open, or full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "toy-s0", keep_last=100)
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.full = False

    def commit(self, folder, note):
        self.arrived.release()
        assert self.gate.wait(PATIENCE)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().commit(folder, note)


@pytest.fixture
def store(tmp_path):
    return GatedStore(tmp_path / "checkpoints")


@pytest.fixture
def said():
    return []


@pytest.fixture
def writer(store, said):
    writer = CheckpointWriter(store, on_trouble=said.append)
    yield writer
    store.gate.set()
    writer.close()


def submit(writer: CheckpointWriter, step: int, *reasons: str) -> None:
    writer.submit({"step": step, "w": torch.full((5,), float(step))}, Note(step, 0, ("last", *reasons)))


def occupy(writer: CheckpointWriter, store: GatedStore, step: int, *reasons: str) -> None:
    """Have a state be on its way into a closed disk."""
    store.gate.clear()
    submit(writer, step, *reasons)
    assert store.arrived.acquire(timeout=PATIENCE)


def steps(store: CheckpointStore) -> list[int]:
    return [checkpoint.step for checkpoint in store.checkpoints()]


def waits(action, store: GatedStore, *, expected: bool) -> bool:
    """Whether the action goes on only when the disk opens."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(0.1 if expected else PATIENCE)
    waited = thread.is_alive()
    store.gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return waited


def test_what_was_submitted_is_on_the_disk_after_a_flush(writer, store):
    submit(writer, 7)
    assert writer.flush()
    newest, _ = store.newest_valid()
    state = torch.load(newest.path / STATE, weights_only=True)
    assert state["step"] == 7
    assert torch.equal(state["w"], torch.full((5,), 7.0))
    assert writer.blocked_seconds > 0
    assert writer.written_seconds > 0


def test_a_flush_with_nothing_to_do_returns_at_once(writer):
    assert writer.flush()


def test_what_changes_after_submit_is_not_what_is_written(writer, store):
    weights = torch.zeros(1000)
    store.gate.clear()
    writer.submit({"w": weights}, Note(0, 0))
    weights.fill_(1)
    store.gate.set()
    assert writer.flush()
    assert torch.load(store.newest_valid()[0].path / STATE, weights_only=True)["w"].sum() == 0


def test_every_one_of_many_states_is_whole(writer, store):
    weights = torch.zeros(50_000)
    for step in range(1, 40):
        weights.fill_(step)
        writer.submit({"step": step, "w": weights}, Note(step, 0))
        time.sleep(0.001)
    assert writer.flush()
    assert steps(store)[-1] == 39
    for checkpoint in store.checkpoints():
        state = torch.load(checkpoint.path / STATE, weights_only=True)
        assert torch.equal(state["w"], torch.full((50_000,), float(state["step"])))
        assert state["step"] == checkpoint.step


def test_submit_does_not_wait_for_the_disk(writer, store):
    occupy(writer, store, 1)
    assert not waits(lambda: submit(writer, 2), store, expected=False)
    assert writer.flush()
    assert steps(store) == [1, 2]


@pytest.mark.parametrize(
    ("waiting", "newer", "gives_way"),
    [
        ((), (), True),
        ((), ("best",), True),
        ((), ("milestone",), True),
        (("best",), ("best",), True),
        (("best",), ("best", "milestone"), True),
        (("best",), (), False),
        (("best",), ("milestone",), False),
        (("milestone",), ("milestone",), False),
        (("milestone",), ("best", "milestone"), False),
        (("best", "milestone"), (), False),
    ],
)
def test_a_waiting_state_gives_way_when_nothing_is_lost_by_it(writer, store, waiting, newer, gives_way):
    occupy(writer, store, 1)
    submit(writer, 2, *waiting)
    must_wait = not gives_way
    assert waits(lambda: submit(writer, 3, *newer), store, expected=must_wait) == must_wait
    assert writer.flush()
    assert steps(store) == ([1, 3] if gives_way else [1, 2, 3])


def test_a_reader_beside_the_writer_always_finds_a_whole_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, "toy-s0", keep_last=1)
    writer = CheckpointWriter(store, on_trouble=pytest.fail)
    submit(writer, 0)
    assert writer.flush()
    seen: list[int] = []
    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        reader = CheckpointStore(tmp_path, "toy-s0")
        while not done.is_set():
            newest, passed_over = reader.newest_valid()
            problems.extend(passed_over if newest is not None else ["none"])
            seen.append(-1 if newest is None else newest.step)

    thread = threading.Thread(target=read)
    thread.start()
    for step in range(1, 150):
        submit(writer, step)
        writer.flush()
    done.set()
    thread.join()
    writer.close()
    assert problems == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "the reader has not seen the writer at work"


def test_there_are_never_more_than_two_copies(writer, store):
    taken = set()
    for copy in writer._idle_copies:
        copy.take = lambda state, copy=copy, take=copy.take: taken.add(id(copy)) or take(state)
    for step in range(30):
        submit(writer, step, *(["milestone"] if step % 3 == 0 else []))
    assert writer.flush()
    assert len(taken) <= 2
    assert len(writer._idle_copies) == 2


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


def test_a_process_that_ends_without_closing_finishes_the_write_and_keeps_its_exit_code(tmp_path):
    program = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from bbi_lightning.checkpoints.store import CheckpointStore, Note\n"
        "from bbi_lightning.checkpoints.writer import CheckpointWriter\n"
        "writer = CheckpointWriter(CheckpointStore(Path(sys.argv[1]), 'r'), on_trouble=print)\n"
        "writer.submit({'w': torch.ones(5_000_000)}, Note(1, 0))\n"
        "while writer._head is None: pass\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert CheckpointStore(tmp_path, "r").newest_valid()[0].step == 1


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


def test_close_writes_what_waits_and_ends_the_thread(store):
    writer = CheckpointWriter(store, on_trouble=print)
    submit(writer, 1)
    writer.close()
    assert steps(store) == [1]
    assert not [thread for thread in threading.enumerate() if thread is writer._thread]
    with pytest.raises(RuntimeError, match="has been closed"):
        submit(writer, 2)
    writer.close()


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
