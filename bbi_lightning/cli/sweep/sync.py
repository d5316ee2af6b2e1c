"""`bbi sweep sync`: what W&B recorded offline goes to the service."""

from __future__ import annotations

from typing import Annotated

import typer

from bbi_lightning.cli.sweep.asking import SWEEPS, Dir, Name, find, mistakes_in_a_sentence

HELP = """
Send to W&B what a sweep's runs recorded offline: from a login node, where there is internet and a key.

[bold]Examples[/bold]

  bbi sweep sync digits_showdown

  Stop it whenever you like: what was sent is marked, and the next call goes on.
  The attempts of a run are sent in their order, and arrive as one run. A run
  that is being trained is sent when it is not: call it again later.

  Exit codes: 0 all was sent; 1 some could not be; 2 a mistake.
"""


def sync(
    name: Name,
    directory: Dir = SWEEPS,
    at_a_time: Annotated[int, typer.Option("--parallel", min=1, max=16, help="Runs side by side.")] = 4,
) -> None:
    """Send to W&B what was recorded offline."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bbi_lightning.tracking.wandb_sync import Unsent, send, unsent

    console = Console()
    with mistakes_in_a_sentence():
        folder = find(directory, name)
        if not folder.runs.is_dir():
            raise FileNotFoundError(f"{folder.path} has no runs yet: start some with bbi sweep run")
        runs = unsent(folder.runs)
    if not runs:
        console.print("Nothing to send: no run has records of W&B that were not sent (tracking=offline).")
        return
    columns = (TextColumn("  sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(runs))

        def report(run: Unsent, trouble: str | None) -> None:
            progress.advance(task)

        troubles = send(runs, at_a_time=at_a_time, report=report)
    console.print(f"{len(runs) - len(troubles)} of {len(runs)} runs were sent.", highlight=False)
    for run, trouble in list(troubles.items())[:5]:
        console.print(f"  {run}: {trouble}", style="red", markup=False, highlight=False, soft_wrap=True)
    if troubles:
        console.print("When the cause is gone, the same command sends the rest.", style="dim")
        raise typer.Exit(1)
