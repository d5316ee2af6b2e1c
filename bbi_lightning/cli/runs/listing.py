"""`bbi runs ls`: runs as a table, chosen by a query."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.runs.asking import (
    QUERY_HELP,
    Json,
    Roots,
    Where,
    fail,
    mistakes_in_a_sentence,
    registry,
)

if TYPE_CHECKING:
    from bbi_lightning.tracking.registry import IndexedRun, Registry

HELP = f"""
List runs: of all sweeps and single ones, newest first.

[bold]Examples[/bold]

  bbi runs ls
  bbi runs ls --where "optimizer=bbi and test/acc>0.9" --sort -test/acc
  bbi runs ls -w "state in (failed, lost)" --columns name,host,reason

  [dim]# beside the usual columns, these two[/dim]
  bbi runs ls -w sweep=digits_showdown --columns +batch_size,commit

  [dim]# for scripts: every field of every run[/dim]
  bbi runs ls -w "tags=paper" --json | jq -r '.[].path'
  bbi runs ls --csv > runs.csv

{QUERY_HELP}
"""

_SHOWN = 50


def ls(
    where: Where = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", "-s", metavar="FIELD,…", show_default=False, help="-FIELD is from high to low."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", "-c", metavar="FIELD,…", show_default=False, help="+FIELD,… adds to the usual ones."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=0, show_default=False, help="0: all. Default: 50; with --json and --csv all."
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For a spreadsheet.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="List the fields there are instead.")] = False,
    roots: Roots = None,
) -> None:
    """List runs."""
    with mistakes_in_a_sentence():
        if as_json and as_csv:
            fail("--json and --csv are two formats: choose one")
        known = registry(roots)
        found = list(known.where(where)) if where else list(known.runs)
        if sort:
            found = known.sort(found, _words(sort))
        wanted = _columns(known, columns, found)
        if limit is None:
            limit = 0 if as_json or as_csv else _SHOWN
        shown = found[:limit] if limit else found
        if fields:
            _print_fields(known, found)
        elif as_json:
            print(json.dumps(_rows(shown, wanted), indent=2, ensure_ascii=False))
        elif as_csv:
            _print_csv(known, shown, wanted)
        else:
            _print_table(known, found, shown, wanted)


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _columns(known: Registry, said: str | None, found: Sequence[IndexedRun]) -> list[str] | None:
    """The fields asked for; None for whatever is usual."""
    if said is None:
        return None
    from bbi_lightning.cli.runs.cells import chosen_columns

    adds = said.startswith("+")
    names = [known.names.resolve(word.lstrip("+")) if known.runs else word for word in _words(said)]
    return list(dict.fromkeys([*(chosen_columns(found) if adds else ()), *names]))


def _rows(runs: Sequence[IndexedRun], wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    """Fields as plain JSON; a run asked for a field that it does not have says null."""
    if wanted is None:
        return [{name: plain(value) for name, value in run.fields.items()} for run in runs]
    return [{name: plain(run.fields.get(name)) for name in wanted} for run in runs]


def plain(value: Any) -> Any:
    """A value as strict JSON has it: NaN and infinities as the words of the metric log."""
    return (
        str(value) if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
    )


def _print_csv(known: Registry, runs: Sequence[IndexedRun], wanted: Sequence[str] | None) -> None:
    names = list(wanted) if wanted is not None else ordered_fields(runs)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for run in runs:
        writer.writerow([flat(run.fields.get(name)) for name in names])


def flat(value: Any) -> Any:
    """A value in one cell: lists with commas, truth values as true and false."""
    from bbi_lightning.tracking.query import as_text

    return as_text(value) if isinstance(value, (bool, list)) else value


def ordered_fields(runs: Sequence[IndexedRun]) -> list[str]:
    """Every field that one of the runs has: facts first, then the config, then results."""
    from bbi_lightning.tracking.field_names import FACTS

    there = set().union(*(run.fields for run in runs)) if runs else {"name", "state"}
    facts = [name for name in FACTS if name in there]
    rest = sorted(there - set(facts), key=lambda name: ("/" in name or "." not in name, name))
    return [*facts, *rest]


def _print_fields(known: Registry, runs: Sequence[IndexedRun]) -> None:
    from rich.console import Console

    from bbi_lightning.cli.runs.cells import cell

    table = _table(["field", "short", "runs", "values", "for example"], numeric={"runs", "values"})
    for name in ordered_fields(runs):
        values = [run.fields[name] for run in runs if name in run.fields]
        different = len({str(value) for value in values})
        short = known.names.short(name)
        table.add_row(
            name,
            short if short != name else "",
            f"{len(values):,}",
            f"{different:,}",
            cell(name, values[0])[:40],
        )
    _console(Console).print(table, highlight=False, markup=False)


def _print_table(
    known: Registry, found: Sequence[IndexedRun], shown: Sequence[IndexedRun], wanted: list[str] | None
) -> None:
    from rich.console import Console
    from rich.text import Text

    from bbi_lightning.cli.runs.cells import STYLES, cell, chosen_columns

    console = _console(Console)
    names = wanted if wanted is not None else chosen_columns(shown)
    headings = [known.names.short(name) for name in names]
    cells = [[cell(name, run.fields.get(name)) for name in names] for run in shown]
    kept = list(range(len(names))) if wanted is not None else _fitting(headings, cells, console.width)
    if shown:
        numeric = {
            headings[i]
            for i in kept
            if any(isinstance(run.fields.get(names[i]), (int, float)) for run in found)
        }
        table = _table([headings[i] for i in kept], numeric)
        for run, row in zip(shown, cells, strict=True):
            style = STYLES.get(run.state, "")
            table.add_row(*(Text(row[i], style if names[i] == "state" else "") for i in kept))
        console.print(table, highlight=False)
    _print_sum(console, known, found, shown)


def _print_sum(
    console: Any, known: Registry, found: Sequence[IndexedRun], shown: Sequence[IndexedRun]
) -> None:
    """How many there are, and what became of them."""
    where = ", ".join(f"{str(root).rstrip('/')}/" for root in known.roots)
    states = Counter(run.state for run in found).most_common()
    said = " · ".join(f"{count:,} {state}" for state, count in states)
    total = "" if len(found) == len(known.runs) else f" of {len(known.runs):,}"
    if not found:
        text = (
            f"none of the {len(known.runs):,} runs in {where} is such a one"
            if known.runs
            else f"no runs in {where}"
        )
    else:
        text = f"{len(found):,}{total} runs in {where}: {said}"
    console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
    if len(shown) < len(found):
        console.print(
            f"the first {len(shown):,} are shown: --limit 0 shows all", style="dim", highlight=False
        )
    wrong = [run for run in found if "problem" in run.fields]
    if wrong:
        console.print(
            str(wrong[0].fields["problem"]), style="yellow", highlight=False, markup=False, soft_wrap=True
        )
        if len(wrong) > 1:
            console.print(f"and {len(wrong) - 1} more: --where 'problem is not null'", style="yellow")


def _fitting(headings: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns that fit, in order of importance; name and state are always among them."""
    from rich.cells import cell_len

    kept: list[int] = []
    used = 0
    for place, heading in enumerate(headings):
        wide = max([cell_len(heading), *(cell_len(row[place]) for row in cells)]) + 2
        if place < 2 or used + wide - 2 <= width:
            kept.append(place)
            used += wide
    return kept


def _table(headings: Sequence[str], numeric: set[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numeric else "left", no_wrap=True)
    return table


def _console(kind: Any) -> Any:
    """The terminal; what is read by no terminal gets whole lines, however long."""
    console = kind()
    return console if console.is_terminal else kind(width=10_000)
