"""Ends what is left of a cluster once the process that started it is gone, however that went.

    python tests/slurm/reaper.py SLURM_CONF SECONDS       acts when its input ends, or after so many seconds

A cluster's daemons and the processes of its jobs carry its SLURM_CONF in their environment: by that they are
found, and ended one by one.
"""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import time

import psutil

_DAEMONS = ("munged", "slurmctld", "slurmd")
_PATIENCE = 3.0  # seconds between SIGTERM and SIGKILL


def processes_of(conf: str) -> list[psutil.Process]:
    """The cluster's daemons, the managers of its jobs' steps, and what runs in the jobs; oldest first."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            variables = process.environ()
            if variables.get("SLURM_CONF") != conf:
                continue
            if process.name() in _DAEMONS or "SLURM_JOB_ID" in variables:  # else it is somebody's shell
                found |= {process, *(up for up in process.parents() if up.name().startswith("slurmstepd"))}
    return sorted(found, key=lambda process: process.create_time())


def reap(conf: str) -> None:
    """End them: first politely, for a step's manager ends its own; then at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _PATIENCE
        for process in processes_of(conf):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        while processes_of(conf) and time.monotonic() < deadline:
            time.sleep(0.2)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    select.select([sys.stdin], [], [], float(sys.argv[2]))
    reap(sys.argv[1])
