"""How a run begins and ends where something beside it has gone wrong, and what is written down then."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
from bbi_lightning.checkpoints.store import CheckpointStore, Note
from bbi_lightning.checkpoints.writer import CheckpointWriter
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training import checkpointing
from bbi_lightning.training.checkpointing import RunCheckpoint
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.exchange import Exchange
from bbi_lightning.training.options import CheckpointOptions
from bbi_lightning.training.run import LostRankError, is_rank_zero, train
from bbi_lightning.training.watchdog import Watchdog
from training.test_run import kill_self_at, saved, small
from training.test_start import begun_from


def fail_with(error: Exception, patch: pytest.MonkeyPatch) -> None:
    """Have training fail, and another rank be gone then, as all are when each fails alike."""

    def broken(self: Classification, *args: Any) -> Any:
        raise error

    patch.setattr(Classification, "training_step", broken)
    patch.setattr(Watchdog, "lost_rank", lambda self: "rank 1 ended with exit code 1")


@pytest.mark.parametrize("error", [ValueError("no such layer"), RuntimeError("shapes do not match")])
def test_a_mistake_that_all_ranks_make_alike_is_no_lost_rank(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    with pytest.raises(type(error), match=str(error)):
        train(small(tmp_path))
    (folder,) = (RunFolder(path) for path in tmp_path.iterdir())
    assert folder.record.attempts[-1].reason == type(error).__name__


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer"),
        dist.DistBackendError("NCCL communicator was aborted"),
    ],
)
def test_a_collective_that_fails_is_a_lost_rank_where_one_is_gone(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    with pytest.raises(LostRankError, match="rank 1 ended with exit code 1"):
        train(small(tmp_path))
    (folder,) = (RunFolder(path) for path in tmp_path.iterdir())
    assert folder.record.attempts[-1].reason == "rank 1 ended with exit code 1"


def test_a_run_is_held_until_nothing_is_written_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, holders = CheckpointWriter.close, []

    def noting(self: CheckpointWriter) -> None:
        close(self)
        holders.append(RunFolder(self.store.folder.parent).holder())

    monkeypatch.setattr(CheckpointWriter, "close", noting)
    kill_self_at(monkeypatch, batch=3)
    folder = train(small(tmp_path))
    (holder,) = holders
    assert holder is not None
    assert holder["pid"] == os.getpid()
    assert folder.holder() is None


def test_a_run_is_held_while_it_looks_for_its_newest_checkpoint_and_let_go_if_there_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders = []

    def newest(self: CheckpointStore) -> Any:
        holders.append(RunFolder(self.folder.parent).holder())
        raise OSError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "newest_valid", newest)
        with pytest.raises(OSError, match="away"):
            train(small(tmp_path))
    assert holders[0] is not None
    assert train(small(tmp_path, epochs=2)).record.state == "finished"


def test_a_damaged_beginning_is_one_sentence(tmp_path: Path) -> None:
    source = train(small(tmp_path, epochs=1))
    config = small(tmp_path, *begun_from(source, "weights"), epochs=1)
    state = saved(source)[-1].path / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ConfigError, match=r"is damaged \(state\.pt has other contents than were written\)"):
        train(config)


def test_a_run_that_has_saved_goes_on_without_what_it_began_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = train(small(tmp_path / "source", epochs=1))
    config = small(tmp_path, *begun_from(source, "weights"))
    with monkeypatch.context() as patch:
        kill_self_at(patch, batch=5)
        folder = train(config)
    assert folder.record.state == "interrupted"
    shutil.rmtree(source.path)
    again = train(config)
    assert again.record.state == "finished"
    assert [a.from_step for a in again.record.attempts] == [0, 5]
    assert again.record.origin["run"] == source.name
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        train(config, fresh=True)
    assert again.record.state == "finished"


def test_a_disk_that_takes_not_even_the_end_does_not_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: RunFolder, *args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "end_attempt", full)
        kill_self_at(patch, batch=3)
        folder = train(small(tmp_path))
    assert folder.record.state == "running"
    assert "does not say that the run is interrupted" in caplog.text
    assert folder.holder() is None
    again = train(small(tmp_path))
    assert [(a.from_step, a.reason) for a in again.record.attempts] == [
        (0, "lost"),
        (3, "trained to the end"),
    ]


def test_only_the_first_process_of_the_first_node_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_rank_zero()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_rank_zero()


def checkpointing_of(folder: Path, said: list[str]) -> RunCheckpoint:
    io = StoreCheckpointIO(CheckpointWriter(CheckpointStore(folder, "toy-s0"), on_trouble=said.append))
    watchdog = Watchdog(60.0, print)
    return RunCheckpoint(
        io, CheckpointOptions(), Exchange(), history=None, time_limit=None, watchdog=watchdog
    )


def test_a_disk_that_takes_no_folder_for_shards_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    callback = checkpointing_of(tmp_path, said)

    def full(self: CheckpointStore) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CheckpointStore, "begin", full)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))
    callback._save_shards(trainer, Note(step=3, epoch=0))
    (sentence,) = said
    assert "No space left on device" in sentence


@pytest.mark.parametrize("steps", [[5, 5], [5, 3]])
def test_ranks_that_have_found_other_checkpoints_do_not_train_together(
    steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(into: list[int], own: int) -> None:
        into[:] = steps

    monkeypatch.setattr(dist, "all_gather_object", gather)
    trainer: Any = SimpleNamespace(world_size=2, global_step=5)
    if len(set(steps)) == 1:
        checkpointing._compare_beginnings(trainer)
    else:
        with pytest.raises(RuntimeError, match=r"begin after different steps \(5, 3\).*disk that all nodes"):
            checkpointing._compare_beginnings(trainer)
