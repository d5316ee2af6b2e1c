"""`bbi runs export`: runs or their curves as a table for other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.runs.asking import Roots, Where, fail, mistakes_in_a_sentence, registry

if TYPE_CHECKING:
    from bbi_lightning.tracking.registry import IndexedRun

HELP = """
Write runs as a table: one row a run with its facts, config and results, or one row a logged value.

[bold]Examples[/bold]

  bbi runs export runs.csv
  bbi runs export paper.parquet --where tags=paper       [dim]# needs pyarrow[/dim]

  [dim]# the curves: run, step, epoch, time, metric, value[/dim]
  bbi runs export curves.parquet --where sweep=digits_showdown --curves
  bbi runs export loss.jsonl --curves --metric train/loss --metric val/loss

[bold]Reading it[/bold]

  runs = pandas.read_parquet("paper.parquet")
  curves = pandas.read_parquet("curves.parquet")
  curves[curves.metric == "val/loss"].pivot(columns="run", index="step", values="value")

  The ending chooses the format: .csv, .parquet, or .jsonl (JSON lines, with
  "nan", "inf" and "-inf" as text).
"""

_SUFFIXES = (".csv", ".parquet", ".jsonl")
_CURVE_COLUMNS = ("run", "step", "epoch", "time", "metric", "value")
_BATCH = 50_000  # rows that are held at a time


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write.", show_default=False)],
    where: Where = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Every logged value instead of a row a run.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="With --curves, only this; may be repeated.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it exists.")] = False,
    roots: Roots = None,
) -> None:
    """Write runs, or their curves, as a table."""
    with mistakes_in_a_sentence():
        _check(file, curves, metric, force)
        known = registry(roots)
        runs = list(known.where(where)) if where else list(known.runs)
        if not runs:
            fail("no run is such a one: there is nothing to write")
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            if curves:
                count = _write_curves(temporary, file.suffix.lower(), runs, metric)
            else:
                count = _write_runs(temporary, file.suffix.lower(), runs)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    typer.echo(f"{count:,} rows of {len(runs):,} runs: {file}")


def _check(file: Path, curves: bool, metric: Sequence[str] | None, force: bool) -> None:
    if file.suffix.lower() not in _SUFFIXES:
        fail(f"{file} ends in none of {', '.join(_SUFFIXES)}: the ending chooses the format")
    if metric and not curves:
        fail(f"--metric={metric[0]} chooses among curves: add --curves")
    if file.is_dir() or (file.exists() and not force):
        fail(f"{file} exists: choose another name, or replace it with --force")
    if file.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            fail(f"{file} needs pyarrow: pip install 'bbi-lightning[parquet]', or write .csv")


def _write_runs(file: Path, suffix: str, runs: Sequence[IndexedRun]) -> int:
    from bbi_lightning.cli.runs.listing import flat, ordered_fields, plain

    names = ordered_fields(runs)
    if suffix == ".csv":
        rows = ([flat(run.fields.get(name)) for name in names] for run in runs)
        return _write_csv(file, names, rows)
    if suffix == ".jsonl":
        with file.open("w", encoding="utf-8") as stream:
            for run in runs:
                facts = {name: plain(run.fields[name]) for name in names if name in run.fields}
                stream.write(json.dumps(facts, ensure_ascii=False) + "\n")
        return len(runs)
    import pyarrow
    import pyarrow.parquet

    columns = {name: _column([run.fields.get(name) for run in runs]) for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return len(runs)


def _column(values: list[Any]) -> list[Any]:
    """Values of one type, as a Parquet column has: numbers, truth values or lists of one kind; else text."""
    from bbi_lightning.cli.runs.listing import flat

    kinds = {bool if isinstance(v, bool) else type(v) for v in values if v is not None}
    if kinds <= {int, float} and kinds:
        return [None if v is None else float(v) for v in values] if float in kinds else values
    if kinds in ({bool}, {str}):
        return values
    return [None if v is None else str(flat(v)) for v in values]


def _write_curves(file: Path, suffix: str, runs: Sequence[IndexedRun], metric: Sequence[str] | None) -> int:
    rows = _curve_rows(runs, None if not metric else frozenset(metric))
    if suffix == ".csv":
        return _write_csv(file, _CURVE_COLUMNS, rows)
    if suffix == ".jsonl":
        from bbi_lightning.cli.runs.listing import plain

        count = 0
        with file.open("w", encoding="utf-8") as stream:
            for row in rows:
                named = zip(_CURVE_COLUMNS, map(plain, row), strict=True)
                stream.write(json.dumps(dict(named), ensure_ascii=False) + "\n")
                count += 1
        return count
    return _write_parquet_curves(file, rows)


def _write_parquet_curves(file: Path, rows: Iterator[tuple[Any, ...]]) -> int:
    from itertools import islice

    import pyarrow
    import pyarrow.parquet

    kinds = (
        pyarrow.string(),
        pyarrow.int64(),
        pyarrow.int64(),
        pyarrow.float64(),
        pyarrow.string(),
        pyarrow.float64(),
    )
    schema = pyarrow.schema(list(zip(_CURVE_COLUMNS, kinds, strict=True)))
    count = 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            columns = [list(column) for column in zip(*batch, strict=True)]
            arrays = [pyarrow.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            count += len(batch)
    return count


def _write_csv(file: Path, names: Sequence[str], rows: Any) -> int:
    count = 0
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def _curve_rows(runs: Sequence[IndexedRun], wanted: frozenset[str] | None) -> Iterator[tuple[Any, ...]]:
    """(run, step, epoch, time, metric, value); a log that is damaged is named on stderr and left out."""
    from bbi_lightning.tracking.metric_log import read_metrics

    for run in runs:
        try:
            logged = read_metrics(run.folder / "metrics.jsonl")
        except (ValueError, OSError) as error:
            typer.echo(f"left out: {error}", err=True)
            continue
        for row in logged:
            place = (run.name, row["step"], row.get("epoch"), row.get("time"))
            for name, value in row.items():
                if name in ("step", "epoch", "time") or not isinstance(value, (int, float)):
                    continue
                if wanted is None or name in wanted:
                    yield (*place, name, float(value))
