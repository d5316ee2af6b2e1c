"""The index of runs: it says what the folders say, whatever happens to it."""

import json
import math
import multiprocessing
import os
import sqlite3
import time
from functools import partial

import pytest

from bbi_lightning.tracking import registry
from bbi_lightning.tracking.annotations import Annotations, change_annotations
from bbi_lightning.tracking.environment import CodeFacts
from bbi_lightning.tracking.index_file import NAME, Entry, IndexFile
from bbi_lightning.tracking.query import QueryError
from bbi_lightning.tracking.registry import RegistryError, read_runs
from bbi_lightning.tracking.run_fields import run_fields
from bbi_lightning.tracking.run_folder import RunFolder
from tests.tracking.made_runs import make, settle


@pytest.fixture(autouse=True)
def _code(monkeypatch):
    """Without asking git each time."""
    clean = CodeFacts("c" * 40, dirty=False, diff_sha256=None)
    monkeypatch.setattr("bbi_lightning.tracking.run_folder.code_facts", lambda: clean)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "bbi_lightning" / "runs"


@pytest.fixture
def root(tmp_path):
    """Three runs: one by hand, two of a sweep."""
    top = tmp_path / "all"
    make(top / "runs" / "digits-sgd-aa-s0", accuracy=0.9)
    labels = {"sweep": "show", "arm": "adamw", "phase": "search", "trial": 3, "params": {"optim.lr": 0.001}}
    make(top / "sweeps/show/runs/digits-adamw-bb-s1", lr="1e-3", optimizer="AdamW", seed=1, labels=labels)
    make(top / "sweeps/show/runs/digits-adamw-cc-s2", optimizer="AdamW", accuracy=math.nan, state="diverged")
    settle(top)
    return top


def facts(known):
    """Everything but what changes by itself."""
    return {
        run.fields["path"]: {key: value for key, value in run.fields.items() if key != "age"}
        for run in known.runs
    }


def same(one, other):
    return json.dumps(facts(one), sort_keys=True) == json.dumps(facts(other), sort_keys=True)


def test_a_run_is_found_at_any_depth_with_all_its_fields(root):
    known = read_runs([root])
    assert len(known.runs) == known.reread == 3
    fields = known.find("digits-adamw-bb-s1").fields
    assert (
        fields
        | {
            "state": "finished",
            "sweep": "show",
            "arm": "adamw",
            "phase": "search",
            "trial": 3,
            "optim": "adamw",
            "optim._target_": "torch.optim.AdamW",
            "optim.lr": 0.001,
            "optim.betas": [0.9, 0.999],
            "data": "digits",
            "data.batch_size": 64,
            "trainer.max_epochs": 3,
            "seed": 1,
            "test/acc": 0.9,
            "parameters": 10,
            "attempts": 1,
            "reason": "finished",
            "path": str(root / "sweeps/show/runs/digits-adamw-bb-s1"),
        }
        == fields
    )
    assert {"host", "created", "started", "ended", "duration", "age"} <= fields.keys()
    assert not {"optim._partial_", "trainer.max_steps", "tags", "problem"} & fields.keys()


def test_the_parts_of_an_imported_config_have_names_too(root):
    RunFolder.create(root / "theirs-s0", config="optim: {name: Adam, lr: 1e-3}\nnotes: {size: 3}\n")
    (run,) = read_runs([root]).where("optimizer = adam")
    assert (run.name, run.fields["optim.lr"], "notes" in run.fields) == ("theirs-s0", 0.001, False)


def test_hidden_folders_and_the_inside_of_runs_are_no_place_for_runs(root):
    make(root / ".replaced" / "old-s0")
    make(root / "runs" / ".trash" / "gone-s0")
    make(root / "runs" / "digits-sgd-aa-s0" / "checkpoints" / "inner-s0")
    (root / "runs" / "empty").mkdir()
    (root / "loop").symlink_to(root)
    assert len(read_runs([root]).runs) == 3


