import copy
import errno
import fcntl
import json
import math
import os
import pickle
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bbi_lightning.tracking.run_folder import Attempt, RunBusyError, RunFolder, RunRecord

ROOT = Path(__file__).parents[2]
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "digits-cnn-bbi-0123456789-s0", config="seed: 0\n")


def python(program, **options):
    """A real process that runs `program` with the package at hand; talks through its standard streams."""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def holding(folder):
    """A process that has begun an attempt on the run and holds it until it is killed or its input ends."""
    process = python(
        f"""
import sys
from bbi_lightning.tracking.run_folder import RunFolder
RunFolder.open({str(folder.path)!r}).begin_attempt()
print("begun", flush=True)
sys.stdin.read()
"""
    )
    assert process.stdout.readline() == "begun\n"
    return process


# --- a run's life


def test_a_new_run_has_its_config_and_has_not_begun(folder):
    record = folder.record
    assert folder.config_file.read_text() == "seed: 0\n"
    assert (record.name, record.state, record.attempts) == (folder.name, "interrupted", ())
    assert UTC.fullmatch(record.created)
    assert folder.holder() is None


def test_a_run_goes_from_running_to_finished_and_keeps_its_summary(folder):
    attempt = folder.begin_attempt()
    assert folder.record.state == "running"
    assert (attempt.number, attempt.host, attempt.pid) == (1, socket.gethostname(), os.getpid())
    assert (attempt.ended, attempt.reason, attempt.exception) == (None, None, None)

    folder.end_attempt(
        "finished", reason="max_epochs", summary={"val/acc": 0.5, "steps": 7, "val/loss": math.nan}
    )
    record = RunFolder.open(folder.path).record
    assert record.state == "finished"
    assert record.is_result
    assert record.summary["steps"] == 7
    assert math.isnan(record.summary["val/loss"])
    (ended,) = record.attempts
    assert ended.reason == "max_epochs"
    assert UTC.fullmatch(ended.started)
    assert UTC.fullmatch(ended.ended)


def test_attempts_add_up_and_summaries_are_merged(folder):
    folder.begin_attempt()
    folder.end_attempt("interrupted", reason="SIGTERM", summary={"steps": 10, "parameters": 3})
    folder.begin_attempt(from_step=8)
    folder.end_attempt("diverged", summary={"steps": 20})
    record = folder.record
    assert [(a.number, a.from_step, a.reason) for a in record.attempts] == [
        (1, 0, "SIGTERM"),
        (2, 8, "diverged"),
    ]
    assert record.summary == {"steps": 20, "parameters": 3}


def test_a_failure_keeps_the_last_lines_of_its_traceback(folder):
    def deep(n):
        return 1 / n if n == 0 else deep(n - 1)

    folder.begin_attempt()
    try:
        deep(60)
    except ZeroDivisionError as error:
        folder.end_attempt("failed", reason="ZeroDivisionError", exception=error)
    kept = folder.record.attempts[0].exception
    assert kept.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert len(kept.splitlines()) <= 40


def test_an_attempt_that_was_killed_is_lost(folder):
    process = holding(folder)
    assert folder.record.state == "running"
    process.kill()
    process.communicate()
    assert folder.holder() is None  # which is how an onlooker tells a killed run from a live one

    folder.begin_attempt(from_step=5)
    first, second = folder.record.attempts
    assert (first.reason, first.ended) == ("lost", None)
    assert (second.reason, second.from_step) == (None, 5)


def test_a_result_is_not_trained_again(folder):
    folder.begin_attempt()
    folder.end_attempt("finished")
    with pytest.raises(ValueError, match="has finished already: delete"):
        folder.begin_attempt()
    assert folder.holder() is None


def test_an_attempt_ends_once_and_only_in_a_final_state(folder):
    with pytest.raises(ValueError, match="begin_attempt"):
        folder.end_attempt("finished")
    folder.begin_attempt()
    for state in ("running", "done"):
        with pytest.raises(ValueError, match=f"'{state}' does not end an attempt"):
            folder.end_attempt(state)
    folder.end_attempt("finished")
    with pytest.raises(ValueError, match="no attempt to end"):
        folder.end_attempt("finished")


