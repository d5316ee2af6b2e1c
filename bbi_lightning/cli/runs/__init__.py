"""`bbi runs …`: every run there is, found, looked at, compared two by two, tagged and put away."""

from __future__ import annotations

import typer

from bbi_lightning.cli.runs import annotate, diff, exporting, indexing, listing, putting_away, show
from bbi_lightning.cli.runs.asking import CONTEXT
from bbi_lightning.cli.runs.finding import Root, Run, find_run, store_of

__all__ = ["Root", "Run", "app", "find_run", "store_of"]

app = typer.Typer(
    help="Find runs, look at them, compare two, tag them, put them away.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings=CONTEXT,
)
for verb, text in (
    (listing.ls, listing.HELP),
    (show.show, show.HELP),
    (diff.diff, diff.HELP),
    (annotate.note, annotate.NOTE_HELP),
    (putting_away.rm, putting_away.RM_HELP),
    (putting_away.restore, putting_away.RESTORE_HELP),
    (exporting.export, exporting.HELP),
    (indexing.index, indexing.HELP),
):
    app.command(help=text, short_help=verb.__doc__, context_settings=CONTEXT)(verb)
app.command(help=annotate.TAG_HELP, short_help=annotate.tag.__doc__, context_settings=annotate.TAG_CONTEXT)(
    annotate.tag
)
