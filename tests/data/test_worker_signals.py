"""Data workers outlive the signals that ask a run to stop, but not the training process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader
from bbi_lightning.data.worker_signals import heed_only_the_parent

class Slow:
    def __len__(self):
        return 60
    def __getitem__(self, index):
        time.sleep(0.01)
        return index, os.getpid()

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    loader = DataLoader(Slow(), num_workers=2, worker_init_fn=heed_only_the_parent, persistent_workers=True,
                        multiprocessing_context=sys.argv[1])
    seen, workers = [], set()
    for index, pid in loader:
        workers.add(int(pid))
        seen.append(int(index))
        if len(seen) == 10:
            print(*workers, flush=True)
    print(seen == list(range(60)), flush=True)
    if len(sys.argv) > 2:
        time.sleep(60)
    os.kill(min(workers), signal.SIGTERM)  # from the parent
    deadline = time.monotonic() + 20
    while os.waitpid(min(workers), os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    print("terminated" if time.monotonic() < deadline else "deaf", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.kill(max(workers), signal.SIGKILL)
    os._exit(0)
"""


def started(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], list[int]]:
    """The program in a process group of its own, and its workers."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_ignore_signals_to_the_whole_group_and_heed_their_parent(
    tmp_path: Path, context: str
) -> None:
    process, workers = started(tmp_path, context)
    try:
        assert len(workers) == 2
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGTERM):
            os.killpg(process.pid, number)
            time.sleep(0.05)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert out.split() == ["True", "terminated"]
    assert process.returncode == 0


@pytest.mark.slow
def test_workers_end_when_the_training_process_is_killed(tmp_path: Path) -> None:
    process, workers = started(tmp_path, "fork", "stay")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker has been left behind"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
