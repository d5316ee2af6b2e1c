"""`bbi runs show`: everything about one run on one screen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbi_lightning.cli.runs.asking import Json, Roots, Word, fail, mistakes_in_a_sentence, registry

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from bbi_lightning.tracking.registry import IndexedRun
    from bbi_lightning.tracking.run_record import Attempt, RunRecord

HELP = """
Show everything about a run: result, curves, config, attempts, checkpoints, files.

[bold]Examples[/bold]

  bbi runs show digits-cnn-bbi-38aa4ac6cd-s0
  bbi runs show 38aa4ac6cd-s0            [dim]# a part of the name is enough[/dim]
  bbi runs show sweeps/digits_showdown/runs/digits-cnn-bbi-38aa4ac6cd-s0
  bbi runs show RUN --json | jq .fields

A checkpoint's soundness is not looked at here: see bbi checkpoints.
"""

_CURVE_WIDTH = 40
_NOT_SHOWN = ("runtime", "tracking", "checkpoint")  # sections that do not shape the result
_LAST_LINES = 6  # of a traceback


def show(run: Word, as_json: Json = False, roots: Roots = None) -> None:
    """Show everything about a run."""
    with mistakes_in_a_sentence():
        found = registry(roots).find(run)
        if found.state == "unreadable":
            fail(str(found.fields["problem"]))
        if as_json:
            print(json.dumps(_facts(found), indent=2, ensure_ascii=False))
        else:
            _print(found)


def _facts(run: IndexedRun) -> dict[str, Any]:
    from bbi_lightning.cli.runs.listing import plain
    from bbi_lightning.tracking.run_folder import RunFolder

    return {
        "folder": str(run.folder),
        "fields": {name: plain(value) for name, value in run.fields.items()},
        "record": RunFolder(run.folder).record.to_json(),
        "checkpoints": [
            {"path": str(path), "step": step, "bytes": size} for path, step, size in _checkpoints(run.folder)
        ],
        "bytes": sum(_sizes(run.folder).values()),
    }


def _print(run: IndexedRun) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.text import Text

    from bbi_lightning.tracking.run_folder import RunFolder

    record = RunFolder(run.folder).record
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(_heading(run), highlight=False)
    logged: dict[str, list[tuple[int, float]]] = {}
    damage = None
    try:
        logged = _logged(run)
    except (ValueError, OSError) as error:
        damage = Text(str(error), "yellow")
    sections: list[tuple[str, RenderableType | None]] = [
        ("result", _result(record, logged)),
        ("curves", damage or _curves(logged, console.width)),
        ("config", _config(run)),
        ("attempts", _attempts(record)),
        ("files", _files(run.folder)),
    ]
    for title, body in sections:
        if body is not None:
            console.print(Group(f"\n[bold]{title}[/bold]", Padding(body, (0, 0, 0, 2))), highlight=False)


def _heading(run: IndexedRun) -> RenderableType:
    from rich.text import Text

    from bbi_lightning.cli.runs.cells import STYLES, cell

    fields = run.fields
    text = Text.assemble((run.name, "bold"), "  ", (run.state, STYLES.get(run.state, "")))
    if fields.get("reason", run.state) != run.state:
        text.append(f" ({fields['reason']})", "dim")
    place = [
        f"{label} {fields[label]}"
        for label in ("sweep", "arm", "phase", "study", "trial", "replicate", "imported")
        if label in fields and not (label == "study" and fields[label] == 0)
    ]
    if place:
        text.append("\n" + " · ".join(place))
    when = [f"begun {cell('started', fields.get('started') or fields.get('created'))} UTC"]
    when += [f"{cell('age', fields['age'])} ago"] if "age" in fields else []
    when += [f"took {cell('duration', fields['duration'])}"] if "duration" in fields else []
    text.append("\n" + ", ".join(when), "dim")
    text.append(f"\n{run.folder}", "dim")
    if "tags" in fields:
        text.append("\n" + " ".join(f"+{tag}" for tag in fields["tags"]), "cyan")
    if "note" in fields:
        text.append(f"\n“{fields['note']}”", "italic")
    if "problem" in fields:
        text.append(f"\n{fields['problem']}", "yellow")
    return text


def _logged(run: IndexedRun) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every metric that was logged more than once.

    Raises:
        ValueError, OSError: the log cannot be read.
    """
    from bbi_lightning.tracking.metric_log import read_metrics

    logged: dict[str, list[tuple[int, float]]] = {}
    for row in read_metrics(run.folder / "metrics.jsonl"):
        for name, value in row.items():
            if name not in ("step", "epoch", "time") and isinstance(value, (int, float)):
                logged.setdefault(name, []).append((row["step"], float(value)))
    return {name: points for name, points in logged.items() if len(points) > 1}


def _result(record: RunRecord, logged: Iterable[str]) -> RenderableType | None:
    """The final values, test first, without those that end a curve below."""
    from bbi_lightning.cli.runs.cells import cell

    order = {"test": 0, "val": 1, "train": 2}
    names = sorted(
        record.summary.keys() - set(logged),
        key=lambda name: (order.get(name.partition("/")[0], 3), "/" not in name, name),
    )
    return _table([(name, cell(name, record.summary[name])) for name in names]) if names else None


def _curves(logged: Mapping[str, Sequence[tuple[int, float]]], width: int) -> RenderableType | None:
    """Every curve: its course, its ends, its best."""
    from bbi_lightning.cli.live.words import metric_value

    table = _table([], ["", "course", "first", "last", "best", "at step"])
    for name in by_interest(logged):
        steps, values = zip(*logged[name], strict=True)
        best = _best(name, values)
        table.add_row(
            name,
            course(values, max(10, min(_CURVE_WIDTH, width - 72)), "cyan"),
            metric_value(name, values[0]),
            metric_value(name, values[-1]),
            "" if best is None else metric_value(name, values[best]),
            "" if best is None else f"{steps[best]:,}",
        )
    return table if logged else None