def test_a_run_below_two_roots_is_one(root):
    known = read_runs([root, root / "runs", root / "sweeps" / ".." / "runs"])
    assert len(known.runs) == 3
    alone = read_runs([root / "runs" / "digits-sgd-aa-s0"])
    assert [run.name for run in alone.runs] == ["digits-sgd-aa-s0"]


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(RegistryError, match=r"nowhere is not a folder: .* --dir"):
        read_runs([tmp_path / "nowhere"])
    assert read_runs([tmp_path]).runs == ()


def test_only_what_has_changed_is_read_again(root):
    read_runs([root])
    assert read_runs([root]).reread == 0
    change_annotations(root / "runs/digits-sgd-aa-s0", lambda said: Annotations(("paper",), "see slides"))
    known = read_runs([root])
    assert known.reread == 1
    assert known.find("digits-sgd-aa-s0").fields["tags"] == ["paper"]
    assert known.find("digits-sgd-aa-s0").fields["note"] == "see slides"


def test_a_record_of_the_same_size_and_time_is_noticed_by_its_inode(root):
    file = root / "runs" / "digits-sgd-aa-s0" / "run.json"
    read_runs([root])
    before = file.stat()
    other = file.with_name("other")
    other.write_text(file.read_text().replace('"finished",\n  "created', '"diverged",\n  "created'))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert read_runs([root]).find("digits-sgd-aa-s0").state == "diverged"


def test_a_file_that_may_change_within_a_tick_of_the_clock_is_read_again(root):
    file = root / "runs" / "digits-sgd-aa-s0" / "run.json"
    now = time.time_ns()
    os.utime(file, ns=(now, now))
    assert read_runs([root]).reread == 3
    with file.open("r+") as stream:  # in place: time, size and inode stay
        text = stream.read().replace('"state": "finished"', '"state": "diverged"')
        stream.seek(0)
        stream.write(text)
    os.utime(file, ns=(now, now))
    assert read_runs([root]).find("digits-sgd-aa-s0").state == "diverged"


def test_new_and_vanished_runs_are_noticed(root):
    read_runs([root])
    (root / "sweeps/show/runs/digits-adamw-cc-s2").rename(root / "runs" / "digits-adamw-cc-s2")
    make(root / "deep" / "er" / "new-s0")
    paths = {os.path.relpath(run.fields["path"], root) for run in read_runs([root]).runs}
    assert paths == {
        "runs/digits-sgd-aa-s0",
        "runs/digits-adamw-cc-s2",
        "sweeps/show/runs/digits-adamw-bb-s1",
        "deep/er/new-s0",
    }
    (root / "deep/er/new-s0/run.json").unlink()
    assert len(read_runs([root]).runs) == 3


def test_a_run_that_vanishes_while_it_is_read_is_not_listed(root, monkeypatch):
    def read(folder):
        if folder.name == "digits-sgd-aa-s0":
            folder.record_file.unlink()
        return run_fields(folder)

    monkeypatch.setattr(registry, "run_fields", read)
    assert {run.name for run in read_runs([root]).runs} == {"digits-adamw-bb-s1", "digits-adamw-cc-s2"}


def test_the_index_says_what_the_folders_say(root):
    first, second, third = read_runs([root]), read_runs([root]), read_runs([root], rebuild=True)
    assert same(first, second)
    assert same(second, third)
    assert (second.reread, third.reread) == (0, 3)
    assert first.indexes == (root / NAME,)


def test_a_moved_root_keeps_its_index(root, tmp_path):
    read_runs([root])
    moved = root.rename(tmp_path / "moved")
    known = read_runs([moved])
    assert known.reread == 0
    assert all(run.folder.is_dir() and run.fields["path"].startswith(str(moved)) for run in known.runs)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 400, b"SQLite format 3\0" + bytes(4080)])
