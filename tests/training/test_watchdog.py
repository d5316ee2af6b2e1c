"""A process that cannot end by itself is ended, with an honest word about why, and nobody else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bbi_lightning.training.watchdog import LOST_RANK, Watchdog

PROGRAM = Path(__file__).with_name("watchdog_program.py")


@contextmanager
def trouble(kind: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The program, once its trouble has begun; whatever happens, nothing of it is left behind."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), kind, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if kind != "hung_before_the_watch":
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def end_of(process: subprocess.Popen[str], within: float = 10.0) -> tuple[int, str, str]:
    """Exit code, output and errors of a process that ends in time."""
    out, errors = process.communicate(timeout=within)
    return process.returncode, out, errors


def words(folder: Path) -> str:
    return (folder / "words").read_text()


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_gone(folder: Path, *ranks: int, within: float = 10.0) -> None:
    """The ranks have been there, and end in time."""
    pids = [int((folder / f"rank-{rank}").read_text()) for rank in ranks]
    deadline = time.monotonic() + within
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "a rank has been left behind"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_process_that_hangs_after_a_signal_is_ended_with_its_code(number: signal.Signals, tmp_path: Path):
    with trouble("hung", tmp_path) as process:
        process.send_signal(number)
        code, _, errors = end_of(process)
    assert code == 128 + number
    assert words(tmp_path) == f"expiry: {number.name}, but no step boundary within 1 s"
    assert "in hang" in errors  # where it hung
    assert errors.startswith(f"leaving: {number.name}")


def test_a_process_that_hangs_unasked_is_left_alone(tmp_path: Path):
    with trouble("hung", tmp_path) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert not (tmp_path / "words").exists()


def test_a_signal_from_before_the_watch_counts(tmp_path: Path):
    with trouble("hung_before_the_watch", tmp_path) as process:
        assert end_of(process)[0] == 128 + signal.SIGUSR1


def test_the_second_ctrl_c_ends_a_hung_process_at_once(tmp_path: Path):
    with trouble("hung_with_patience", tmp_path) as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGINT)
        assert end_of(process)[0] == 130
    assert words(tmp_path) == "expiry: SIGINT, twice"


@pytest.mark.parametrize("kind", ["hung_last_words", "failing_last_words"])
def test_last_words_that_hang_or_fail_keep_nobody(kind: str, tmp_path: Path):
    with trouble(kind, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert end_of(process)[0] == 143


def test_a_run_that_reaches_boundaries_may_take_its_time(tmp_path: Path):
    with trouble("lively", tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert end_of(process)[0] == 0
    assert not (tmp_path / "words").exists()


def test_an_extension_holds_until_the_next_boundary(tmp_path: Path):
    with trouble("busy", tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        code, out, _ = end_of(process)
    assert (code, out) == (143, "saved\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind"),
    [(signal.SIGSEGV, "hung_with_ranks"), (signal.SIGKILL, "hung_with_ranks_of_lightning")],
)
def test_a_lost_rank_ends_a_hung_process_and_all_other_ranks(how: signal.Signals, kind: str, tmp_path: Path):
    with trouble(kind, tmp_path) as process:
        os.kill(int((tmp_path / "rank-2").read_text()), how)
        assert end_of(process)[0] == LOST_RANK
        assert words(tmp_path) == f"lost: rank 2 was killed ({how.name})"
        assert_gone(tmp_path, 1, 2, within=1)


def test_a_stopped_rank_does_not_outlive_the_process_that_gives_it_up(tmp_path: Path):
    with trouble("hung_with_ranks", tmp_path) as process:
        os.kill(int((tmp_path / "rank-1").read_text()), signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        assert end_of(process)[0] == 143
        assert_gone(tmp_path, 1, 2, within=1)


def test_ranks_leave_when_the_process_that_started_them_is_killed(tmp_path: Path):
    with trouble("hung_with_ranks", tmp_path) as process:
        process.kill()
        process.wait()
        assert_gone(tmp_path, 1, 2)


def test_a_rank_that_hangs_at_its_very_end_leaves_with_its_launcher(tmp_path: Path):
    with trouble("hung_with_a_rank_at_its_end", tmp_path) as process:
        process.kill()
        process.wait()
        assert_gone(tmp_path, 1)
    assert not (tmp_path / "words").exists()


def test_a_process_that_is_leaving_is_given_the_time(tmp_path: Path):
    with trouble("leaving", tmp_path) as process:
        os.kill(int((tmp_path / "rank-1").read_text()), signal.SIGKILL)
        assert end_of(process)[0] == 0
    assert not (tmp_path / "words").exists()


def test_ranks_that_finish_before_the_first_do_no_harm(tmp_path: Path):
    with trouble("ranks_that_finish", tmp_path) as process:
        assert end_of(process)[0] == 0
    assert not (tmp_path / "words").exists()


def test_nobody_is_missed_where_nobody_was_started():
    started = time.monotonic()
    assert Watchdog(1.0, print).lost_rank(wait=5.0) is None
    assert time.monotonic() - started < 1


def test_the_watch_ends_with_the_run():
    dog = Watchdog(1.0, print)
    dog.start()
    assert dog._thread.is_alive()
    dog.stop()
    dog._thread.join(5)
    assert not dog._thread.is_alive()


def test_watching_costs_no_measurable_time():
    dog = Watchdog(1.0, print)
    dog.start()
    before = time.process_time()
    for _ in range(20):
        dog.reached_boundary()
        time.sleep(0.1)
    dog.stop()
    assert time.process_time() - before < 0.1  # of 2 s; it takes some milliseconds


def test_it_loads_nothing_heavy():
    program = "import sys, bbi_lightning.training.watchdog; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
