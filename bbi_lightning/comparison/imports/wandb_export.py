"""What Weights & Biases gives out.

A folder with a table of runs, `runs.csv` (or any one table beside the histories), as

- the site's runs table exports it: Name, ID, State, Created, Runtime … and a column for each config key and
  summary metric;
- or ``pandas.DataFrame`` makes it of `wandb.Api().runs()`: name, config and summary, the latter two as dicts;

and a history for each run, as CSV, JSON lines or Parquet: `run.history().to_csv(f"{run.id}.csv")`, or the
rows of `run.scan_history()`; named by the run's id or name, at any depth. Or, instead: a local `wandb/`
folder of online or offline runs, read with W&B's own reader. Histories may be sampled: `run.history()` gives
500 rows unless it is told otherwise, `scan_history()` all.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bbi_lightning.comparison.imports.foreign import (
    ForeignDataError,
    ForeignRun,
    Row,
    Watch,
    flat,
    nearest,
    number,
    numbers_of,
    read_table,
    tables_in,
    unwatched,
    value_of,
)

_STATES = {
    "finished": "finished",
    "running": "interrupted",
    "killed": "interrupted",
    "preempted": "interrupted",
}
_SITE = {
    *("Name", "ID", "id", "name", "State", "state", "Notes", "User", "Tags", "Created", "Runtime", "Sweep"),
    *(
        "Group",
        "Job Type",
        "Updated",
        "End Time",
        "Hostname",
        "Commit",
        "GitHub",
        "Description",
        "State Reason",
    ),
    *("created_at", "createdAt", "group", "tags", "url", "notes", "Start Time"),
}
_CONSTANTS = {"nan": math.nan, "NaN": math.nan, "inf": math.inf, "Infinity": math.inf, "null": None}
_CONSTANTS |= {"true": True, "false": False}
_TRAINED = "trainer/global_step"  # what Lightning's logger and ours count optimizer steps by
_LONGEST = 300.0  # seconds for one local run


def read_wandb_export(place: str | Path, watch: Watch = unwatched) -> tuple[ForeignRun, ...]:
    """The runs of an export or of a local `wandb/` folder.

    Raises:
        ForeignDataError: there are none, or something cannot be read or matched.
    """
    place = Path(place)
    if not place.exists():
        raise ForeignDataError(f"{place} does not exist: give a folder with W&B's tables, or a wandb/ folder")
    if place.suffix == ".wandb":
        return (_local(place),)
    folder = place if place.is_dir() else place.parent
    logs = sorted(folder.rglob("run-*.wandb")) if place.is_dir() else []
    if logs:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:  # each waits for a process
            return _without_copies(list(watch(readers.map(_local, logs), len(logs), "Reading")))
    files = tables_in(folder) + sorted(folder.glob("runs.json"))
    listed = place if place.is_file() else _runs_table(folder, files)
    runs = [_listed(row, listed) for row in read_table(listed)]
    if not runs:
        raise ForeignDataError(f"{listed} lists no runs: export the runs table again")
    histories = [file for file in files if file != listed]
    return _with_histories(runs, watch(histories, len(histories), "Reading"), listed)


def _runs_table(folder: Path, files: Sequence[Path]) -> Path:
    for name in ("runs.csv", "runs.jsonl", "runs.json", "runs.parquet", "project.csv"):
        if (folder / name).is_file():
            return folder / name
    exports = [
        file for file in files if file.parent == folder and re.match(r"(wandb|runs)_?export", file.name)
    ]
    if len(exports) == 1:
        return exports[0]
    raise ForeignDataError(
        f"{folder} holds neither runs.csv nor run-….wandb: put W&B's table of runs there as runs.csv"
    )


def _listed(row: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """One line of the table of runs, with config and columns that may be summary or config."""
    name = row.get("Name") or row.get("name") or row.get("ID") or row.get("id")
    if not name:
        raise ForeignDataError(f"{file} has a line without Name: export the runs table with names")
    known = {key: row.get(key) for key in _SITE if row.get(key) not in (None, "")}
    listed: dict[str, Any] = {
        "name": str(name),
        "id": str(row.get("ID") or row.get("id") or name),
        "state": str(row.get("State") or row.get("state") or "finished").lower(),
        "created": _utc(row.get("Created") or row.get("created_at") or row.get("createdAt")),
        "facts": {key.lower(): str(value) for key, value in known.items() if key not in ("Name", "name")},
        "config": {},
        "summary": {},
        "either": {},
    }
    for key, cell in row.items():
        if key in ("config", "summary") and cell not in (None, ""):
            said = flat(cell if isinstance(cell, dict) else _dict_of(str(cell), file, key))
            said = {k.removesuffix(".value") if key == "config" else k: v for k, v in said.items()}
            listed[key] |= numbers_of(said) if key == "summary" else said
        elif key.startswith(("config.", "summary.")):
            kind, _, rest = key.partition(".")
            listed[kind][rest] = value_of(cell)
        elif key and key not in _SITE and not key.startswith("_") and key not in ("config", "summary"):
            listed["either"][key.removesuffix(".value")] = value_of(cell)
    return listed


def _dict_of(text: str, file: Path, column: str) -> dict[str, Any]:
    """A dict as JSON or as Python prints it."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            tree = _WithConstants().visit(ast.parse(text.strip(), mode="eval"))
            found = _evaluated(tree.body)
        except (ValueError, SyntaxError, TypeError, RecursionError):
            found = None
    if not isinstance(found, dict):
        raise ForeignDataError(
            f"{file}: a cell of column {column} is no dict ({text[:40]}…): write "
            f"{'dict(run.config)' if column == 'config' else 'run.summary._json_dict'} into it"
        )
    return found


