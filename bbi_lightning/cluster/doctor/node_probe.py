"""What runs on two nodes at once: prints one line of JSON about its node, and whether locks reach the other.

The first task holds a lock on the shared folder until the second has tried to take it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from bbi_lightning.cluster.doctor.facts import python_facts

_PATIENCE = 30.0  # seconds


def main(folder: Path) -> None:
    """Print the facts."""
    job, rank = os.environ["SLURM_JOB_ID"], int(os.environ["SLURM_PROCID"])
    lock, held, tried = (folder / f".doctor-{job}.{what}" for what in ("lock", "held", "tried"))
    facts: dict[str, Any] = {
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        **python_facts(),
    }
    facts["signals"] = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with lock.open("a") as file:
        if rank == 0:
            fcntl.flock(file, fcntl.LOCK_EX)
            held.touch()
            facts["met"] = _wait_for(tried)
            for used in (lock, held, tried):
                used.unlink(missing_ok=True)
        else:
            facts["met"] = _wait_for(held)
            facts["clock_s"] = held.stat().st_mtime - time.time() if facts["met"] else None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                facts["kept_out"] = False
            except BlockingIOError:
                facts["kept_out"] = True
            with contextlib.suppress(OSError):
                tried.touch()
    print(json.dumps(facts), flush=True)


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
