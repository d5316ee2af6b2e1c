"""SLURM's commands, each bounded in time, their answers as plain values, their refusals in one sentence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bbi_lightning.cluster.durations import seconds_of
from bbi_lightning.cluster.errors import ClusterError

_PATIENCE = 60.0  # seconds that a command may take; a busy controller answers late
_COLUMNS = {
    "id": "%A",
    "array": "%F",
    "index": "%K",
    "name": "%j",
    "state": "%T",
    "reason": "%r",
    "nodes": "%N",
}
_ENDED = {
    "CANCELLED",
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "DEADLINE",
}


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs.

    Attributes:
        id: what scancel takes: `17`, of an array's task `17_3`.
        name: its name.
        state: SLURM's word: PENDING, RUNNING, COMPLETING, …
        reason: why it waits; "None" when it runs.
        nodes: where it runs; empty while it waits.
    """

    id: str
    name: str
    state: str
    reason: str
    nodes: str

    @property
    def lives(self) -> bool:
        """Whether it runs, or will."""
        return self.state not in {*_ENDED, "COMPLETING"}


class Slurm:
    """The cluster this machine belongs to. Cheap to make; nothing is asked before it is needed."""

    @staticmethod
    def is_here() -> bool:
        """Whether SLURM's commands are on the PATH."""
        return shutil.which("sbatch") is not None

    def sbatch(self, script: Path, *, array: str | None = None, options: Sequence[str] = ()) -> str:
        """Queue a script; returns the job's id.

        Args:
            script: the batch script.
            array: overrides the script's own array.
            options: further options.
        """
        ranges = [] if array is None else [f"--array={array}"]
        answer = answer_of("sbatch", "--parsable", *ranges, *options, str(script))
        return answer.strip().splitlines()[-1].split(";")[0]

    def queue(self, name: str | None = None, *, patience: float = _PATIENCE) -> list[QueuedJob]:
        """The user's jobs in the queue, every task of an array on its own; only those of a name if given."""
        only = [] if name is None else [f"--name={name}"]
        words = ["--noheader", "--array", "--user", str(os.getuid()), *only]
        columns = "--format=" + "|".join(_COLUMNS.values())
        lines = answer_of("squeue", *words, columns, patience=patience).splitlines()
        return [_queued(dict(zip(_COLUMNS, line.split("|"), strict=True))) for line in lines if line.strip()]

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs for good; those that are gone already are no error."""
        if jobs:
            answer_of("scancel", "--quiet", *jobs)

    def config(self) -> dict[str, str]:
        """`scontrol show config` as key to value."""
        pairs = (line.partition("=") for line in answer_of("scontrol", "show", "config").splitlines())
        return {key.strip(): value.strip() for key, sign, value in pairs if sign}

    def partitions(self) -> list[dict[str, str]]:
        """Every partition, key to value."""
        return _records(answer_of("scontrol", "--oneliner", "show", "partition"))

    def nodes(self) -> list[dict[str, str]]:
        """Every node, key to value."""
        return _records(answer_of("scontrol", "--oneliner", "show", "node"))

    def job(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job, key to value."""
        return next(iter(_records(answer_of("scontrol", "--oneliner", "show", "job", job))), {})

    def max_array_size(self) -> int | None:
        """MaxArraySize: indices must be below it; None if the cluster does not say."""
        value = self.config().get("MaxArraySize", "")
        return int(value) if value.isdigit() else None


def job_id() -> str | None:
    """The job this process belongs to, as scancel takes it; None outside SLURM."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def seconds_left() -> float | None:
    """Seconds until SLURM ends the job this process belongs to; None outside SLURM or without a limit."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        return int(end) - time.time()
    try:
        return seconds_of(answer_of("squeue", "--noheader", "--jobs", job, "--format=%L"))
    except ClusterError:
        return None


def _queued(values: dict[str, str]) -> QueuedJob:
    of_array = values["index"] not in ("", "N/A")
    job = f"{values['array']}_{values['index']}" if of_array else values["id"]
    return QueuedJob(job, values["name"], values["state"], values["reason"], values["nodes"])


def _records(text: str) -> list[dict[str, str]]:
    """SLURM's one-line records: Key=value Key=value."""
    return [dict(re.findall(r"(\w+(?::\w+)?)=(\S*)", line)) for line in text.splitlines() if "=" in line]


def answer_of(*command: str, patience: float = _PATIENCE) -> str:
    """What a command of SLURM prints.

    Args:
        command: its words.
        patience: seconds it may take.

    Raises:
        ClusterError: it is missing, refuses, or takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except FileNotFoundError:
        raise ClusterError(
            f"{command[0]} is not on the PATH: go to a login node of the cluster, or use bbi sweep run here"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"{command[0]} has not answered for {patience:.0f} s: ask scontrol ping whether SLURM is up"
        ) from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ClusterError(f"{command[0]} refused: {words}")
    return done.stdout
