"""`bbi train` and `bbi config`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.runs import find_run
from bbi_lightning.training import interrupts
from bbi_lightning.training.config_files import groups

if TYPE_CHECKING:
    from bbi_lightning.tracking.run_folder import RunFolder

EXAMPLES = """
[bold]Examples[/bold]

  [dim]# the defaults: BBI on handwritten digits, seconds on a laptop[/dim]
  bbi train

  [dim]# another optimizer, rate and seed[/dim]
  bbi train optim=sgd optim.lr=0.05 seed=1

  [dim]# other data and model, a schedule, a GPU[/dim]
  bbi train data=cifar10 model=cifar_resnet18 scheduler=cosine runtime.accelerator=gpu

  [dim]# a recipe: several choices under one name, and one of them changed[/dim]
  bbi train experiment=cifar10_bbi trainer.max_epochs=30

[bold]How to say it[/bold]

  group=option      choose a file of configs/<group>/
  group.key=value   set one of its keys: 0.1, true, null, \\[1,2], "some text"
  bbi config …      print the complete config that comes out

  The same words name the same run: it is found finished, or goes on where it
  was interrupted (Ctrl-C saves first). See also bbi resume.
"""

FROM_EXAMPLES = """
[bold]Beginning elsewhere, or anew[/bold]

  [dim]# from the weights of another run; what is taken becomes part of the identity[/dim]
  bbi train optim=sgd --from digits-cnn-bbi-38aa4ac6cd-s0 --take weights

  [dim]# from the start again: the old folder is set aside in runs/.replaced[/dim]
  bbi train --fresh

  Exit codes: 0 done, 1 an error, 2 a mistake in the config, 71 another rank
  vanished, 75 the time limit came, 128 + n signal n.
"""

_HELP_WIDTH = 78

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="What differs from the defaults.", show_default=False),
]


def teaching(summary: str, more: str = "") -> str:
    """Help that shows by example, and lists every group with its options."""
    known = {group: options for group, options in groups().items() if group != "sweep"}
    width = max(map(len, known))
    indent = " " * (width + 5)
    lines = []
    for group, options in known.items():
        text = f"  {group:<{width}}   {', '.join(options)}"
        lines += textwrap.wrap(text, _HELP_WIDTH, subsequent_indent=indent, drop_whitespace=False)
    return "\n".join([summary, EXAMPLES, more, "[bold]Groups[/bold]", "", *lines])


def train(
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew; what there is of the run is set aside, not lost.")
    ] = False,
    begin_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN", help="Begin from a checkpoint of another run.", show_default=False
        ),
    ] = None,
    take: Annotated[
        str | None,
        typer.Option(
            "--take",
            metavar="WHAT",
            help="What to take from there: weights, or weights_and_optimizer.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train one network, and test it once at the end."""
    with interrupts.listening(), user_errors():  # before torch is imported, which takes seconds
        from bbi_lightning.training.composition import compose

        words = [*(overrides or []), *_beginning(begin_from, take)]
        composed = compose(words)  # most mistakes show here, before torch is imported

        from bbi_lightning.training.run import exit_if_interrupted, is_rank_zero
        from bbi_lightning.training.run import train as train_run

        folder = train_run(composed, overrides=words, fresh=fresh)
        if is_rank_zero():
            print_result(folder)
        exit_if_interrupted(folder)


def _beginning(place: str | None, take: str | None) -> list[str]:
    """The overrides that --from and --take stand for."""
    if place is None and take is None:
        return []
    from bbi_lightning.training.components import ConfigError

    if place is None:
        raise ConfigError(f"--take={take} needs a place to take it from: add --from RUN")
    if take is None:
        raise ConfigError(
            f"--from={place} does not say what to take: add --take weights or weights_and_optimizer"
        )
    path = Path(place)
    if not (path / "manifest.json").is_file():  # no checkpoint's own folder
        path = find_run(place, Path("runs")).path
    quoted = str(path.resolve()).replace("'", "\\'")
    return ["start=checkpoint", f"start.checkpoint='{quoted}'", f"start.take={take}"]


def config(overrides: Overrides = None) -> None:
    """Print the complete config that some overrides make, after checking it."""
    with user_errors():
        from omegaconf import OmegaConf

        from bbi_lightning.training.composition import compose

        composed = compose(overrides or [])

        from bbi_lightning.training.config import checked, run_name

        checked(composed)
        text = f"# run {run_name(composed)}\n{OmegaConf.to_yaml(composed, resolve=True)}"
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "yaml", background_color="default"))
    else:
        typer.echo(text, nl=False)


@contextmanager
def user_errors() -> Iterator[None]:
    """A mistake of the user's becomes one sentence on stderr and exit code 2; a lost rank, code 71."""
    try:
        yield
    except ValueError as error:
        from bbi_lightning.checkpoints.store import ForeignCheckpointError
        from bbi_lightning.tracking.run_lock import RunBusyError
        from bbi_lightning.training.components import ConfigError

        if not isinstance(error, (ConfigError, ForeignCheckpointError, RunBusyError)):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except RuntimeError as error:
        from bbi_lightning.training.run import LostRankError
        from bbi_lightning.training.watchdog import LOST_RANK

        if not isinstance(error, LostRankError):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(LOST_RANK) from None


def print_result(folder: RunFolder) -> None:
    """Losses and accuracies, size, and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    record = folder.record
    table = Table(title=f"{record.name}: {record.state}", title_justify="left", min_width=44)
    table.add_column("")
    for column in ("loss", "accuracy"):
        table.add_column(column, justify="right")
    for stage in ("train", "val", "test"):
        loss, accuracy = (record.summary.get(f"{stage}/{name}") for name in ("loss", "acc"))
        if loss is not None:
            table.add_row(stage, f"{loss:.4g}", "" if accuracy is None else f"{100 * accuracy:.2f} %")
    console = Console()
    console.print(table)
    console.print(_size(record.summary), highlight=False)
    console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)


def _size(summary: Mapping[str, Any]) -> str:
    facts = []
    if "parameters" in summary:
        facts.append(f"{summary['parameters']:,} parameters")
    if "steps" in summary:
        facts.append(f"{summary['steps']:,} steps")
    if "wall_s" in summary:
        facts.append(f"{summary['wall_s']:.1f} s")
    return " · ".join(facts)