def test_a_spoilt_index_is_made_again(root, content):
    expected = read_runs([root])
    (root / NAME).write_bytes(content)
    assert same(read_runs([root]), expected)
    known = read_runs([root])
    assert (known.reread, known.indexes) == (0, (root / NAME,))


def test_no_wrong_byte_in_the_index_is_believed(root):
    expected = read_runs([root])
    good = (root / NAME).read_bytes()
    for place in range(0, len(good), 101):
        spoilt = bytearray(good)
        spoilt[place] ^= 0x15
        (root / NAME).write_bytes(spoilt)
        assert same(read_runs([root]), expected), place
    for length in range(0, len(good), 1024):
        (root / NAME).write_bytes(good[:length])
        assert same(read_runs([root]), expected), length


def test_a_deleted_index_is_made_again(root):
    expected = read_runs([root])
    (root / NAME).unlink()
    known = read_runs([root])
    assert same(known, expected)
    assert known.reread == 3


def test_an_index_of_another_version_is_made_again(root):
    expected = read_runs([root])
    with sqlite3.connect(root / NAME) as connection:
        connection.execute("DROP TABLE runs")
        connection.execute("CREATE TABLE runs (id INTEGER, everything TEXT)")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    known = read_runs([root])
    assert same(known, expected)
    assert known.reread == 3
    assert read_runs([root]).reread == 0


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(root, cache, monkeypatch):
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != root and may(path, mode))
    known = read_runs([root])
    (place,) = known.indexes
    assert place.parent == cache
    assert not (root / NAME).exists()
    assert read_runs([root]).reread == 0
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    known = read_runs([root])
    assert (len(known.runs), known.reread, known.indexes) == (3, 3, (None,))


