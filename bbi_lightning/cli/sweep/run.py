"""`bbi sweep run`: a sweep on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.sweep.asking import SWEEPS, Dir, as_typed, described, mistakes_in_a_sentence

if TYPE_CHECKING:
    from rich.console import Console

    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.run import SweepEnd

HELP = """
Run a sweep: a search of equal budget for each arm, then the best of each on fresh seeds.

[bold]Examples[/bold]

  [dim]# the shipped comparison: BBI, ECDSep, SGD and AdamW, two minutes[/dim]
  bbi sweep run sweep=digits_showdown

  [dim]# a quick look, and later twelve more trials an arm[/dim]
  bbi sweep run sweep=digits_showdown sweep.search.trials=4
  bbi sweep run sweep=digits_showdown sweep.search.trials=16

  [dim]# another space, under another name[/dim]
  bbi sweep run sweep=digits_showdown sweep.name=wide \\
      sweep.arms.sgd.space.optim.lr.high=3

  [dim]# more runs at a time, elsewhere[/dim]
  bbi sweep run sweep=digits_showdown --workers 8 --dir /scratch/sweeps

[bold]How it goes on[/bold]

  Ctrl-C stops it, and the same command goes on where it was: nothing runs
  twice. A diverged run is a result. Everything is in the sweep's folder:
  sweep.yaml, journal.log (an Optuna study per arm) and runs/.

  Write your own: copy configs/sweep/digits_showdown.yaml.

  Exit codes: 0 done, 1 some runs failed, 2 a mistake in the command or in
  the sweep, 130 interrupted.
"""


def run(
    overrides: Annotated[
        list[str],
        typer.Argument(metavar="sweep=NAME KEY=VALUE", help="Which sweep, and what differs from it."),
    ],
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Runs at a time; the sweep's own if not given."),
    ] = None,
    directory: Dir = SWEEPS,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run once more what failed.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Run the checkout, where the sweep has a copy of the code.")
    ] = False,
) -> None:
    """Run a sweep, or what is left of it."""
    from rich.console import Console

    from bbi_lightning.cli.sweep.task import task_named
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.live import display
    from bbi_lightning.sweeps.run import run_sweep

    console = Console()
    try:
        with mistakes_in_a_sentence():
            spec = described(overrides)
            if not live:
                _go_on_in_the_copy(console, SweepFolder(directory / spec.name))
            task = task_named(spec.task)
            end = run_sweep(
                spec, directory, task, display(console), workers=workers, retry_failed=retry_failed
            )
    except KeyboardInterrupt:  # before the first run
        raise typer.Exit(128 + signal.SIGINT) from None
    raise typer.Exit(_say_how_it_ended(console, end, directory))


def _go_on_in_the_copy(console: Console, folder: SweepFolder) -> None:
    """Where a sweep has a copy of the code, its trials are run by that, here too."""
    from bbi_lightning.sweeps.snapshot import Code, enter

    code = Code.read(folder.code)
    if code.is_in_use():
        return
    console.print(f"It goes on with {code.sentence()}.", style="dim", highlight=False, soft_wrap=True)
    if changed := code.changed_since():
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        words = f"The checkout has changed since ({changed[0]}{more}): --live runs it instead."
        console.print(words, style="yellow", highlight=False, markup=False, soft_wrap=True)
    enter(code)


def _say_how_it_ended(console: Console, end: SweepEnd, directory: Path) -> int:
    """Print what the user needs next; returns the exit code."""
    from bbi_lightning.cli.sweep.status import say_failures

    status = end.status
    name = as_typed(status.spec.name, directory)
    say_failures(console, status, end.folder, name)
    if isinstance(end.reason, int):
        console.print("Stopped. The same command goes on where it was.", style="yellow")
        return 128 + end.reason
    if end.reason == "cancelled":
        console.print("Cancelled. The same command goes on where it was.", style="yellow")
        return 1
    if not status.failures:
        console.print(f"All {status.total} runs are in {end.folder.path}", highlight=False, soft_wrap=True)
    console.print(f"Next: [bold]bbi compare {name}[/bold]", highlight=False, soft_wrap=True)
    return 1 if status.failures else 0