class _WithConstants(ast.NodeTransformer):
    """nan, inf, null, true and false for what they mean."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(_CONSTANTS[node.id]) if node.id in _CONSTANTS else node


def _evaluated(node: ast.AST) -> Any:
    return ast.literal_eval(node)  # literals only, nothing is run


def _with_histories(
    listed: Sequence[Mapping[str, Any]], files: Iterable[Path], table: Path
) -> tuple[ForeignRun, ...]:
    by_id = {run["id"]: run for run in listed}
    if len(by_id) < len(listed):
        raise ForeignDataError(
            f"{table} has two lines with the same ID (or Name, if it has no IDs): add the column ID"
        )
    by_name: dict[str, list[str]] = {}
    for run in listed:
        by_name.setdefault(_as_file(run["name"]), []).append(run["id"])
    histories: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for key, rows in _histories_in(file, by_id, by_name):
            histories.setdefault(key, []).extend(rows)
    logged = {name for rows in histories.values() for row in rows for name in row}
    return tuple(_foreign(run, histories.get(run["id"], []), logged) for run in listed)


def _histories_in(
    file: Path, by_id: Mapping[str, Any], by_name: Mapping[str, list[str]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The histories in a table: of one run, named by the file; or of all, named by a column or by headers."""
    rows = read_table(file)
    stem = re.sub(r"[_-]?history$", "", file.stem)
    for candidate in (stem, file.stem, file.parent.name):
        if candidate in by_id:
            return [(candidate, rows)]
        ids = by_name.get(_as_file(candidate), [])
        if len(ids) == 1:
            return [(ids[0], rows)]
        if ids:
            raise ForeignDataError(
                f"{file} may belong to {len(ids)} runs of that name: "
                f"name it by the run's ID, such as {ids[0]}{file.suffix}"
            )
    columns = list(rows[0]) if rows else []
    column = next(
        (name for name in ("run_id", "run", "id", "Run", "name", "run_name") if name in columns), None
    )
    if column is not None:
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(str(row.pop(column)), []).append(row)
        return [(_known(name, file, by_id, by_name), own) for name, own in groups.items()]
    charted = [re.fullmatch(r"(.+) - (.+?)(__MIN|__MAX|__STD)?", name) for name in columns]
    if any(charted):
        return _of_a_chart(file, rows, [match for match in charted if match], by_id, by_name)
    raise ForeignDataError(
        f"{file} belongs to no run of the table: {nearest(stem, [*by_id, *by_name])}; name it by the run's ID"
    )


def _of_a_chart(
    file: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[re.Match[str]],
    by_id: Mapping[str, Any],
    by_name: Mapping[str, list[str]],
) -> list[tuple[str, list[dict[str, Any]]]]:
    """A chart's export: a column "RUN - METRIC" for each run, beside "Step"."""
    found = []
    for match in columns:
        run, metric, spread = match.groups()
        if spread is not None or metric.startswith("_"):
            continue
        own = [{"_step": row.get("Step", row.get("_step")), metric: row[match.string]} for row in rows]
        found.append(
            (_known(run, file, by_id, by_name), [row for row in own if number(row[metric]) is not None])
        )
    return found


def _known(name: str, file: Path, by_id: Mapping[str, Any], by_name: Mapping[str, list[str]]) -> str:
    ids = [name] if name in by_id else by_name.get(_as_file(name), [])
    if len(ids) != 1:
        what = "is of several runs" if ids else "is no run of the table"
        raise ForeignDataError(f"{file}: {name} {what}: {nearest(name, [*by_id, *by_name])}")
    return ids[0]