def test_an_index_that_somebody_holds_for_long_is_passed_over(root, cache, monkeypatch):
    monkeypatch.setattr(registry, "IndexFile", partial(IndexFile, patience=0.05))
    read_runs([root])
    holder = sqlite3.connect(root / NAME, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    known = read_runs([root])
    assert (len(known.runs), known.indexes[0].parent) == (3, cache)
    holder.execute("ROLLBACK")
    holder.close()
    assert read_runs([root]).indexes == (root / NAME,)


def test_a_file_system_that_refuses_locks_has_its_index_in_the_cache(root, cache, monkeypatch):
    connect = sqlite3.connect

    def refusing(place, **options):
        if place == root / NAME:
            raise sqlite3.OperationalError("locking protocol")
        return connect(place, **options)

    monkeypatch.setattr(sqlite3, "connect", refusing)
    assert read_runs([root]).indexes[0].parent == cache
    assert read_runs([root]).reread == 0


def test_a_folder_where_the_index_should_be_is_left_alone(root, cache):
    (root / NAME).mkdir()
    assert read_runs([root]).indexes[0].parent == cache
    assert (root / NAME).is_dir()


def test_an_index_that_fails_while_it_is_written_loses_no_run(root, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with IndexFile(root) as index:
        monkeypatch.setattr("bbi_lightning.tracking.index_file._transaction", full)
        index.update({"x": Entry("1", "shape", "{}")}, (), {})
    assert len(read_runs([root]).runs) == 3


def test_a_folder_whose_name_is_no_text_is_found(root):
    make(root / "runs" / "odd-\udcff-s0")
    assert len(read_runs([root]).runs) == len(read_runs([root]).runs) == 4
    (odd,) = read_runs([root]).where("name ~ ^odd")
    assert odd.folder.is_dir()
    assert json.dumps(odd.fields, ensure_ascii=False).encode()


def _count(root, answers):
    answers.put(len(read_runs([root]).runs))


def test_several_processes_may_begin_the_index_together(tmp_path):
    for number in range(40):
        make(tmp_path / "runs" / f"toy-{number:02}-s0")
    settle(tmp_path)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_count, args=(tmp_path, answers)) for _ in range(6)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == [40] * 6
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    known = read_runs([tmp_path])
    assert (len(known.runs), known.reread, known.indexes) == (40, 0, (tmp_path / NAME,))


def test_what_cannot_be_read_is_listed_as_such(root):
    (root / "runs/digits-sgd-aa-s0/run.json").write_text('{"name": ')
    (root / "sweeps/show/runs/digits-adamw-bb-s1/config.yaml").write_text("optim: [")
    (root / "sweeps/show/runs/digits-adamw-cc-s2/annotations.json").write_text("[]")
    known = read_runs([root])
    unreadable = known.find("digits-sgd-aa-s0")
    assert unreadable.state == "unreadable"
    assert "restore it, or delete" in unreadable.fields["problem"]
    assert len(known.where("problem is not null")) == 3
    half = known.find("digits-adamw-bb-s1").fields
    assert (half["state"], half["optim.lr"], half["arm"]) == ("finished", 0.001, "adamw")
    assert "config.yaml cannot be read" in half["problem"]
    assert "repair it, or delete it" in known.find("digits-adamw-cc-s2").fields["problem"]


def test_a_killed_run_is_lost_and_a_living_one_runs(root):
    folder = RunFolder.create(root / "runs" / "alive-s0", config="seed: 0\n")
    folder.begin_attempt()
    known = read_runs([root])
    assert known.find("alive-s0").state == "running"
    assert known.find("alive-s0").fields["duration"] >= 0
    folder.release()
    assert read_runs([root]).find("alive-s0").state == "lost"
    assert [run.name for run in read_runs([root]).where("state = lost")] == ["alive-s0"]


def test_a_query_knows_names_and_kinds(root):
    known = read_runs([root])
    assert {run.name for run in known.where("lr < 0.01 or state=diverged")} == {
        "digits-adamw-bb-s1",
        "digits-adamw-cc-s2",
    }
    assert len(known.where("")) == 3
    assert known.where("tags = paper") == ()
    with pytest.raises(QueryError, match=r"no run has a field 'batchsize': did you mean batch_size"):
        known.where("batchsize = 64")
    with pytest.raises(QueryError, match=r"optim\.lr is a number \(.* in one run\), 'big' is none"):
        known.where("lr = big")
    assert read_runs([]).where("x = 1") == ()  # no run, no field: nothing is misspelt


def test_order_puts_the_missing_last_both_ways(root):
    known = read_runs([root])
    rising = [run.fields.get("test/acc") for run in known.sort(known.runs, ["test/acc", "name"])]
    falling = known.sort(known.runs, ["-test/acc", "-name"])
    assert rising[:2] == [0.9, 0.9]
    assert math.isnan(rising[2])
    assert [run.name for run in falling] == ["digits-sgd-aa-s0", "digits-adamw-bb-s1", "digits-adamw-cc-s2"]
    by_arm = known.sort(known.runs, ["-arm"])
    assert by_arm[0].name == "digits-adamw-bb-s1"
    with pytest.raises(QueryError, match="no run has a field"):
        known.sort(known.runs, ["-nothing"])


def test_a_run_is_named_by_its_name_a_part_of_it_or_its_folder(root, tmp_path, monkeypatch):
    known = read_runs([root])
    for word in (
        "digits-adamw-bb-s1",
        "digits-adamw-b",
        "bb-s1",
        str(root / "sweeps/show/runs/digits-adamw-bb-s1"),
    ):
        assert known.find(word).name == "digits-adamw-bb-s1"
    assert known.find("sweeps/show/runs/digits-adamw-bb-s1").name == "digits-adamw-bb-s1"
    with pytest.raises(RegistryError, match=r"digits-adamw could be 2 runs .*write the folder of one"):
        known.find("digits-adamw")
    with pytest.raises(
        RegistryError, match=r"there is no run digits-adamv-bb-s1: did you mean digits-adamw-bb-s1"
    ):
        known.find("digits-adamv-bb-s1")
    make(tmp_path / "elsewhere" / "other-s0")
    assert known.find(str(tmp_path / "elsewhere" / "other-s0")).fields["optim"] == "sgd"
