"""`bbi sweep status`: where a sweep stands, once or for as long as one likes to look."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.sweep.asking import (
    SWEEPS,
    Dir,
    Json,
    Name,
    as_typed,
    counted,
    find,
    mistakes_in_a_sentence,
    opened,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from bbi_lightning.cluster.slurm import QueuedJob
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.status import SweepStatus

_SHOWN_FAILURES = 5
_LAST_LINES = 3
_PAUSE = 2.0  # seconds between two looks of --watch

HELP = """
Show where a sweep stands: counts, who works on it, the best of each arm, what failed and why.

[bold]Examples[/bold]

  bbi sweep status digits_showdown
  bbi sweep status digits_showdown --watch       # until it is done, or Ctrl-C
  bbi sweep status digits_showdown --json | jq .arms.bbi.best

  Failures are grouped by the last line of their traceback; each group says
  where to read on. [bold]interrupted[/bold] trials were begun and nobody has them at the
  moment: the next worker goes on with them.

  Exit codes: 0, and with --watch 1 if some runs failed; 2 no such sweep.
"""


def status(
    name: Name,
    directory: Dir = SWEEPS,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look until it is done.")] = False,
    as_json: Json = False,
) -> None:
    """Show where a sweep stands."""
    from rich.console import Console

    from bbi_lightning.sweeps.live import WIDE
    from bbi_lightning.sweeps.status import sweep_status

    console = Console()
    if not console.is_terminal:  # a file has no width
        console = Console(width=WIDE)
    with mistakes_in_a_sentence():
        folder = find(directory, name)
        typed = as_typed(name, directory)
        if watch and not as_json:
            raise typer.Exit(_watch(console, folder, typed))
        state = sweep_status(folder)
    if as_json:
        print(json.dumps(state.plain() | {"jobs": [vars(job) for job in _jobs(folder)]}, indent=2))
        return
    console.print(_picture(state, _jobs(folder), console.width))
    say_failures(console, state, folder, typed)


def _watch(console: Console, folder: SweepFolder, name: str) -> int:
    from rich.live import Live

    from bbi_lightning.sweeps.status import read_status
    from bbi_lightning.sweeps.workers import Roster

    studies = opened(folder)  # read once: then only what is new
    roster = Roster(folder.workers, studies.spec.lock)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        try:
            while True:
                studies.spec = folder.read_spec()
                state = read_status(studies, living=roster.living())
                live.update(_picture(state, _jobs(folder), console.width), refresh=True)
                if state.done:
                    break
                time.sleep(_PAUSE)
        except KeyboardInterrupt:
            pass
    say_failures(console, state, folder, name)
    return 1 if state.failures else 0


def _jobs(folder: SweepFolder) -> list[QueuedJob]:
    """The sweep's jobs in the queue; none where there is no SLURM, or where it does not answer."""
    from bbi_lightning.cluster import ClusterError, Slurm
    from bbi_lightning.sweeps.submission import job_name

    if not folder.slurm.is_dir() or not Slurm.is_here():
        return []
    try:
        return [job for job in Slurm().queue(job_name(folder)) if job.lives]
    except ClusterError:
        return []


def _picture(state: SweepStatus, jobs: Sequence[QueuedJob], width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from bbi_lightning.sweeps.live import table
    from bbi_lightning.tracking.durations import in_words

    parts = [f"{state.ended}/{state.total} runs"]
    if state.done:
        parts.append("done")
    else:
        parts.append(_who(state))
        if state.eta is not None and state.workers:
            parts.append(f"about {in_words(state.eta)} to go")
    waiting = [job for job in jobs if job.state == "PENDING"]
    if waiting:
        reasons = ", ".join(sorted({job.reason for job in waiting}))
        parts.append(f"{counted(len(waiting), 'job')} in the queue ({reasons})")
    return Group(table(state, width), Text("  " + " · ".join(parts) + "\n", style="dim"))


def _who(state: SweepStatus) -> str:
    if not state.workers:
        return "nobody works on it"
    if len(state.workers) == 1:
        return f"running: {state.workers[0].place}"
    hosts = len({worker.host for worker in state.workers})
    return f"{len(state.workers)} workers on {counted(hosts, 'host')}"


def say_failures(console: Console, state: SweepStatus, folder: SweepFolder, name: str) -> None:
    """Failed trials by their error: how many, which, where, the last lines, where to read on."""
    groups = state.failure_groups()
    if not groups:
        return
    console.print(f"{len(state.failures)} of the runs failed:", style="bold red")
    for error, trials in groups[:_SHOWN_FAILURES]:
        first = trials[0]
        console.print(
            f"  {len(trials)} × {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        lines = (first.outcome.error or "").strip().splitlines() if first.outcome else []
        for line in lines[-1 - _LAST_LINES : -1]:
            console.print(f"        {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
        where = f" on {first.worker['host']}" if "host" in first.worker else ""
        more = f" and {len(trials) - 1} more" if len(trials) > 1 else ""
        console.print(
            f"      {first.job.name}{where}{more}: bbi sweep logs {name} {first.job.name}",
            style="dim",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if len(groups) > _SHOWN_FAILURES:
        console.print(f"  … and {len(groups) - _SHOWN_FAILURES} other errors: bbi sweep status {name} --json")
    remedy = f"  When the cause is gone: bbi sweep retry {name} --failed\n"
    console.print(remedy, style="dim", highlight=False, soft_wrap=True)
