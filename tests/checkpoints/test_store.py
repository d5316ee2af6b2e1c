"""The store: what a reader sees, what it refuses, in which order things reach the disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from bbi_lightning.checkpoints import store as store_module
from bbi_lightning.checkpoints.manifest import MANIFEST, STATE, _seal
from bbi_lightning.checkpoints.store import CheckpointStore, ForeignCheckpointError, Note

RUN = "toy-s0"


def store_in(folder: Path, **options) -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", RUN, **options)


def save(store: CheckpointStore, step: int, *reasons: str, content: bytes | None = None):
    folder = store.begin()
    (folder / STATE).write_bytes(b"state %d" % step if content is None else content)
    return store.commit(
        folder, Note(step=step, epoch=0, reasons=reasons or ("last",), values={"val/acc": 0.5})
    )


def steps(store: CheckpointStore) -> list[int]:
    return [checkpoint.step for checkpoint in store.checkpoints()]


def hidden(store: CheckpointStore) -> list[str]:
    return [path.name for path in store.folder.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_is_a_folder_with_its_files_and_a_manifest(tmp_path):
    store = store_in(tmp_path)
    saved = save(store, 120)
    assert saved.path == tmp_path / "checkpoints" / "checkpoint-000001-step-120"
    assert sorted(path.name for path in saved.path.iterdir()) == [MANIFEST, STATE]
    manifest = json.loads((saved.path / MANIFEST).read_text())
    assert manifest["files"][STATE]["bytes"] == len(b"state 120")
    assert manifest["run"] == RUN
    assert manifest["values"] == {"val/acc": 0.5}
    assert store.checkpoints() == [saved]
    assert hidden(store) == []


def test_an_empty_or_absent_folder_holds_no_checkpoint(tmp_path):
    assert store_in(tmp_path).newest_valid() == (None, [])
    assert store_in(tmp_path).best() is None
    (tmp_path / "checkpoints").mkdir()
    assert store_in(tmp_path).newest_valid() == (None, [])


def test_the_newest_has_the_largest_number_whatever_step_or_clock_say(tmp_path):
    store = store_in(tmp_path, keep_last=5)
    save(store, 50)
    save(store, 10)
    os.utime(store.checkpoints()[0].path, (4e9, 4e9))
    newest, passed_over = store.newest_valid()
    assert (newest.number, newest.step, passed_over) == (2, 10, [])


def test_numbers_go_on_above_what_is_damaged_and_above_a_million(tmp_path):
    store = store_in(tmp_path)
    save(store, 1)
    store.checkpoints()[0].path.rename(store.folder / "checkpoint-999999-step-1")
    (store.folder / "checkpoint-999999-step-1" / MANIFEST).write_text("")
    assert save(store, 2).number == 1_000_000
    assert save(store, 3).number == 1_000_001
    assert store.newest_valid()[0].step == 3


def test_files_in_subfolders_belong_to_a_checkpoint(tmp_path):
    store = store_in(tmp_path)
    folder = store.begin()
    (folder / "shards" / "deep").mkdir(parents=True)
    (folder / "shards" / ".metadata").write_bytes(b"hidden")
    (folder / "shards" / "deep" / "__1_0.distcp").write_bytes(b"shard")
    saved = store.commit(folder, Note(step=1, epoch=0, layout="sharded", world_size=2))
    assert set(saved.manifest.files) == {"shards/.metadata", "shards/deep/__1_0.distcp"}
    (saved.path / "shards" / ".metadata").write_bytes(b"hIdden")
    assert store.damage(saved) == "shards/.metadata has other contents than were written"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("file", [STATE, MANIFEST])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, Path.unlink, replace_by_a_folder])
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(tmp_path, file, damage):
    store = store_in(tmp_path)
    save(store, 1)
    newest = save(store, 2)
    damage(newest.path / file)
    valid, passed_over = store_in(tmp_path).newest_valid()
    assert valid.step == 1
    assert len(passed_over) == 1
    assert passed_over[0].startswith(f"checkpoint-000002-step-2 is passed over: {file} ")


def test_damage_is_said_exactly(tmp_path):
    store = store_in(tmp_path)
    saved = save(store, 1, content=b"x" * 3456)
    truncate(saved.path / STATE)
    assert store.damage(saved) == "state.pt has 1,728 of 3,456 bytes"
    (saved.path / STATE).unlink()
    assert store.damage(saved) == "state.pt is missing"


def test_with_all_damaged_there_is_none_to_go_on_from(tmp_path):
    store = store_in(tmp_path)
    for step in (1, 2):
        empty(save(store, step).path / STATE)
    valid, passed_over = store_in(tmp_path).newest_valid()
    assert valid is None
    assert [sentence.split()[0] for sentence in passed_over] == [
        "checkpoint-000002-step-2",
        "checkpoint-000001-step-1",
    ]


def test_another_runs_checkpoint_is_refused(tmp_path):
    save(store_in(tmp_path), 1)
    other = CheckpointStore(tmp_path / "checkpoints", "toy-s1")
    with pytest.raises(ForeignCheckpointError, match="is a checkpoint of run toy-s0, not of toy-s1: move it"):
        other.newest_valid()
    assert other.best() is None


def test_another_runs_checkpoint_is_never_cleared_away(tmp_path):
    save(store_in(tmp_path), 1)
    other = CheckpointStore(tmp_path / "checkpoints", "toy-s1", keep_last=1)
    for step in (2, 3, 4):
        save(other, step)
    assert steps(other) == [1, 4]


def test_a_later_formats_checkpoint_is_refused_and_not_passed_over(tmp_path):
    store = store_in(tmp_path)
    save(store, 1)
    path = save(store, 2).path / MANIFEST
    content = json.loads(path.read_text()) | {"format": 99}
    del content["seal"]
    path.write_text(json.dumps({**content, "seal": _seal(content)}))
    with pytest.raises(ForeignCheckpointError, match="update bbi_lightning"):
        store.newest_valid()


def test_the_store_may_be_moved(tmp_path):
    save(store_in(tmp_path), 1)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    assert CheckpointStore(tmp_path / "elsewhere", RUN).newest_valid()[0].step == 1


def test_keeps_the_newest_the_best_and_the_milestones(tmp_path):
    store = store_in(tmp_path, keep_last=2)
    for step, reason in enumerate(["last", "milestone", "best", "best", "last", "last", "last"]):
        save(store, step, reason)
    assert steps(store) == [1, 3, 5, 6]
    assert store.best().step == 3
    assert hidden(store) == []


def test_a_damaged_spare_does_not_count_as_kept(tmp_path):
    store = store_in(tmp_path, keep_last=2)
    save(store, 1)
    flip_a_bit(save(store, 2).path / STATE)
    save(store_in(tmp_path, keep_last=2), 3)  # another process, which has verified none of them
    assert steps(store) == [1, 3]


def test_what_cannot_be_read_at_the_moment_is_not_cleared_away(tmp_path, monkeypatch):
    save(store_in(tmp_path), 1, "best")
    save(store_in(tmp_path), 2)
    store = store_in(tmp_path, keep_last=1)  # has verified nothing yet
    real = store_module.digest_of_file

    def failing(path, **options):
        if path.parent.name == "checkpoint-000001-step-1":
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "digest_of_file", failing)
        assert store.damage(store.checkpoints()[0]) == "state.pt cannot be read (Stale file handle)"
        save(store, 3)
    assert steps(store) == [1, 3]
    assert store.newest_valid()[0].step == 3
    save(store, 4)
    assert steps(store) == [1, 4], "it is the best again"


def test_what_a_killed_writer_left_is_invisible_and_cleared_away(tmp_path):
    store = store_in(tmp_path)
    save(store, 1)
    left = store.begin()
    (left / STATE).write_bytes(b"half")
    (store.folder / ".removed-0123").mkdir()
    again = store_in(tmp_path)
    assert steps(again) == [1]
    save(again, 2)
    assert hidden(again) == []


def test_what_was_begun_by_the_same_store_is_no_leftover(tmp_path):
    store = store_in(tmp_path)
    first = store.begin()
    save(store, 1)
    (first / STATE).write_bytes(b"later")
    assert store.commit(first, Note(step=2, epoch=0)).number == 2


def test_an_abandoned_folder_is_gone(tmp_path):
    store = store_in(tmp_path)
    store.abandon(store.begin())
    assert hidden(store) == []
    store.abandon(store.folder / ".unfinished-gone-already")


@pytest.fixture
def events(monkeypatch):
    """What the store asks of the disk, in order, as (operation, path)."""
    seen: list[tuple[str, Path]] = []
    real_fsync, real_rename, real_rmtree = os.fsync, Path.rename, shutil.rmtree
    real_damage = store_module._damage

    def fsync(descriptor):
        seen.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_fsync(descriptor)

    def rename(self, target):
        seen.append(("rename", self))
        return real_rename(self, target)

    def rmtree(path, **options):
        seen.append(("remove", path))
        real_rmtree(path, **options)

    def damage(checkpoint, *, from_disk):
        seen.append(("verify from disk" if from_disk else "verify", checkpoint.path))
        return real_damage(checkpoint, from_disk=from_disk)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    monkeypatch.setattr(store_module, "_damage", damage)
    return seen


def test_all_is_forced_to_the_disk_before_it_is_seen_and_verified_before_another_goes(tmp_path, events):
    store = store_in(tmp_path.resolve(), keep_last=1)
    old = save(store, 1)
    events.clear()
    folder = store.begin()
    (folder / "shards").mkdir()
    (folder / "shards" / "part").write_bytes(b"part")
    (folder / STATE).write_bytes(b"state")
    new = store.commit(folder, Note(step=2, epoch=0))

    seen = events.index(("rename", folder))
    synced = {path for operation, path in events[:seen] if operation == "fsync"}
    inside = {folder / STATE, folder / MANIFEST, folder / "shards", folder / "shards" / "part"}
    assert synced == inside | {folder}
    order = [
        ("rename", folder),
        ("fsync", store.folder),
        ("verify from disk", new.path),
        ("rename", old.path),
    ]
    assert [event for event in events if event in order] == order
    assert events[-1][0] == "remove"


def test_a_disk_that_gives_back_something_else_is_an_error_and_the_old_ones_stay(tmp_path, monkeypatch):
    store = store_in(tmp_path, keep_last=1)
    save(store, 1)
    real = os.fsync

    def lying(descriptor):
        real(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == STATE:
            flip_a_bit(path)

    monkeypatch.setattr(os, "fsync", lying)
    with pytest.raises(OSError, match="does not give back what was written: state"):
        save(store, 2)
    monkeypatch.undo()
    assert steps(store) == [1]
    assert hidden(store) == []
    assert save(store, 3).number == 2


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_lived_with(tmp_path, monkeypatch, code):
    real = os.fsync

    def fsync(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert save(store_in(tmp_path), 1).number == 1


def test_a_failed_sync_of_a_file_is_not_lived_with(tmp_path, monkeypatch):
    store = store_in(tmp_path)

    def fsync(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Invalid argument"):
        save(store, 1)
    assert list(store.folder.iterdir()) == []


def test_what_cannot_be_cleared_away_does_not_fail_a_save(tmp_path, monkeypatch):
    store = store_in(tmp_path, keep_last=1)
    save(store, 1)

    def refuse(*args, **options):
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refuse)
        patch.setattr(os, "unlink", refuse)
        assert save(store, 2).number == 2
    assert steps(store) == [2]
    save(store, 3)
    assert hidden(store) == []


@pytest.mark.parametrize("older", ["last", "milestone"])
def test_a_reader_that_is_overtaken_by_the_writer_looks_again(tmp_path, monkeypatch, older):
    """Whether nothing else is left of what it had listed, or something old that is kept for good."""
    store, reader = store_in(tmp_path, keep_last=1), store_in(tmp_path)
    save(store, 1, older)
    save(store, 2)
    real = store_module.read_manifest

    def slow(folder):
        monkeypatch.setattr(store_module, "read_manifest", real)
        save(store, 3)
        return real(folder)

    monkeypatch.setattr(store_module, "read_manifest", slow)
    newest, passed_over = reader.newest_valid()
    assert (newest.step, passed_over) == (3, [])


def test_what_is_cleared_away_while_it_is_examined_is_left_out(tmp_path, monkeypatch):
    store = store_in(tmp_path, keep_last=1)
    save(store, 1, "milestone")
    save(store, 2)
    findings = store_in(tmp_path).examine()
    save(store, 3)
    assert [finding.checkpoint.step for finding in findings] == [3, 1]
    findings = store_in(tmp_path).examine()
    assert next(findings).checkpoint.step == 3
    shutil.rmtree(store.folder)
    assert list(findings) == []
