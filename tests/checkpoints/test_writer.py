"""The writer: what waits for what, what is dropped, and that trouble never reaches the training."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch

from bbi_lightning.checkpoints.manifest import STATE, Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter
from checkpoints.gated_store import occupy, steps, submit, waits


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


def test_close_writes_what_waits_and_ends_the_thread(store):
    writer = CheckpointWriter(store, on_trouble=print)
    submit(writer, 1)
    writer.close()
    assert steps(store) == [1]
    assert not [thread for thread in threading.enumerate() if thread is writer._thread]
    with pytest.raises(RuntimeError, match="has been closed"):
        submit(writer, 2)
    writer.close()