def course(values: Sequence[float], width: int, style: str) -> RenderableType:
    """A curve in so many characters; in words where there is nothing to draw."""
    from rich.text import Text

    from bbi_lightning.cli.live.words import sparkline

    finite = {value for value in values if math.isfinite(value)}
    if not finite:
        return Text("never finite" if values else "", "dim")
    if len(finite) == 1 and len(values) > 1:
        return Text("constant", "dim")
    return Text(sparkline(values, width), style)


def by_interest(names: Iterable[str]) -> list[str]:
    """Losses and results first, what the machine did last."""
    order = {"train": 0, "val": 1, "test": 2, "energy": 3, "optim": 4}
    return sorted(names, key=lambda name: (order.get(name.partition("/")[0], 5), name))


def _best(name: str, values: Sequence[float]) -> int | None:
    """Where an accuracy is highest or a loss lowest, first reached; None for what has no best."""
    last = name.rpartition("/")[2]
    sign = 1 if last in ("acc", "accuracy") else -1 if last == "loss" else 0
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    if not sign or not finite:
        return None
    return max(finite, key=lambda place: sign * values[place])


def _config(run: IndexedRun) -> RenderableType | None:
    """One line a section: what it is, and its arguments."""
    from rich.text import Text

    from bbi_lightning.cli.runs.cells import cell
    from bbi_lightning.tracking.run_fields import config_fields
    from bbi_lightning.tracking.run_folder import RunFolder

    try:
        config = config_fields(RunFolder(run.folder))
    except (ValueError, OSError) as error:
        return Text(str(error), "yellow")
    sections: dict[str, list[str]] = {}
    for key, value in config.items():
        section, _, rest = key.partition(".")
        if section in _NOT_SHOWN or rest.endswith("_target_") or value is None:
            continue
        lines = sections.setdefault(section, [])
        # a section of options has a name that says no more than its key
        if rest or not str(value).endswith("options"):
            lines.append(f"{rest} {cell(key, value)}".strip())
    return _table([(section, " · ".join(words)) for section, words in sections.items()]) if sections else None


def _attempts(record: RunRecord) -> RenderableType | None:
    from rich.console import Group
    from rich.text import Text

    from bbi_lightning.cli.runs.cells import cell
    from bbi_lightning.tracking.run_fields import seconds_between

    if not record.attempts:
        return None
    table = _table([], ["", "begun (UTC)", "took", "from step", "ended by", "host", "on", "code"])
    for attempt in record.attempts:
        took = seconds_between(attempt.started, attempt.ended) if attempt.ended else None
        table.add_row(
            str(attempt.number),
            cell("started", attempt.started),
            cell("duration", took),
            f"{attempt.from_step:,}",
            attempt.reason or "–",
            attempt.host,
            _machine(attempt),
            f"{cell('commit', attempt.commit)}{' + changes' if attempt.dirty else ''}",
        )
    last = record.attempts[-1]
    versions = " · ".join(f"{name} {version}" for name, version in last.versions.items())
    parts: list[RenderableType] = [table, Text(versions, "dim")]
    if last.exception:
        parts.append(Text("\n".join(last.exception.splitlines()[-_LAST_LINES:]), "red"))
    return Group(*parts)


def _machine(attempt: Attempt) -> str:
    gpus = list(attempt.hardware.get("gpus") or ())
    if gpus:
        return f"{len(gpus)} × {gpus[0]}" if len(gpus) > 1 else str(gpus[0])
    return str(attempt.hardware.get("cpu") or "–")


def _files(folder: Path) -> RenderableType:
    """What lies in the folder, the largest first, and the checkpoints by step."""
    sizes = _sizes(folder)
    kept = _checkpoints(folder)
    rows = [(name, readable_size(size)) for name, size in sorted(sizes.items(), key=lambda item: -item[1])]
    steps = ", ".join(f"{step:,}" for _, step, _ in kept)
    rows = [
        (f"{name}/ ({len(kept)}, after step {steps})" if name == "checkpoints" and kept else name, size)
        for name, size in rows
    ]
    rows.append(("in all", readable_size(sum(sizes.values()))))
    return _table(rows)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each thing in a folder; what vanishes meanwhile counts nothing."""
    sizes = {}
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        files = [entry] if entry.is_file() else entry.rglob("*")
        sizes[entry.name] = sum(_size(file) for file in files)
    return sizes


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size if file.is_file() else 0
    except OSError:
        return 0


def _checkpoints(folder: Path) -> list[tuple[Path, int, int]]:
    """(folder, step, bytes) of the checkpoints, by what their folders are called; oldest first."""
    found = []
    for path in sorted((folder / "checkpoints").glob("checkpoint-*-step-*")):
        step = path.name.rpartition("-")[2]
        if step.isdecimal():
            found.append((path, int(step), sum(_size(file) for file in path.rglob("*"))))
    return found


def readable_size(count: int) -> str:
    """Bytes for people: "98.2 MB"."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _table(rows: Sequence[tuple[str, ...]], headings: Sequence[str] = ()) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, pad_edge=False, show_header=bool(headings), header_style="dim", padding=(0, 2, 0, 0)
    )
    for heading in headings or [""] * (len(rows[0]) if rows else 0):
        right = heading in ("first", "last", "best", "at step", "took", "from step")
        table.add_column(heading, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(
            *(Text(cell, "dim" if not headings and place == 0 else "") for place, cell in enumerate(row))
        )
    return table
