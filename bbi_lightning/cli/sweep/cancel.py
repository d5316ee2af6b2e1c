"""`bbi sweep cancel`: a sweep stopped, or some of its trials; study and queue agree afterwards."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.sweep.asking import (
    SWEEPS,
    Dir,
    Name,
    as_typed,
    counted,
    find,
    mistakes_in_a_sentence,
    opened,
)

if TYPE_CHECKING:
    from rich.console import Console

    from bbi_lightning.sweeps.folder import SweepFolder

HELP = """
Stop a sweep: its workers save and leave, here and on the cluster, and its jobs go from the queue.

[bold]Examples[/bold]

  bbi sweep cancel digits_showdown
  [dim]# without waiting for anybody to save[/dim]
  bbi sweep cancel digits_showdown --now

  [dim]# only these two trials[/dim]
  bbi sweep cancel digits_showdown --trial sgd/3 --trial sgd/7

  Nothing is lost: bbi sweep submit, or run, goes on where it was. A trial that
  was cancelled counts as failed, and its point says nothing about the arm; the
  others go on. bbi sweep retry NAME TRIAL takes that back.
"""

_LEAVING = 30.0  # seconds in which running workers may save and leave before they are cancelled


def cancel(
    name: Name,
    directory: Dir = SWEEPS,
    trials: Annotated[
        list[str] | None,
        typer.Option("--trial", help="Only this trial, such as sgd/3; may be repeated.", show_default=False),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for trials to save.")] = False,
) -> None:
    """Stop a sweep, or some of its trials."""
    from rich.console import Console

    console = Console()
    with mistakes_in_a_sentence():
        folder = find(directory, name)
        if trials:
            _cancel_trials(folder, trials, console)
        else:
            _cancel_all(folder, console, patience=0.0 if now else _LEAVING)
    console.print(
        f"Next: [bold]bbi sweep status {as_typed(name, directory)}[/bold]", highlight=False, soft_wrap=True
    )


def _cancel_trials(folder: SweepFolder, names: list[str], console: Console) -> None:
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.sweeps.trial_names import find_trials

    studies = opened(folder)
    with studies.alone():
        chosen = find_trials(studies, names)
        for trial in chosen:
            if trial.ended:
                raise SweepError(f"{trial.job.name} is {trial.state} already: there is nothing to cancel")
        for trial in chosen:
            studies.cancel(trial)
    console.print(f"Cancelled: {', '.join(trial.job.name for trial in chosen)}", highlight=False)


def _cancel_all(folder: SweepFolder, console: Console, patience: float) -> None:
    """Ask all workers to leave, wait for them, and take the sweep's jobs from the queue."""
    from bbi_lightning.cluster import Slurm
    from bbi_lightning.sweeps.submission import job_name
    from bbi_lightning.sweeps.workers import Roster
    from bbi_lightning.tracking.durable import write_atomically

    roster = Roster(folder.workers, folder.read_spec().lock)
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_atomically(folder.stop_file, json.dumps({"since": since}).encode())
    jobs = []
    if Slurm.is_here() and folder.slurm.is_dir():
        jobs = [job for job in Slurm().queue(job_name(folder)) if job.lives]
        Slurm().cancel([job.id for job in jobs if not patience or job.state == "PENDING"])
    leaving = roster.living()
    deadline = time.monotonic() + patience
    with console.status(f"{counted(len(leaving), 'worker')} to save and leave"):
        while (left := roster.living()) and time.monotonic() < deadline:
            time.sleep(0.5)
    if left and jobs:  # they were given their time
        Slurm().cancel([job.id for job in Slurm().queue(job_name(folder)) if job.lives])
    gone = f"{counted(len(leaving) - len(left), 'worker')} left"
    gone += f", {counted(len(jobs), 'job')} taken from the queue" if jobs else ""
    console.print(f"Cancelled: {gone}. Nothing is lost: bbi sweep run, or submit, goes on.", soft_wrap=True)
    for worker in left if not jobs else ():
        console.print(f"[yellow]{worker.place} has not left yet: it still saves[/yellow]", highlight=False)
