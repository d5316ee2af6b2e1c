"""`bbi checkpoints`: what a run has saved, and whether it can be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.runs import Root, Run, find_run, store_of
from bbi_lightning.cli.train import user_errors

if TYPE_CHECKING:
    from bbi_lightning.checkpoints.manifest import Manifest
    from bbi_lightning.checkpoints.store import CheckpointStore
    from bbi_lightning.tracking.run_folder import RunFolder

HELP = """
List a run's checkpoints, and verify them.

[bold]Examples[/bold]

  [dim]# by name (in runs/) or by folder; also while the run is training[/dim]
  bbi checkpoints digits-cnn-bbi-38aa4ac6cd-s0
  bbi checkpoints /scratch/moved/digits-cnn-bbi-38aa4ac6cd-s0

  [dim]# for scripts[/dim]
  bbi checkpoints RUN --json | jq '.checkpoints[] | select(.valid) | .path'

[bold]What it shows[/bold]

  kept as     newest: the run goes on from it. best: of the validations so
              far. milestone: kept for good. spare: should the newest one be
              damaged.
  state       valid: every byte of every file is what was written, by its
              SHA-256. Otherwise what is wrong; such a one is passed over.

  Exit codes: 0 the newest is valid (or there is none), 1 it is not, 2 a
  mistake in the command.
"""


def checkpoints(
    run: Run,
    root: Root = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """List a run's checkpoints."""
    with user_errors():
        folder = find_run(run, root)
        rows = _rows(store_of(folder))
    if as_json:
        typer.echo(json.dumps({"run": folder.record.name, "checkpoints": rows}, indent=2))
    elif rows:
        _print_table(folder, rows)
    else:
        typer.echo(f"run {folder.name} has no checkpoints yet")
    if rows and not rows[-1]["valid"]:
        raise typer.Exit(1)


def _rows(store: CheckpointStore) -> list[dict[str, Any]]:
    """Plain facts of every checkpoint, oldest first."""
    from bbi_lightning.checkpoints.retention import best_of

    findings = list(store.examine())[::-1]
    sound = [f.checkpoint.manifest for f in findings if f.checkpoint is not None and f.wrong is None]
    best = best_of(sound)
    rows = []
    for finding in findings:
        manifest = None if finding.checkpoint is None else finding.checkpoint.manifest
        facts = {} if manifest is None else _facts(manifest)
        kept_as = []
        if manifest is not None and finding.wrong is None:
            kept_as = ["newest"] if manifest is sound[-1] else []
            kept_as += ["best"] if manifest is best else []
            kept_as += ["milestone"] if "milestone" in manifest.reasons else []
        rows.append(
            {
                **facts,
                "kept_as": kept_as or (["spare"] if finding.wrong is None else []),
                "valid": finding.wrong is None,
                "wrong": finding.wrong,
                "path": str(finding.path),
            }
        )
    return rows


def _facts(manifest: Manifest) -> dict[str, Any]:
    from bbi_lightning.tracking.metric_log import encode_number

    return {
        "number": manifest.number,
        "step": manifest.step,
        "epoch": manifest.epoch,
        "bytes": manifest.size,
        "values": {name: encode_number(value) for name, value in manifest.values.items()},
        "reasons": list(manifest.reasons),
        "world_size": manifest.world_size,
        "layout": manifest.layout,
        "saved": manifest.saved,
    }


def _print_table(folder: RunFolder, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = sorted({name for row in rows for name in row.get("values", {})})
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("number", "step", "epoch", "size", *names, "age"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("kept as")
    table.add_column("state")
    for row in rows:
        state = Text("valid", "green") if row["valid"] else Text(row["wrong"], "red")
        table.add_row(*_numbers(row, names), ", ".join(row["kept_as"]), state)
    console = Console()
    console.print(table, highlight=False)
    newest = next((row for row in reversed(rows) if row["valid"]), None)
    if newest is None:
        console.print("None of them can be used: the run would begin anew.", style="red")
    elif newest is not rows[-1]:
        console.print(f"The run would go on from number {newest['number']}.", style="yellow")
    console.print(f"folder: {folder.checkpoints}", highlight=False, soft_wrap=True, markup=False)


def _numbers(row: Mapping[str, Any], names: list[str]) -> list[str]:
    """A row's cells before the words; dashes where the manifest could not be read."""
    if "number" not in row:
        return [str(int(Path(row["path"]).name.split("-")[1])), *["–"] * (4 + len(names))]
    values = [row["values"].get(name) for name in names]
    return [
        str(row["number"]),
        f"{row['step']:,}",
        str(row["epoch"]),
        _size(row["bytes"]),
        *("–" if value is None else f"{float(value):.4g}" for value in values),
        _age(row["saved"]),
    ]


def _size(count: int) -> str:
    """Bytes for people: "98.2 MB"."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _age(saved: str) -> str:
    """How long ago: "3 min"; a dash where a clock is wrong."""
    from datetime import datetime, timezone

    try:
        seconds = (datetime.now(timezone.utc) - datetime.fromisoformat(saved)).total_seconds()
    except (ValueError, TypeError):
        return "–"
    if seconds < 0:
        return "–"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
