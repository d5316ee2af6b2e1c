"""`bbi runs tag` and `bbi runs note`: what people say of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.runs.asking import (
    Roots,
    Word,
    chosen_runs,
    fail,
    mistakes_in_a_sentence,
    registry,
)

if TYPE_CHECKING:
    from bbi_lightning.tracking.annotations import Annotations

TAG_HELP = """
Give tags to runs, and take them away.

[bold]Examples[/bold]

  bbi runs tag digits-cnn-bbi-38aa4ac6cd-s0 +paper
  bbi runs tag RUN OTHER +paper -draft
  bbi runs tag --where "sweep=digits_showdown and phase=replicate" +figure-2

  [dim]# and then[/dim]
  bbi runs ls --where tags=paper

+TAG gives it, -TAG takes it away; a tag is a word. They are kept in the run's
folder, in annotations.json, and move with it.
"""

NOTE_HELP = """
Write a note on a run, or show it.

[bold]Examples[/bold]

  bbi runs note digits-cnn-bbi-38aa4ac6cd-s0 "loss spike at step 400"
  bbi runs note RUN                 [dim]# shows it[/dim]
  bbi runs note RUN ""              [dim]# removes it[/dim]
  bbi runs ls --where "note~spike" --columns +note

It is kept in the run's folder, in annotations.json, and moves with it.
"""

# "-draft" takes a tag away: it is no option, nor are the letters of a tag that begins with h
TAG_CONTEXT = {"help_option_names": ["--help"], "ignore_unknown_options": True}


def tag(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN… +TAG -TAG", help="Runs, tags to give, tags to take.", show_default=False
        ),
    ],
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="QUERY", show_default=False, help="Which runs, as in bbi runs ls."),
    ] = None,
    roots: Roots = None,
) -> None:
    """Give tags to runs, and take them away."""
    from bbi_lightning.tracking.annotations import Annotations, change_annotations

    if "-h" in words:  # as everywhere else
        typer.echo(context.get_help())
        return
    names = [word for word in words if not word.startswith(("+", "-"))]
    give, take = ([word[1:] for word in words if word.startswith(sign)] for sign in "+-")
    with mistakes_in_a_sentence():
        _check(words, give, take)
        runs = chosen_runs(registry(roots), names, where)

        def change(said: Annotations) -> Annotations:
            return Annotations(tuple((set(said.tags) - set(take)) | set(give)), said.note)

        for done, run in enumerate(runs):
            try:
                said = change_annotations(run.folder, change)
            except ValueError as error:
                fail(f"{error} ({done} of {len(runs)} runs were done)" if len(runs) > 1 else str(error))
            if len(runs) <= 10:
                typer.echo(f"{run.name}: {', '.join(said.tags) or 'no tags'}")
        if len(runs) > 10:
            typer.echo(f"{len(runs):,} runs: {' '.join(word for word in words if word not in names)}")
        if not runs:
            typer.echo("no run is such a one: nothing is tagged")


def _check(words: Sequence[str], give: Sequence[str], take: Sequence[str]) -> None:
    from bbi_lightning.tracking.annotations import check_tag

    if not give and not take:
        fail("no tag is given: write +TAG to give one, -TAG to take one away")
    options = [word for word in words if word.startswith("--")]
    if options:
        fail(f"there is no option {options[0]}: bbi runs tag --help shows those there are")
    both = sorted(set(give) & set(take))
    if both:
        fail(f"+{both[0]} and -{both[0]} contradict each other: choose one")
    for word in (*give, *take):
        try:
            check_tag(word)
        except ValueError as error:
            fail(str(error))


def note(
    run: Word,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The note; empty removes it.", show_default=False)
    ] = None,
    roots: Roots = None,
) -> None:
    """Write a note on a run, or show it."""
    from bbi_lightning.tracking.annotations import Annotations, change_annotations, read_annotations

    with mistakes_in_a_sentence():
        found = registry(roots).find(run)
        try:
            if text is None:
                typer.echo(read_annotations(found.folder).note or f"{found.name} has no note")
                return
            change_annotations(found.folder, lambda said: Annotations(said.tags, text))
        except ValueError as error:
            fail(str(error))
    typer.echo(f"{found.name}: {text.strip() or 'no note'}")
