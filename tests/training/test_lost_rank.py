"""Two ranks under Lightning: whatever becomes of one of them, all are gone soon, and the record is honest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bbi_lightning.training.watchdog import LOST_RANK

PROGRAM = Path(__file__).with_name("lost_rank_program.py")
SOON = 30.0

pytestmark = pytest.mark.slow


class Run:
    """A run on two ranks that trains until something happens to it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def pid(self, rank: int) -> int:
        return int((self.folder / f"rank-{rank}").read_text())

    def wait_until_it_trains(self) -> None:
        while not all((self.folder / f"rank-{rank}").exists() for rank in (0, 1)):
            assert self.process.poll() is None, (self.folder / "out").read_text()
            time.sleep(0.05)
        time.sleep(0.5)

    def end(self) -> int:
        """Exit code of rank zero, after the end of both."""
        deadline = time.monotonic() + SOON
        code = self.process.wait(SOON)
        while is_running(self.pid(1)):
            assert time.monotonic() < deadline, "rank 1 has been left behind"
            time.sleep(0.05)
        return code

    @property
    def record(self) -> list[str]:
        return json.loads((self.folder / "record.json").read_text())


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def training(folder: Path, stop_within: float = 60) -> Iterator[Run]:
    """Such a run, once both ranks train; nothing of it is left behind."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[1])}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(stop_within)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        run = Run(folder, process)
        run.wait_until_it_trains()
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_when_rank_1_is_killed_rank_0_says_so_and_leaves(tmp_path: Path):
    with training(tmp_path) as run:
        os.kill(run.pid(1), signal.SIGKILL)
        assert run.end() == LOST_RANK
    assert run.record == ["failed", "rank 1 was killed (SIGKILL)"]


def test_when_rank_0_is_killed_rank_1_leaves(tmp_path: Path):
    with training(tmp_path) as run:
        os.kill(run.pid(0), signal.SIGKILL)
        assert run.end() == -signal.SIGKILL


def test_when_a_collective_hangs_after_a_signal_both_leave_in_time(tmp_path: Path):
    with training(tmp_path, stop_within=2) as run:
        os.kill(run.pid(1), signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(run.pid(0), signal.SIGUSR1)
        assert run.end() == 128 + signal.SIGUSR1
    assert run.record == ["interrupted", "SIGUSR1, but no step boundary within 2 s"]
    assert "Current thread" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_stops_both_at_one_boundary(rank: int, tmp_path: Path):
    with training(tmp_path) as run:
        os.kill(run.pid(rank), signal.SIGTERM)
        assert run.end() == 128 + signal.SIGTERM
    assert run.record == ["interrupted", "SIGTERM"]
