"""`bbi runs rm` and `bbi runs restore`: to the trash, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.runs.asking import (
    USUAL_ROOTS,
    Roots,
    Where,
    chosen_runs,
    fail,
    mistakes_in_a_sentence,
    registry,
)

if TYPE_CHECKING:
    from bbi_lightning.tracking.registry import IndexedRun
    from bbi_lightning.tracking.trash import Trashed

RM_HELP = """
Put runs into the trash: <root>/.trash, whole, from where bbi runs restore brings them back.

[bold]Examples[/bold]

  bbi runs rm digits-cnn-bbi-38aa4ac6cd-s0
  bbi runs rm --where "state in (failed, lost) and age>30d"

  [dim]# without asking, for scripts[/dim]
  bbi runs rm --where "tags=junk" --yes

  [dim]# delete what is in the trash, for good[/dim]
  bbi runs rm --empty-trash

A run that is being trained is refused. A sweep that has lost a finished run
says so when it is compared.
"""

RESTORE_HELP = """
Bring runs back from the trash, to where they were.

[bold]Examples[/bold]

  bbi runs restore                  [dim]# lists what is in the trash[/dim]
  bbi runs restore digits-cnn-bbi-38aa4ac6cd-s0
  bbi runs restore --all

Where there is a run of that name by now, nothing is overwritten.
"""

_LISTED = 10

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def rm(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help="Names or folders.", show_default=False)
    ] = None,
    where: Where = None,
    yes: Yes = False,
    empty: Annotated[
        bool, typer.Option("--empty-trash", help="Delete what is in the trash for good.")
    ] = False,
    roots: Roots = None,
) -> None:
    """Put runs into the trash."""
    from bbi_lightning.tracking.run_lock import RunBusyError
    from bbi_lightning.tracking.trash import throw_away

    with mistakes_in_a_sentence():
        if empty:
            _empty(roots, yes, bool(words or where))
            return
        runs = chosen_runs(registry(roots), words or [], where)
        if not runs:
            typer.echo("no run is such a one: nothing is put away")
            return
        busy = [run for run in runs if run.state == "running"]
        if busy:
            fail(
                f"run {busy[0].name} is being trained: stop it first, or leave out what runs with "
                "--where '… and state!=running'"
            )
        if not yes:
            _need_somebody()
        _announce(runs)
        if not yes:
            _ask(f"Put {_counted(len(runs))} into the trash?")
        for done, run in enumerate(runs):
            try:
                throw_away(run.folder, run.root)
            except (RunBusyError, OSError) as error:
                fail(f"{run.folder}: {error}; {_counted(done)} before it went into the trash")
    typer.echo(f"{_counted(len(runs))} in the trash: bbi runs restore brings them back")


def restore(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help="Names of runs.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is in the trash.")] = False,
    roots: Roots = None,
) -> None:
    """Bring runs back from the trash."""
    from bbi_lightning.tracking.trash import restore as bring_back

    with mistakes_in_a_sentence():
        trash = _trash(roots)
        if not words and not everything:
            _list(trash)
            return
        chosen = trash if everything else [_found(trash, word) for word in words or ()]
        for run in chosen:
            typer.echo(f"{run.name}: back in {bring_back(run)}")
        if not chosen:
            typer.echo("the trash is empty")


def _empty(roots: Sequence[Path] | None, yes: bool, more: bool) -> None:
    from bbi_lightning.tracking.trash import delete

    if more:
        fail("--empty-trash deletes all that is in the trash: give it without runs or --where")
    trash = _trash(roots)
    if not trash:
        typer.echo("the trash is empty")
        return
    if not yes:
        _need_somebody()
    _list(trash[:_LISTED])
    if not yes:
        _ask(f"Delete {_counted(len(trash))} for good?")
    for run in trash:
        delete(run)
    typer.echo(f"{_counted(len(trash))} deleted")


def _trash(roots: Sequence[Path] | None) -> list[Trashed]:
    from bbi_lightning.tracking.trash import trashed_runs

    return [run for root in roots or USUAL_ROOTS for run in trashed_runs(root)]


def _found(trash: Sequence[Trashed], word: str) -> Trashed:
    """The run that was last thrown away of those with this name, or a part of it."""
    found = [run for run in trash if run.name == word] or [run for run in trash if word in run.name]
    places = sorted({str(run.root / run.was) for run in found})
    if not found:
        fail(f"there is no run {word} in the trash: bbi runs restore lists what is")
    if len(places) > 1:
        fail(f"{word} could be {' or '.join(places)}: write more of its name, or choose with --dir")
    return found[0]


def _list(trash: Sequence[Trashed]) -> None:
    for run in trash:
        typer.echo(f"{run.when[:16].replace('T', ' ')}  {run.was}")
    if not trash:
        typer.echo("the trash is empty")


def _announce(runs: Sequence[IndexedRun]) -> None:
    """What will go, before the question."""
    for run in runs[:_LISTED]:
        typer.echo(f"{run.state:<12} {run.folder}")
    if len(runs) > _LISTED:
        typer.echo(f"… and {len(runs) - _LISTED:,} more")
    of_sweeps = [
        run for run in runs if run.fields.get("sweep") and run.state in ("finished", "diverged", "pruned")
    ]
    if of_sweeps:
        sweeps = ", ".join(sorted({str(run.fields["sweep"]) for run in of_sweeps}))
        typer.secho(
            f"{_counted(len(of_sweeps))} with a result in a sweep ({sweeps}): missed there from now on",
            fg="yellow",
        )


def _need_somebody() -> None:
    """Refuse where no terminal is, for nobody could answer."""
    import sys

    if not sys.stdin.isatty():
        fail("nobody is there to answer: say --yes if you mean it")


def _ask(question: str) -> None:
    """Raises typer.Exit unless the answer is yes."""
    if not typer.confirm(question):
        raise typer.Exit(1)


def _counted(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"
