"""Toy trials under a worker that SIGKILL takes just before, or just after, it tells how one ended.

BBI_TEST_DIES names a file that holds `before` or `after`. The worker that dies removes it, so only one does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from toy_task import TASK

from bbi_lightning.sweeps.study import Studies

VARIABLE = "BBI_TEST_DIES"

__all__ = ["TASK", "VARIABLE"]

_tell = Studies.tell


def _dying_tell(self: Studies, *arguments: Any) -> bool:
    order = Path(os.environ[VARIABLE])
    when = order.read_text() if order.exists() else "never"
    told = False if when == "before" else _tell(self, *arguments)
    if when in ("before", "after"):
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return told


if VARIABLE in os.environ and "SLURM_JOB_ID" in os.environ and multiprocessing.parent_process() is None:
    Studies.tell = _dying_tell  # type: ignore[method-assign]
