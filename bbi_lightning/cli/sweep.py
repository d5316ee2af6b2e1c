"""`bbi sweep`: run a comparison of several arms, see where it stands."""

from __future__ import annotations

import collections
import functools
import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # the rest is imported when a command runs: --help must be instant
    from omegaconf import DictConfig
    from rich.console import Console

    from bbi_lightning.sweeps import SweepSpec, Task
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.run import SweepEnd
    from bbi_lightning.sweeps.trial import Trial

_PRELOAD = ("bbi_lightning.cli.sweep_preload",)
_METRICS = ("val/acc", "val/loss", "train/loss")  # what `Classification` reports before the test
_SHOWN_FAILURES = 5

_RUN_HELP = """
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

_STATUS_HELP = """
Show where a sweep stands: counts, the best of each arm, what failed and why.

[bold]Examples[/bold]

  bbi sweep status digits_showdown
  bbi sweep status digits_showdown --json | jq .arms.bbi.best
"""

_CONTEXT = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="Compare arms (optimizers, say) fairly: search with equal budgets, then replicate.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings=_CONTEXT,
)

Dir = Annotated[Path, typer.Option("--dir", help="The folder that holds all sweeps.")]


@app.command(no_args_is_help=True, help=_RUN_HELP, context_settings=_CONTEXT)
def run(
    overrides: Annotated[
        list[str],
        typer.Argument(metavar="sweep=NAME KEY=VALUE", help="Which sweep, and what differs from it."),
    ],
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Runs at a time; the sweep's own if not given."),
    ] = None,
    directory: Dir = Path("sweeps"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run once more what failed.")] = False,
) -> None:
    """Run a sweep, or what is left of it."""
    from rich.console import Console

    from bbi_lightning.sweeps.live import display
    from bbi_lightning.sweeps.run import run_sweep

    console = Console()
    try:
        spec = _spec(overrides)
        end = run_sweep(
            spec, directory, _task(), display(console), workers=workers, retry_failed=retry_failed
        )
    except ValueError as error:
        if not _users_mistake(error):
            raise
        _complain(error)
    except KeyboardInterrupt:  # before the first run
        raise typer.Exit(128 + signal.SIGINT) from None
    raise typer.Exit(_say_how_it_ended(console, end, directory))


@app.command(no_args_is_help=True, help=_STATUS_HELP, context_settings=_CONTEXT)
def status(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name, or its folder.")],
    directory: Dir = Path("sweeps"),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show where a sweep stands."""
    from rich.console import Console

    from bbi_lightning.sweeps.live import WIDE, table
    from bbi_lightning.sweeps.run import sweep_status

    console = Console()
    try:
        folder = _find(directory, name)
        state = sweep_status(folder)
        holder = folder.holder()
    except (ValueError, FileNotFoundError) as error:
        _complain(error)
    if as_json:
        print(json.dumps(state.plain() | {"runner": holder}, indent=2))
        return
    if not console.is_terminal:  # a file has no width
        console = Console(width=WIDE)
    console.print(table(state, console.width))
    _say_failures(console, state.failures, folder)
    where = f"running: process {holder.get('pid')} on {holder.get('host')}" if holder else "not running"
    console.print(f"  {state.ended}/{state.total} runs · {'done' if state.done else where}\n", style="dim")


def _spec(overrides: Sequence[str]) -> SweepSpec:
    """The description that a command line composes."""
    from bbi_lightning.sweeps import SweepError, parse_spec
    from bbi_lightning.training.composition import compose, plain
    from bbi_lightning.training.config_files import groups

    if not any(override.startswith("sweep=") for override in overrides):
        raise SweepError(
            f"which sweep is meant is missing: add sweep=NAME, one of {', '.join(groups()['sweep'])}"
        )
    return parse_spec(plain(compose(overrides, root="sweep"))["sweep"])


def _task() -> Task:
    from bbi_lightning.sweeps import Task

    return Task(run=_run, run_name=_run_name, validate=_validate, preload=_PRELOAD, metrics=_METRICS)


@functools.lru_cache(maxsize=1)
def _config(overrides: tuple[str, ...]) -> DictConfig:
    from bbi_lightning.training.composition import compose

    return compose(overrides)


def _validate(overrides: Sequence[str]) -> None:
    from bbi_lightning.training.config import validate

    validate(_config(tuple(overrides)))


def _run_name(overrides: Sequence[str]) -> str:
    from bbi_lightning.training.config import run_name

    return run_name(_config(tuple(overrides)))


def _run(overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
    from bbi_lightning.training.run import train

    config = _config(tuple(overrides)).copy()
    config.runtime.root = str(root)
    config.runtime.group = labels["sweep"]
    config.runtime.threads = 1
    train(config, labels=labels, overrides=overrides)


def _find(directory: Path, name: str) -> SweepFolder:
    """The folder of the sweep with this name (or at this path)."""
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.section import did_you_mean

    for path in (directory / name, Path(name)):
        if (path / "sweep.yaml").is_file():
            return SweepFolder(path)
    known = sorted(file.parent.name for file in directory.glob("*/sweep.yaml"))
    hint = did_you_mean(name, known) if known else "start one with bbi sweep run"
    raise FileNotFoundError(f"there is no sweep {name} in {directory}: {hint}")


def _users_mistake(error: ValueError) -> bool:
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.training.components import ConfigError

    return isinstance(error, (SweepError, ConfigError))


def _complain(error: Exception) -> None:
    typer.secho(f"error: {error}", err=True, fg="red")
    raise typer.Exit(2)


def _say_how_it_ended(console: Console, end: SweepEnd, directory: Path) -> int:
    """Print what the user needs next; returns the exit code."""
    status, name = end.status, end.status.spec.name
    _say_failures(console, status.failures, end.folder)
    if end.signal is not None:
        console.print("Stopped. The same command goes on where it was.", style="yellow")
        return 128 + end.signal
    if not status.failures:
        console.print(f"All {status.total} runs are in {end.folder.path}", highlight=False, soft_wrap=True)
    where = name if directory == Path("sweeps") else str(directory / name)
    console.print(f"Next: [bold]bbi compare {where}[/bold]", highlight=False, soft_wrap=True)
    return 1 if status.failures else 0


def _say_failures(console: Console, failures: Sequence[Trial], folder: SweepFolder) -> None:
    """Failed trials by their error: how many, which, where to read on."""
    from bbi_lightning.sweeps.child import LOG

    by_error: dict[str, list[Trial]] = collections.defaultdict(list)
    for trial in failures:
        error = trial.outcome.error if trial.outcome and trial.outcome.error else "unknown"
        by_error[error.strip().splitlines()[-1]].append(trial)
    if failures:
        console.print(f"{len(failures)} of the runs failed:", style="bold red")
    for error, trials in list(by_error.items())[:_SHOWN_FAILURES]:
        first = trials[0]
        console.print(
            f"  {len(trials)} × {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        log = f": {folder.runs / first.run / LOG}" if first.run else ""
        console.print(f"      {first.job}{log}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if len(by_error) > _SHOWN_FAILURES:
        console.print(f"  … and {len(by_error) - _SHOWN_FAILURES} other errors: bbi sweep status --json")
    if failures:
        console.print("  When the cause is gone: the same command with --retry-failed\n", style="dim")
