"""How a process of several ends: its exit code is what a cluster decides by."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

RANK = """
import sys
import torch.distributed as dist
import torch
import typer

from bbi_lightning import cli

rank, port, code = map(int, sys.argv[1:])

def app():
    store = dict(init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    dist.init_process_group("gloo", **store)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(50, 50))
    for _ in range(3):
        model(torch.ones(2, 50)).sum().backward()
    dist.barrier()
    print("said", end="")
    raise SystemExit(code)

cli.app = app
import atexit
atexit.register(lambda: print(" and tidied up"))
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 75])
@pytest.mark.parametrize("again", range(2))  # without our care one in five ends went wrong
def test_a_rank_ends_with_its_own_code_and_not_with_gloos(code: int, again: int):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(port), str(code)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=90)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [code, code]
    assert said == ["said and tidied up\n"] * 2
