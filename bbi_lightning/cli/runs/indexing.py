"""`bbi runs index`: the index of runs, brought up to date or made again."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from bbi_lightning.cli.runs.asking import Roots, mistakes_in_a_sentence, registry

HELP = """
Bring the index of runs up to date, or make it again.

[bold]Examples[/bold]

  bbi runs index
  bbi runs index --rebuild

Every verb keeps the index up to date by itself, so this is only for doubts.
It is a copy of what the folders say, in .bbi_runs.sqlite where the runs are
(in the user's cache where that cannot be written), and may be deleted.
"""


def index(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Forget it, and read every run.")] = False,
    roots: Roots = None,
) -> None:
    """Bring the index of runs up to date."""
    with mistakes_in_a_sentence():
        began = time.monotonic()
        known = registry(roots, rebuild=rebuild)
        took = time.monotonic() - began
    for root, place in zip(known.roots, known.indexes, strict=True):
        typer.echo(f"{root}: {place or 'no place takes an index, it is made anew each time'}")
    typer.echo(f"{len(known.runs):,} runs, {known.reread:,} of them read, in {took:.2f} s")
