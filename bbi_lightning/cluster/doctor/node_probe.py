"""What runs on two nodes at once: prints one line of JSON about its node, whether locks reach the other, and
whether a signal to the job step reaches Python.

The first task holds a lock on the shared folder until the second has tried to take it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bbi_lightning.cluster.doctor.facts import python_facts

_PATIENCE = 30.0  # seconds
_TO_ARRIVE = 15.0  # seconds that a signal may take


def main(folder: Path) -> None:
    """Print the facts."""
    arrived: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: arrived.append(number))
    rank = int(os.environ["SLURM_PROCID"])
    facts: dict[str, Any] = {
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        **python_facts(),
    }
    facts |= _met(folder, rank)
    if rank == 0:
        step = f"{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
        subprocess.run(
            ["scancel", "--signal=USR1", step], check=False, capture_output=True, timeout=_PATIENCE
        )
    deadline = time.monotonic() + _TO_ARRIVE
    while not arrived and time.monotonic() < deadline:
        time.sleep(0.05)
    facts["signalled"] = bool(arrived)
    print(json.dumps(facts), flush=True)


def _met(folder: Path, rank: int) -> dict[str, Any]:
    """Whether files and locks of one node are seen on the other."""
    names = [f".doctor-{os.environ['SLURM_JOB_ID']}.{what}" for what in ("lock", "held", "tried")]
    lock, held, tried = (folder / name for name in names)
    facts: dict[str, Any] = {}
    with lock.open("a") as file:
        if rank:
            facts["met"] = _wait_for(held)
            facts["clock_s"] = held.stat().st_mtime - time.time() if facts["met"] else 0.0
            facts["kept_out"] = not _taken(file.fileno())
            tried.touch()
        else:
            _taken(file.fileno())
            held.touch()
            facts["met"] = _wait_for(tried)
    if rank == 0 or not facts["met"]:  # each its own, if they do not share the folder
        for used in (lock, held, tried):
            used.unlink(missing_ok=True)
    return facts


def _taken(descriptor: int) -> bool:
    """Whether the lock could be had; also where there are no locks: then everybody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _wait_for(file: Path) -> bool:
    """Whether the file has appeared in time."""
    deadline = time.monotonic() + _PATIENCE
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        list(file.parent.iterdir())  # a network file system may remember that it was not there
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
