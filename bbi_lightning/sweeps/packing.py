"""How many trials share a node or a GPU, how many jobs that makes, and how long they take."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import psutil

from bbi_lightning.sweeps.plan import Plan

_USABLE = 0.9  # of a memory: the rest is the system's
_RESERVE = 1.2  # a trial may grow beyond what its first steps needed
_CUDA_CONTEXT = 512 * 2**20  # bytes of GPU memory that each process takes before torch does
_WORTH_A_JOB = 1800.0  # seconds of work below which another job is not worth its wait in the queue


@dataclass(frozen=True)
class Node:
    """What a worker may use.

    Attributes:
        cores: of the job, or of this machine.
        memory: bytes; infinite when it is not known.
        gpus: GPUs.
    """

    cores: int
    memory: float
    gpus: int = 0

    @classmethod
    def here(cls) -> Node:
        """This machine, as far as this process may use it."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(cores, float(psutil.virtual_memory().total))


@dataclass(frozen=True)
class Packing:
    """Trials at a time.

    Attributes:
        slots: in each worker.
        limited_by: what allows no more, in words; "asked for" when the user has said so.
        jobs: workers.
        seconds: from the first trial's start to the last one's end; NaN when it is not known.
    """

    slots: int
    limited_by: str
    jobs: int
    seconds: float

    def plain(self) -> dict[str, Any]:
        """For --json."""
        return vars(self) | {"seconds": None if math.isnan(self.seconds) else self.seconds}


def pack(
    plan: Plan, node: Node, *, slots: int | None = None, jobs: int | None = None, max_jobs: int = 1
) -> Packing:
    """Fill the node, and use as many of them as are worth it.

    What trials on one GPU take from each other is not measured: the time is that of trials which do not.

    Args:
        plan: measured, else one trial a core is assumed.
        node: what each worker may use.
        slots: trials at a time in each, instead of what fits.
        jobs: workers, instead of as many as are worth it.
        max_jobs: workers at most.
    """
    fits, limited_by = (slots, "asked for") if slots is not None else _slots(plan, node)
    fits = min(fits, plan.runs)
    if jobs is None:
        enough = 1 if math.isnan(plan.seconds) else math.ceil(plan.seconds / fits / _WORTH_A_JOB)
        jobs = min(enough, max_jobs, math.ceil(plan.runs / fits))
    return Packing(fits, limited_by, jobs, _seconds(plan, fits * jobs))


def _slots(plan: Plan, node: Node) -> tuple[int, str]:
    """How many trials fit a node at a time, and what allows no more."""
    limits = {f"its {node.cores} cores": node.cores // plan.threads}
    own, peak = plan.largest("own_bytes"), plan.largest("peak_bytes")
    if own > 0 and math.isfinite(node.memory):
        shared = peak - own
        limits["its memory"] = int((_USABLE * node.memory - shared) // (_RESERVE * own))
    gpu, total = plan.largest("gpu_bytes"), plan.largest("gpu_total_bytes")
    if gpu > 0 and total > 0:
        each = int(_USABLE * total // (_RESERVE * gpu + _CUDA_CONTEXT))
        limits["the GPUs' memory"] = max(1, node.gpus) * each
    limit = min(limits, key=limits.__getitem__)
    return max(1, limits[limit]), limit


def _seconds(plan: Plan, at_a_time: int) -> float:
    """Search first, replicates when the last trial of an arm has ended: each phase ends with its longest."""
    total = 0.0
    for kind in ("trials", "replicates"):
        work = [(getattr(arm, kind), arm.measured.run_s if arm.measured else math.nan) for arm in plan.arms]
        work = [(count, seconds) for count, seconds in work if count]
        if not work:
            continue
        if any(math.isnan(seconds) for _, seconds in work):
            return math.nan
        average = sum(count * seconds for count, seconds in work) / at_a_time
        total += max(average, max(seconds for _, seconds in work))
    return total