def test_creating_a_run_again_changes_nothing_but_labels_it_lacked(folder):
    folder.begin_attempt()
    folder.end_attempt("finished", summary={"steps": 1})
    before = folder.record_file.read_bytes()
    again = RunFolder.create(folder.path, config="other: 1\n", overrides=["seed=1"])
    assert folder.record_file.read_bytes() == before
    assert again.config_file.read_text() == "seed: 0\n"

    RunFolder.create(folder.path, config="", labels={"sweep": "a", "trial": 3})
    RunFolder.create(folder.path, config="", labels={"sweep": "b", "arm": "bbi"})
    assert folder.record.labels == {"sweep": "a", "trial": 3, "arm": "bbi"}
    assert folder.record.state == "finished"


def test_opening_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run \(it has no run.json\)"):
        RunFolder.open(tmp_path)
    assert not RunFolder(tmp_path / "nowhere").exists
    assert RunFolder(tmp_path / "nowhere").holder() is None


# --- run.json


def test_records_survive_json_to_the_last_key():
    attempt = Attempt(
        number=1,
        host="n1",
        pid=7,
        commit="c0ffee",
        dirty=True,
        diff_sha256="d1ff",
        started="2030-01-01T00:00:00+00:00",
        hardware={"cpu": "x", "gpus": ["y"]},
        versions={"torch": "2"},
    )
    record = RunRecord(
        name="a-s0",
        state="running",
        created="2030-01-01T00:00:00+00:00",
        labels={"sweep": "s", "params": {"optim.lr": 0.1}},
        overrides=("optim=bbi",),
        summary={"val/loss": math.inf, "note": "text", "flag": True},
        attempts=(attempt,),
    )
    as_json = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert RunRecord.from_json(as_json) == record


def test_keys_of_a_later_version_are_carried_along(folder):
    folder.begin_attempt()
    data = json.loads(folder.record_file.read_text())
    data["colour"] = "blue"
    data["attempts"][0]["energy_kwh"] = 1.5
    folder.record_file.write_text(json.dumps(data))
    folder.end_attempt("finished")
    data = json.loads(folder.record_file.read_text())
    assert (data["colour"], data["attempts"][0]["energy_kwh"]) == ("blue", 1.5)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text[: len(text) // 2], r"line \d+ column"),
        (lambda text: "", "Expecting value"),
        (lambda text: "[]", "a JSON object is expected, not list"),
        (
            lambda text: text.replace('"state": "interrupted"', '"state": "sleeping"'),
            "state='sleeping' is none of",
        ),
        (lambda text: text.replace('"state"', '"status"'), "the key 'state' is missing"),
        (lambda text: text.replace('"attempts": []', '"attempts": {}'), "attempts={} has the wrong type"),
        (
            lambda text: text.replace('"format": 1', '"format": 2'),
            "format=2 is newer .* update bbi_lightning",
        ),
    ],
)
def test_a_damaged_run_json_is_one_sentence_with_file_and_remedy(folder, damage, why):
    text = folder.record_file.read_text()
    assert damage(text) != text
    folder.record_file.write_text(damage(text))
    with pytest.raises(
        ValueError, match=rf"run\.json cannot be read \(.*{why}.*\): .*delete the run's folder"
    ) as e:
        _ = folder.record
    assert "\n" not in str(e.value)


def test_kill_9_at_any_moment_leaves_a_whole_run_json(folder):
    program = f"""
from bbi_lightning.tracking.run_folder import RunFolder
folder = RunFolder.open({str(folder.path)!r})
folder.begin_attempt()
print("begun", flush=True)
while True:
    folder.end_attempt("interrupted", summary={{"padding": "x" * 100_000}})
    folder.begin_attempt()
"""
    moments = random.Random(0)
    for _ in range(8):
        process = python(program)
        process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        record = folder.record
        assert record.state in ("running", "interrupted")
        assert [a.number for a in record.attempts] == list(range(1, len(record.attempts) + 1))
        assert all(a.reason in ("interrupted", "lost") for a in record.attempts[:-1])
    folder.begin_attempt()
    folder.end_attempt("finished")
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.yaml", "lock", "run.json"]


