"""The journal keeps every whole transaction of every writer, whatever happens to a writer."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from bbi_lightning.sweeps.journal import Journal, JournalDamagedError, JournalRewoundError, locked

WRITER = """
import sys
from pathlib import Path
from bbi_lightning.sweeps.journal import Journal
journal = Journal(Path(sys.argv[1]), sys.argv[2])
for n in range(int(sys.argv[4])):
    with journal.alone():
        seen = sum(1 for _ in journal.read_logs(0))
        journal.append_logs([{"by": sys.argv[3], "n": n, "seen": seen, "part": 0, "pad": "x" * 500}])
        journal.append_logs([{"by": sys.argv[3], "n": n, "seen": seen, "part": 1}])
print("done")
"""


def writer(file, name, count, kind="flock"):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), kind, name, str(count)], stdout=subprocess.PIPE, text=True
    )


def entries(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "journal.log"


def test_what_is_appended_is_read_by_all(file):
    one, other = Journal(file), Journal(file)
    one.append_logs([{"a": 1}, {"b": 2}])
    other.append_logs([{"c": 3}])
    assert list(one.read_logs(0)) == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert list(other.read_logs(2)) == [{"c": 3}]
    assert list(one.read_logs(3)) == []


def test_a_transaction_reads_its_own_writes_and_others_see_them_at_its_end(file):
    one, other = Journal(file), Journal(file)
    with one.alone():
        one.append_logs([{"a": 1}])
        with one.alone():
            one.append_logs([{"b": 2}])
        assert list(one.read_logs(0)) == [{"a": 1}, {"b": 2}]
        assert list(one.read_logs(1)) == [{"b": 2}]
        assert list(other.read_logs(0)) == []
    assert list(other.read_logs(0)) == [{"a": 1}, {"b": 2}]
    assert list(one.read_logs(2)) == []


@pytest.mark.parametrize("kind", ["flock", "symlink"])
def test_transactions_of_several_processes_never_overlap(file, kind):
    writers = [writer(file, name, 40, kind) for name in "abc"]
    assert [w.communicate(timeout=100)[0] for w in writers] == ["done\n"] * 3
    written = entries(file)
    assert len(written) == 240
    for number in range(0, 240, 2):
        first, second = written[number : number + 2]
        assert (first["by"], first["n"]) == (second["by"], second["n"])
        assert first["seen"] == second["seen"] == number, "each saw all that came before, and nothing more"


def test_writers_that_are_killed_lose_at_most_their_last_transaction(file):
    moments = random.Random(0)
    for round_ in range(12):
        victims = [writer(file, f"{round_}{name}", 10_000) for name in "ab"]
        before = file.stat().st_size if file.exists() else 0
        while not file.exists() or file.stat().st_size < before + 2000:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        for victim in victims:
            victim.communicate()
    Journal(file).append_logs([{"by": "last", "n": 0, "part": 0}, {"by": "last", "n": 0, "part": 1}])
    counts = {}
    for entry in entries(file):
        counts.setdefault(entry["by"], []).append(entry["n"])
    for numbers in counts.values():
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(numbers[-1] + 1)), "nothing lost"
        assert len(numbers) in (2 * len(set(numbers)), 2 * len(set(numbers)) - 1), "nothing doubled"


@pytest.mark.parametrize("torn", [b'{"op_code":6,"trial', b"\x00\x00\x00\n", b'{"op_code":6\n', b"{", b"\n"])
def test_a_half_written_line_is_dropped_and_said(file, torn):
    Journal(file).append_logs([{"a": 1}])
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    journal = Journal(file)
    with contextlib.suppress(
        JournalDamagedError
    ):  # a whole line of rubbish, before anybody has looked after it
        assert list(journal.read_logs(0)) == [{"a": 1}]
    journal.append_logs([{"b": 2}])
    assert file.read_bytes() == whole + b'{"b":2}\n'
    assert journal.repaired == [f"{file}: dropped a half-written entry of {len(torn)} bytes"]


def test_damage_before_the_last_line_is_one_sentence_and_nothing_is_lost(file):
    Journal(file).append_logs([{"a": 1}, {"b": 2}, {"c": 3}])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b'{"b":\n' + lines[2])
    damaged = file.read_bytes()
    journal = Journal(file)
    with pytest.raises(
        JournalDamagedError, match=r"journal\.log is damaged in line 2 .*restore it from a copy"
    ):
        list(journal.read_logs(0))
    assert file.read_bytes() == damaged


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        journal = Journal(disk / "journal.log")
        journal.append_logs([{"a": 1}])
        before = (disk / "journal.log").read_bytes()
        with pytest.raises(OSError, match="No space left"):
            journal.append_logs([{"pad": "x" * 40_000}] * 4)
        assert (disk / "journal.log").read_bytes() == before
        journal.append_logs([{"b": 2}])
        assert list(Journal(disk / "journal.log").read_logs(0)) == [{"a": 1}, {"b": 2}]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["flock", "symlink"])
def test_a_lock_keeps_others_out(tmp_path, kind):
    program = (
        "import sys; from pathlib import Path; from bbi_lightning.sweeps.journal import locked\n"
        f"with locked(Path({str(tmp_path / 'x')!r}), {kind!r}): print('in')"
    )
    with locked(tmp_path / "x", kind):
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(5)
    assert other.communicate(timeout=60)[0] == "in\n"


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    program = (
        "import time; from pathlib import Path; from bbi_lightning.sweeps.journal import locked\n"
        f"with locked(Path({str(tmp_path / 'x')!r})): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        other.kill()
        other.wait()
    with locked(tmp_path / "x"):
        pass


def test_a_reader_takes_in_whole_transactions_only(file):
    writer, reader = Journal(file), Journal(file)
    writer.append_logs([{"a": 1}])
    before = file.stat().st_size
    writer.append_logs([{"b": 2}, {"c": 3}, {"d": 4}])
    whole = file.read_bytes()
    expected = [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]
    for size in range(before, len(whole)):
        file.write_bytes(whole[:size])
        assert list(reader.read_logs(0)) == expected[:1], f"{size} of {len(whole)} bytes"
    file.write_bytes(whole)
    assert list(reader.read_logs(1)) == expected[1:]


def test_half_a_transaction_is_dropped_wherever_it_was_torn(file):
    writer = Journal(file)
    writer.append_logs([{"a": 1}])
    before = file.read_bytes()
    writer.append_logs([{"b": 2}, {"c": 3}])
    whole = file.read_bytes()
    for size in range(len(before) + 1, len(whole)):
        file.write_bytes(whole[:size])
        journal = Journal(file)
        with journal.alone():
            assert file.read_bytes() == before
        assert len(journal.repaired) == 1


def test_what_another_program_wrote_behind_half_a_transaction_is_kept(file):
    writer = Journal(file)
    writer.append_logs([{"a": 1}, {"b": 2}])
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0] + b'{"c":3}\n')
    journal = Journal(file)
    journal.append_logs([{"d": 4}])
    assert list(journal.read_logs(0)) == [{"a": 1}, {"c": 3}, {"d": 4}]
    assert journal.repaired == []


def test_a_reader_says_so_when_the_journal_has_become_shorter(file):
    journal = Journal(file)
    journal.append_logs([{"a": 1}, {"b": 2}])
    list(journal.read_logs(0))
    file.write_bytes(b"")
    with pytest.raises(JournalRewoundError):
        list(journal.read_logs(2))
    assert list(journal.read_logs(0)) == []


def test_a_block_that_raises_keeps_what_it_had_written(file):
    journal = Journal(file)

    def fails_half_way():
        with journal.alone():
            journal.append_logs([{"a": 1}])
            raise KeyError

    with pytest.raises(KeyError):
        fails_half_way()
    assert list(Journal(file).read_logs(0)) == [{"a": 1}]


def test_a_symbolic_link_left_by_a_killed_process_is_taken_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr("bbi_lightning.sweeps.journal._DEAD_AFTER", 1)
    (tmp_path / "x").touch()
    program = (
        "import time; from pathlib import Path; from bbi_lightning.sweeps.journal import locked\n"
        f"with locked(Path({str(tmp_path / 'x')!r}), 'symlink'): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        other.kill()
        other.wait()
    began = time.monotonic()
    with locked(tmp_path / "x", "symlink"):
        assert time.monotonic() - began > 0.9
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x"]


def test_many_that_wait_for_a_dead_holders_link_still_come_one_by_one(tmp_path):
    (tmp_path / "x.lock").symlink_to("dead")
    inside = repr(str(tmp_path / "inside"))
    program = (
        "import os, time; from pathlib import Path; from bbi_lightning.sweeps import journal\n"
        "journal._DEAD_AFTER = 3\n"
        f"with journal.locked(Path({str(tmp_path / 'x')!r}), 'symlink'):\n"
        f"    os.mkdir({inside}); time.sleep(0.05); os.rmdir({inside})"
    )
    waiting = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(6)]
    assert [process.wait(60) for process in waiting] == [0] * 6, "two were inside at a time"
    assert list(tmp_path.iterdir()) == []
