"""Real processes that train together: a program of its own loads the libraries once and forks the ranks.

A test calls `run_program`; the program it names calls `fork_ranks`.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).parents[1]
TIMEOUT = 200.0  # seconds


def run_program(name: str, ranks: int, out: Path) -> Any:
    """Run tests/training/NAME with the arguments RANKS OUT; returns what it has saved at OUT."""
    command = [sys.executable, str(Path(__file__).with_name(name)), str(ranks), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, timeout=TIMEOUT + 60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(out, weights_only=True)


def fork_ranks(train: Callable[[], Any], ranks: int, out: str) -> None:
    """Run `train` on so many ranks, as if a launcher had started them; save what rank zero returns."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_be_rank, args=(r, ranks, port, train, out)) for r in range(ranks)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + TIMEOUT
    while any(p.is_alive() for p in processes) and not any(p.exitcode for p in processes):
        time.sleep(0.02)
        if time.monotonic() > deadline:
            break
    failed = any(p.exitcode != 0 for p in processes)
    for process in processes:
        if failed:
            process.kill()
        process.join()
    sys.exit(int(failed))


def _be_rank(rank: int, ranks: int, port: int, train: Callable[[], Any], out: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(ranks),
    )
    try:
        result = train()
    except BaseException:
        traceback.print_exc()
        time.sleep(0.5)  # the others may have more to say
        raise SystemExit(1) from None
    if rank == 0:
        torch.save(result, out)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
