"""Training that stops at the moments a test names, until it is asked to leave: so a signal comes just there.

BBI_TEST_HOLDS names a folder with files `1 <moment>`, `2 <moment>`, …: so many attempts are held, one after
the other. A process that gets there renames the file to `<moment>.reached`, and goes on when it has been
signalled. A moment is one of `kills.moments.MOMENTS`, or `import of the worker`, or `import of the server`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbi_lightning.cli.sweep.task import task_named
from bbi_lightning.sweeps import Task

VARIABLE = "BBI_TEST_HOLDS"
_LONGEST = 100.0  # seconds: then it goes on, and the test fails

_train = task_named("train")


def next_hold() -> Path | None:
    """The file of the attempt that is to be held next."""
    files = [file for file in Path(os.environ.get(VARIABLE, "/nowhere")).glob("*") if file.name[0].isdigit()]
    return min(files, default=None)


def moment_of(file: Path | None) -> str:
    """The moment it names."""
    return "" if file is None else file.name.partition(" ")[2]


def hold(file: Path) -> None:
    """Be held, if nobody has been held by this file before."""
    from bbi_lightning.training import interrupts

    try:
        file.rename(file.with_name(f"{moment_of(file)}.reached"))
    except FileNotFoundError:
        return
    deadline = time.monotonic() + _LONGEST
    while interrupts.received() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def run(overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
    """Train as `bbi train` does, held once at the moment that is next."""
    from kills.moments import MOMENTS

    file = next_hold()
    if file is not None and moment_of(file) in MOMENTS:
        MOMENTS[moment_of(file)](lambda: hold(file))
    _train.run(overrides, root, labels)


TASK = Task(run, _train.run_name, _train.validate, (*_train.preload, "slurm.held_server"), _train.metrics)

_in_worker = "SLURM_JOB_ID" in os.environ and multiprocessing.parent_process() is None
if _in_worker and (at_once := next_hold()) and moment_of(at_once) == "import of the worker":
    hold(at_once)
