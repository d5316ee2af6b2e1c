"""Starts a program as several processes that find one another, and waits for them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

ROOT = Path(__file__).parents[2]


def run_on(ranks: int, program: str, *arguments: str, folder: Path, timeout: float = 280) -> None:
    """Run a program of this folder as ``ranks`` processes; each is given (rank, ranks, meeting, arguments).

    Raises AssertionError with the output of the processes that failed.
    """
    meeting = folder / f"meeting-{ranks}-{arguments[0]}"
    command = [sys.executable, "-m", f"tests.optim.{program}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(ranks), str(meeting), *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    failed = [
        f"rank {rank}: {output}"
        for rank, (process, output) in enumerate(zip(processes, outputs, strict=True))
        if process.returncode
    ]
    assert not failed, "\n".join(failed)


def meet(rank: int, ranks: int, meeting: str) -> None:
    """Called by the program: form the group of processes."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=150),
    )
