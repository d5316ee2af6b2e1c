"""`bbi import`: runs that another tracker has kept, as a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bbi_lightning.comparison.imports import ForeignRun, Naming, Written
    from bbi_lightning.comparison.imports.foreign import Watch
    from bbi_lightning.comparison.imports.settings import SortedRuns

HELP = """
Import runs that others have made, to compare them as if they were ours.

[bold]Examples[/bold]

  [dim]# W&B: a folder with runs.csv and a history for each run[/dim]
  bbi import wandb-export export/ --sweep theirs --arm optimizer

  [dim]# W&B: a local wandb/ folder, online or offline runs[/dim]
  bbi import wandb-export wandb/ --sweep theirs

  [dim]# TensorBoard: a folder a run; the first folder's name is the arm[/dim]
  bbi import tensorboard lightning_logs/ --sweep theirs --arm folder

  [dim]# a CSV file a run, and runs.csv; foreign names, accuracy in per cent[/dim]
  bbi import csv results/ --sweep theirs --map top1=val/acc \\
      --scale val/acc=0.01 --map lr=optim.lr

  [dim]# beside a sweep of ours: its objective, labels and spaces[/dim]
  bbi import csv results/ --sweep theirs --like digits_showdown
  bbi compare theirs

[bold]What becomes of them[/bold]

  A sweep's folder like any other, whose runs say where they are from: in
  compare, audit and runs ls too. Of each setting the lowest seed is a trial;
  the best trial's other seeds are its replicates; an arm of one setting has
  replicates only. Importing again adds what is new.

  Exit codes: 0 done, 2 a mistake in the command or in the files.
"""

_ORIGINS = {"wandb-export": "W&B", "tensorboard": "TensorBoard", "csv": "CSV"}
_SWEEPS = Path("sweeps")


def import_runs(
    kind: Annotated[str, typer.Argument(metavar="wandb-export|tensorboard|csv", help="What PATH holds.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The export's folder.")],
    sweep: Annotated[str, typer.Option("--sweep", help="The name of the sweep to write.")],
    arm: Annotated[
        str | None,
        typer.Option(help="The setting that tells the arms apart; or name, folder, group."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="THEIRS=OURS", help="A metric, setting or column by our name."),
    ] = None,
    scales: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="METRIC=FACTOR", help="Multiply a metric, such as val/acc=0.01."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A setting that says nothing.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="METRIC[:minimize]", help="The validation metric to choose by."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="SWEEP", help="Take objective, labels and spaces from a sweep.")
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="The folder that holds all sweeps.")] = _SWEEPS,
) -> None:
    """Import runs that others have made."""
    from bbi_lightning.comparison.imports import Choices, ForeignDataError, sorted_into_arms, write_sweep

    try:
        if kind not in _ORIGINS:
            raise ForeignDataError(f"{kind} cannot be imported: use one of {', '.join(_ORIGINS)}")
        if not sweep.replace("-", "").replace("_", "").replace(".", "").isalnum() or sweep.startswith("."):
            raise ForeignDataError(f"--sweep {sweep} names a folder: use letters, digits, '-', '_' and '.'")
        metric, _, direction = (objective or "").partition(":")
        if direction not in ("", "maximize", "minimize"):
            raise ForeignDataError(
                f"--objective {objective} ends on neither :maximize nor :minimize: use one"
            )
        choices = Choices(
            arm=arm,
            ignore=tuple(ignore or ()),
            objective=metric or None,
            direction=direction or None,  # type: ignore[arg-type]  # looked at above
            like=None if like is None else _description(directory, like),
        )
        named_runs = _named(kind, path, _naming(names or [], scales or []))
        found = sorted_into_arms(named_runs, choices)
        written = write_sweep(
            found, directory / sweep, origin=_ORIGINS[kind], source=str(path.resolve()), watch=_watched
        )
    except ForeignDataError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None
    _say(found, written, (*named_runs.notes, *found.notes), sweep, directory)


def _named(kind: str, path: Path, naming: Naming) -> Any:
    """The runs of the source by our names."""
    from bbi_lightning.comparison.imports import (
        name_runs,
        read_csv_folder,
        read_tensorboard,
        read_wandb_export,
    )

    readers: dict[str, Callable[[Path, Watch], Sequence[ForeignRun]]] = {
        "wandb-export": read_wandb_export,
        "tensorboard": read_tensorboard,
        "csv": read_csv_folder,
    }
    return name_runs(readers[kind](path, _watched), naming)


def _watched(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    """A bar with the time left, on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


def _naming(names: Sequence[str], scales: Sequence[str]) -> Naming:
    from bbi_lightning.comparison.imports import ForeignDataError, Naming

    pairs, factors = {}, {}
    for text in names:
        theirs, equals, ours = text.rpartition("=")
        if not (theirs and equals and ours):
            raise ForeignDataError(
                f"--map {text} says nothing: write it as THEIRS=OURS, such as loss=train/loss"
            )
        pairs[theirs] = ours
    for text in scales:
        metric, _, factor = text.rpartition("=")
        try:
            factors[metric] = float(factor)
        except ValueError:
            factors[metric] = 0.0
        if not metric or factors[metric] == 0.0:
            raise ForeignDataError(
                f"--scale {text} is no factor: write it as METRIC=NUMBER, such as val/acc=0.01"
            )
    return Naming(pairs, factors)


def _description(directory: Path, name: str) -> dict[str, Any]:
    """The sweep.yaml of another sweep."""
    from omegaconf import OmegaConf

    from bbi_lightning.comparison.imports import ForeignDataError

    for folder in (directory / name, Path(name)):
        if (folder / "sweep.yaml").is_file():
            spec = OmegaConf.to_container(OmegaConf.load(folder / "sweep.yaml"), resolve=False)
            if isinstance(spec, dict) and isinstance(spec.get("objective"), dict):
                return {str(key): value for key, value in spec.items()}
    raise ForeignDataError(
        f"--like {name}: there is no such sweep in {directory}: give a sweep's name or folder"
    )


def _say(found: SortedRuns, written: Written, notes: Sequence[str], sweep: str, directory: Path) -> None:
    """What was done, what was decided on the way, what comes next."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("arm", "trials", "replicates", "others", "searched"):
        table.add_column(column, justify="right" if column in ("trials", "replicates", "others") else "left")
    for arm in found.arms:
        phases = [placed.phase for placed in found.runs if placed.arm == arm.name]
        counts = [str(phases.count(phase)) for phase in ("search", "replicate", "added")]
        table.add_row(arm.label, *counts, ", ".join(arm.space) or "–")
    console.print(table)
    goal = found.objective
    words = [
        f"Chosen by {goal['metric']} ({goal['direction']}).",
        *(f"· {note}." for note in notes),
    ]
    for sentence in words:
        console.print(sentence, style="dim", highlight=False, markup=False, soft_wrap=True)
    parts = [(written.new, "new"), (written.changed, "changed"), (written.same, "as they were")]
    told = ", ".join(f"{count} {what}" for count, what in parts if count) or "nothing"
    more = f"; {written.kept} of earlier imports stay" if written.kept else ""
    console.print(
        f"{len(found.runs)} runs ({told}{more}) are in {written.folder}", highlight=False, soft_wrap=True
    )
    name = sweep if directory == _SWEEPS else written.folder
    console.print(f"Next: [bold]bbi compare {name}[/bold]", highlight=False, soft_wrap=True)
