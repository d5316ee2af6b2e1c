"""A folder of tables: one a run, and `runs.csv` with what each was.

    runs.csv            run,optimizer,lr,seed
                        a,sgd,0.1,0
    a.csv               step,train/loss,val/acc

The tables may be CSV, JSON lines or Parquet. Without `runs.csv`, a run's settings are read from its file's
name where that says ``lr=0.1_optimizer=sgd_seed=0.csv``, or from `hparams.yaml` beside a `metrics.csv`, as
Lightning's CSVLogger leaves them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bbi_lightning.comparison.imports.foreign import (
    ForeignDataError,
    ForeignRun,
    Watch,
    flat,
    nearest,
    numbers_of,
    read_table,
    tables_in,
    unwatched,
    value_of,
)

_SETTING = re.compile(r"([A-Za-z][\w.]*?)=([^=]*?)(?=[_,;+ -][A-Za-z][\w.]*=|$)")
_NAMES = ("run", "name", "id", "file")


def read_csv_folder(folder: str | Path, watch: Watch = unwatched) -> tuple[ForeignRun, ...]:
    """The runs of such a folder.

    Raises:
        ForeignDataError: there are none, or something cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ForeignDataError(f"{folder} is no folder: give one that holds a table for each run")
    listed = next(
        (f for f in (folder / "runs.csv", folder / "runs.jsonl", folder / "runs.parquet") if f.is_file()),
        None,
    )
    configs = {} if listed is None else _settings(listed)
    files = [file for file in tables_in(folder) if file != listed]
    if not files:
        raise ForeignDataError(f"{folder} holds no tables: a CSV file for each run is expected")
    known = configs if listed else None
    runs = [_run(file, folder, known) for file in watch(files, len(files), "Reading")]
    unused = set(configs) - {run.name for run in runs}
    if unused:
        raise ForeignDataError(
            f"{listed} tells of run {sorted(unused)[0]}, which has no table in {folder}: "
            f"add {sorted(unused)[0]}.csv or drop its line"
        )
    return tuple(runs)


def _settings(file: Path) -> dict[str, dict[str, Any]]:
    rows = read_table(file)
    columns = list(rows[0]) if rows else []
    column = next((name for name in _NAMES if name in columns), None)
    if column is None:
        raise ForeignDataError(f"{file} has no column `run`: add it, with the name of each run's table")
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = re.sub(r"\.(csv|jsonl|ndjson|parquet)$", "", str(row[column]))
        if name in found:
            raise ForeignDataError(f"{file} has two lines for run {name}: drop one of them")
        found[name] = {key: value_of(cell) for key, cell in row.items() if key != column}
    return found


def _run(file: Path, folder: Path, configs: dict[str, dict[str, Any]] | None) -> ForeignRun:
    relative = file.relative_to(folder).with_suffix("")
    name = relative.as_posix()
    if file.stem == "metrics" and relative.parent != Path():
        name = relative.parent.as_posix()  # Lightning's: version_0/metrics.csv
    config: dict[str, Any] = {}
    if configs is not None:
        if name not in configs:
            name = relative.name if relative.name in configs else name
        if name not in configs:
            raise ForeignDataError(
                f"{file} has no line in runs.csv: {nearest(name, configs)}; add it or move the file away"
            )
        config = configs[name]
    elif (file.parent / "hparams.yaml").is_file():
        config = read_hparams(file.parent / "hparams.yaml")
    else:
        config = {key: value_of(text) for key, text in _SETTING.findall(relative.name)}
    rows = tuple(numbers_of(row) for row in read_table(file))
    return ForeignRun(key=name, name=name, config=config, rows=rows)


def read_hparams(file: Path) -> dict[str, Any]:
    """Lightning's `hparams.yaml`, flat; objects that YAML cannot hold are passed over."""
    import yaml

    class Plain(yaml.SafeLoader):
        """Reads tagged objects as nothing."""

    Plain.add_multi_constructor("", lambda loader, suffix, node: None)
    try:
        data = yaml.load(file.read_text("utf-8"), Plain)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ForeignDataError(f"{file} cannot be read ({str(error).splitlines()[0]}): repair it") from None
    return {key: value_of(value) for key, value in flat(data or {}).items()}
