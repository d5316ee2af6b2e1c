"""Who is at work is known from their files, on any node, and a dead worker is known to be dead."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bbi_lightning.sweeps.memory import bytes_of, own_bytes, resident_bytes, size
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.trial import Owner
from bbi_lightning.sweeps.workers import Presence, Roster, worker_name

PRESENT = """
import sys, time
from pathlib import Path
from bbi_lightning.sweeps.workers import Presence
with Presence(Path(sys.argv[1]), 3, beat=0.1) as presence:
    print(presence.info.owner.id, presence.info.owner.incarnation, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PRESENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, Owner(*process.stdout.readline().split())
        process.kill()


def test_a_worker_shows_itself_and_says_how_it_ended(tmp_path):
    roster = Roster(tmp_path)
    assert roster.living() == []
    with Presence(tmp_path, slots=2) as presence:
        (info,) = roster.living()
        assert (info.pid, info.slots, info.ended) == (os.getpid(), 2, None)
        assert roster.vanished([info.owner]) == set()
        presence.how_it_ended = "done"
    assert roster.living() == []
    assert [worker.ended for worker in roster.workers()] == ["done"]
    assert roster.vanished([info.owner]) == {info.owner}


def test_a_killed_worker_has_vanished_at_once(tmp_path, other):
    process, owner = other
    roster = Roster(tmp_path)
    assert [worker.owner for worker in roster.living()] == [owner]
    process.kill()
    process.wait()
    assert roster.vanished([owner]) == {owner}
    assert roster.living() == []


def test_a_silent_worker_has_vanished_even_if_its_lock_is_held(tmp_path, other):
    process, owner = other
    file = tmp_path / f"{owner.id}.json"
    roster = Roster(tmp_path)
    process.send_signal(signal.SIGSTOP)
    os.utime(file, (time.time() - 400,) * 2)
    assert roster.vanished([owner]) == {owner}
    process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while roster.vanished([owner]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert roster.vanished([owner]) == set(), "it goes on: it was only stopped"


def test_without_locks_only_silence_tells(tmp_path, other):
    process, owner = other
    roster = Roster(tmp_path, "symlink")
    process.kill()
    process.wait()
    assert roster.vanished([owner]) == set(), "it may be on another node"
    os.utime(tmp_path / f"{owner.id}.json", (time.time() - 70,) * 2)
    assert roster.vanished([owner]) == {owner}


def test_an_earlier_life_has_vanished(tmp_path):
    with Presence(tmp_path, slots=1) as presence:
        owner = presence.info.owner
        before = Owner(owner.id, "another life")
        assert Roster(tmp_path).vanished([owner, before]) == {before}


def test_a_job_that_is_requeued_has_its_name_again(monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert worker_name() != worker_name(), "two workers of one process are two"
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert worker_name() == "slurm-18"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert worker_name() == "slurm-17_3"


def test_the_memory_of_descendants_counts():
    grandchild = "x = bytearray(200 << 20); print('up', flush=True); import time; time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        assert resident_bytes(process.pid) > own_bytes(process.pid) > 200 << 20
        subprocess.run(["pkill", "-P", str(process.pid)], check=True)
    assert resident_bytes(process.pid) == 0


@pytest.mark.parametrize(("text", "count"), [("4G", 4 << 30), ("500M", 500 << 20), ("7", 7), ("1.5K", 1536)])
def test_sizes_are_read(text, count):
    assert bytes_of(text) == count


def test_a_size_that_is_none_is_a_sentence():
    with pytest.raises(SweepError, match="memory=lots is not a size: write it as 4G or 500M"):
        bytes_of("lots")
    assert size(3.1 * 2**30) == "3.1 GiB"