def _foreign(run: Mapping[str, Any], history: Sequence[Mapping[str, Any]], logged: set[str]) -> ForeignRun:
    """A column is a metric if some run logs it or its name says so, else a setting."""
    config, summary = dict(run["config"]), {k: v for k, v in run["summary"].items() if number(v) is not None}
    for key, value in run["either"].items():
        is_metric = key in logged or re.match(r"(train|val|valid|test|eval|system|trainer)[/_]", key)
        if not is_metric:
            config[key] = value
        elif (found := number(value)) is not None:
            summary[key] = found
    rows = [numbers_of(row) for row in history]
    rows.sort(key=lambda row: row.get("_step", 0.0))
    return ForeignRun(
        key=run["id"],
        name=run["name"],
        config=flat(config),
        rows=tuple(rows),
        summary={key: value for key, value in summary.items() if not key.startswith("_")},
        state=_STATES.get(run["state"], "failed"),
        created=run["created"],
        facts=run["facts"],
    )


def _as_file(name: str) -> str:
    """A run's name as it may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", name)


def _utc(text: Any) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return None
    try:
        when = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    when = when.replace(tzinfo=when.tzinfo or timezone.utc)
    return when.astimezone(timezone.utc).isoformat(timespec="seconds")


def _without_copies(runs: Sequence[ForeignRun]) -> tuple[ForeignRun, ...]:
    """Attempts of one run, each with a log of its own, as one run: in the order in which they began."""
    joined: dict[str, ForeignRun] = {}
    for run in sorted(runs, key=lambda run: run.created or ""):
        before = joined.get(run.key)
        joined[run.key] = run if before is None else _together(before, run)
    return tuple(joined.values())


def _together(before: ForeignRun, after: ForeignRun) -> ForeignRun:
    return ForeignRun(
        key=before.key,
        name=before.name if after.name == after.key else after.name,
        config={**before.config, **after.config},
        rows=_continued(before.rows, after.rows),
        summary={**before.summary, **after.summary},
        state=after.state,
        created=before.created,
        facts={**before.facts, **after.facts},
    )


def _continued(before: tuple[Row, ...], after: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of two attempts; what the second one has trained again counts once, as it did it.

    W&B counts the rows of an offline attempt from 0, those of an online one from where it resumed.
    """
    trained = next((row[_TRAINED] for row in after if _TRAINED in row), math.inf)
    first = after[0].get("_step", 0.0) if after else 0.0
    counted = first if first > 0 else math.inf
    kept = [r for r in before if r.get(_TRAINED, -math.inf) < trained and r.get("_step", 0.0) < counted]
    shift = 0.0 if first > 0 or not kept else kept[-1].get("_step", 0.0) + 1
    return (*kept, *({**row, "_step": row.get("_step", 0.0) + shift} for row in after))


def _local(file: Path) -> ForeignRun:
    """A run's transaction log, through W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=True)
        records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        words = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise ForeignDataError(
            f"{file} cannot be read by wandb leet inspect ({words[-1] if words else error}): "
            "wandb 0.31 or newer is needed; else export the run with wandb.Api()"
        ) from None
    told: dict[str, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    rows: list[dict[str, float]] = []
    code: int | None = None
    for record in records:
        body = record.get(record.get("type", ""), {})
        if record.get("type") == "run":
            told |= body
            config |= body.get("config", {}).get("update", {})
        elif record.get("type") == "config":
            config |= body.get("update", {})
        elif record.get("type") == "summary":
            summary |= body.get("update", {})
        elif record.get("type") == "history":
            row = numbers_of(flat_row(body.get("item", {})))
            rows.append({**row, "_step": body.get("step", {}).get("num", row.get("_step", len(rows)))})
        elif record.get("type") == "exit":
            code = body.get("exit_code", 0)
    identity = str(told.get("run_id") or file.stem.removeprefix("run-"))
    facts = {"host": told.get("host"), "group": told.get("run_group"), "tags": told.get("tags")}
    return ForeignRun(
        key=identity,
        name=str(told.get("display_name") or identity),
        config=flat(config),
        rows=tuple(rows),
        summary={k: v for k, v in numbers_of(flat_row(summary)).items() if not k.startswith("_")},
        state="interrupted" if code is None else "failed" if code else "finished",
        created=_utc(re.sub(r"\.\d+", "", str(told.get("start_time", "")))),
        facts={key: value for key, value in facts.items() if value},
    )


def flat_row(item: Mapping[str, Any]) -> dict[str, Any]:
    """A row with nested values under dotted names, the tracker's own keys kept."""
    found: dict[str, Any] = {}
    for key, value in item.items():
        found |= flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found
