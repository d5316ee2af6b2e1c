"""`bbi sweep work`: what the jobs of a sweep run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.sweep.asking import find, mistakes_in_a_sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

HELP = """
Work on a sweep until nothing is left: what `bbi sweep submit` lets the jobs run.

[bold]Examples[/bold]

  [dim]# four trials at a time, on this machine's cores[/dim]
  bbi sweep work sweeps/digits_showdown --slots 4

  [dim]# on a machine with two GPUs, three trials on each[/dim]
  bbi sweep work sweeps/digits_showdown --slots 6 --gpus 0,1

  As many workers as you like, on as many machines as see the folder.

  Exit codes: 0 nothing left, or cancelled; 75 its time is up; 128 + n signal n:
  there is work left, start it again.
"""

_MARGIN = 45.0  # seconds before the job's end at which trials are asked to save
_LINGER = 600.0


def work(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The sweep's folder.")],
    slots: Annotated[int, typer.Option("--slots", min=1, help="Trials at a time.")] = 1,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", help="GPUs to share among the slots; those that are visible if not given."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="What one trial may hold, such as 4G; it fails beyond.")
    ] = None,
    linger: Annotated[
        float, typer.Option("--linger", min=0, help="Seconds to wait for the trials of others at the end.")
    ] = _LINGER,
) -> None:
    """Work on a sweep."""
    from bbi_lightning.cli.sweep.task import task_named
    from bbi_lightning.cluster.slurm import seconds_left
    from bbi_lightning.sweeps import child
    from bbi_lightning.sweeps.memory import bytes_of
    from bbi_lightning.sweeps.worker import TIME_LIMIT, Limits, Worker

    with mistakes_in_a_sentence():
        found = find(folder.parent, folder.name)
        task = task_named(found.read_spec().task)
        left = seconds_left()
        limits = Limits(
            places=_places(slots, gpus),
            memory=None if memory is None else bytes_of(memory),
            deadline=None if left is None else time.monotonic() + left - min(_MARGIN, left / 4),
            linger=linger,
        )
        context = child.fork_server(task.preload)
        print(f"working on {found.path}: {slots} trials at a time", flush=True)
        reason = Worker(found, task, context, limits, lambda studies, running: None).work()
    print(f"stopped: {reason}", flush=True)
    raise typer.Exit(TIME_LIMIT if reason == "time" else 128 + reason if isinstance(reason, int) else 0)


def _places(slots: int, gpus: str | None) -> list[Mapping[str, str]]:
    """The environment of each slot: an equal share of the cores, and one of the GPUs."""
    from bbi_lightning.sweeps import child

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = child.threads(max(1, int(os.environ.get("SLURM_CPUS_PER_TASK", cores)) // slots))
    visible = gpus if gpus is not None else os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = [device for device in visible.split(",") if device]
    if not devices:
        return [share] * slots
    return [{**share, "CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} for slot in range(slots)]