# --- the lock


def test_a_second_process_is_told_who_trains_the_run_and_since_when(folder):
    process = holding(folder)
    try:
        with pytest.raises(RunBusyError) as refused:
            folder.begin_attempt()
        sentence = str(refused.value)
        assert folder.name in sentence
        assert f"process {process.pid} on {socket.gethostname()} since " in sentence
        assert UTC.search(sentence)
        assert len(folder.record.attempts) == 1  # the refused one left no trace
        holder = folder.holder()
        assert (holder["pid"], holder["host"]) == (process.pid, socket.gethostname())
    finally:
        process.communicate("")
    folder.begin_attempt()


def test_a_lock_dies_with_its_process_even_when_a_forked_child_lives_on(folder):
    """Data loader workers are forked; one that outlives a killed trainer must not block the resume."""
    process = python(
        f"""
import os, time
from bbi_lightning.tracking.run_folder import RunFolder
RunFolder.open({str(folder.path)!r}).begin_attempt()
if os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(60)
"""
    )
    child = int(process.stdout.readline())
    try:
        assert folder.holder()["pid"] == process.pid  # the child's copy is closed, the parent still has it
        process.kill()
        process.wait()
        assert folder.holder() is None
        folder.begin_attempt()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()


def test_of_many_processes_that_create_and_begin_one_run_exactly_one_gets_it(tmp_path):
    path = tmp_path / "race-s0"
    program = f"""
import sys
from bbi_lightning.tracking.run_folder import RunBusyError, RunFolder
sys.stdin.readline()
try:
    RunFolder.create({str(path)!r}, config="seed: 0", labels={{"trial": 1}}).begin_attempt()
    print("mine", flush=True)
except RunBusyError:
    print("busy", flush=True)
sys.stdin.read()
"""
    processes = [python(program) for _ in range(5)]
    try:
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = sorted(process.stdout.readline().strip() for process in processes)
    finally:
        for process in processes:
            process.communicate("")
    assert answers == ["busy"] * 4 + ["mine"]
    assert len(RunFolder.open(path).record.attempts) == 1


def test_onlookers_do_not_keep_a_run_from_starting(folder):
    process = python(
        f"""
from bbi_lightning.tracking.run_folder import RunFolder
folder = RunFolder.open({str(folder.path)!r})
folder.acquire(); folder.release()
print("looking", flush=True)
while True:
    folder.holder()
"""
    )
    try:
        process.stdout.readline()
        for _ in range(20):
            folder.acquire()
            folder.release()
    finally:
        process.kill()
        process.communicate()


def test_a_copy_of_a_held_folder_holds_nothing(folder):
    folder.begin_attempt()
    for other in (copy.deepcopy(folder), pickle.loads(pickle.dumps(folder))):
        assert other.path == folder.path
        with pytest.raises(RunBusyError):
            other.acquire()
        other.release()
    folder.end_attempt("finished")


def test_acquiring_early_and_twice_is_harmless(folder):
    folder.acquire()
    folder.acquire()
    folder.begin_attempt()
    folder.end_attempt("interrupted")
    assert folder.holder() is None


def test_a_file_system_without_locks_is_a_warning_not_the_end(folder, monkeypatch):
    def no_locks(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="this file system has no locks"):
        folder.begin_attempt()
    folder.end_attempt("finished")


def test_no_environment_variable_gets_into_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789secret0123456789secret01234567")
    monkeypatch.setenv("SOME_TOKEN", "another-secret-value")
    folder = RunFolder.create(tmp_path / "a-s0", config="seed: 0\n")
    folder.begin_attempt()
    folder.end_attempt("failed", exception=RuntimeError("no"))
    everything = b"".join(p.read_bytes() for p in folder.path.rglob("*") if p.is_file())
    assert b"secret" not in everything
