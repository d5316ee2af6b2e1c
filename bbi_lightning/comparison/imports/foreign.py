"""A run as its source tells it."""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

Row = Mapping[str, float]
Item = TypeVar("Item")

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "infinity": math.inf, "-infinity": -math.inf}


class Watch(Protocol):
    """Shows how far a slow loop has come: hands out the items, of which there are so many."""

    def __call__(self, items: Iterable[Item], total: int, what: str) -> Iterable[Item]:
        """The items, one by one."""
        ...


def unwatched(items: Iterable[Item], total: int, what: str) -> Iterable[Item]:
    """Show nothing."""
    return items


class ForeignDataError(ValueError):
    """What is to be imported cannot be read or understood: one sentence with the remedy."""


@dataclass(frozen=True)
class ForeignRun:
    """One run of another tracker.

    Attributes:
        key: tells it from all others of its source, and stays when the source grows.
        name: how people call it.
        config: dotted keys to values.
        rows: what was logged, in order; numbers only, what a row does not say is absent.
        summary: numbers that are known of the end, by name.
        state: one of run.json's states.
        created: UTC, ISO 8601; None when it cannot be told.
        facts: whatever else is known, plain JSON: host, tags, group …
    """

    key: str
    name: str
    config: Mapping[str, Any]
    rows: tuple[Row, ...] = field(repr=False)
    summary: Mapping[str, float] = field(default_factory=dict)
    state: str = "finished"
    created: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def number(value: Any) -> float | int | None:
    """A cell or JSON value as a number; None where it is absent or none.

    "nan" and "inf" in words are numbers; an empty cell says nothing.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def value_of(cell: Any) -> Any:
    """A cell as a config value: a number, true, false, null or the text itself."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    constants = {"true": True, "false": False, "none": None, "null": None, "": None}
    if text.lower() in constants:
        return constants[text.lower()]
    found = number(text)
    return text if found is None else found


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; keys that begin with "_" or "wandb" are the tracker's own."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if not prefix and str(key).startswith(("_", "wandb")):
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row."""
    return {str(name): found for name, value in row.items() if (found := number(value)) is not None}


def read_table(file: Path) -> list[dict[str, Any]]:
    """The rows of a CSV, JSON-lines, JSON or Parquet file.

    Raises:
        ForeignDataError: it cannot be read.
    """
    try:
        if file.suffix in (".jsonl", ".ndjson"):
            return [
                _mapping(json.loads(line)) for line in file.read_text("utf-8").splitlines() if line.strip()
            ]
        if file.suffix == ".json":
            return list(_records(json.loads(file.read_text("utf-8"))))
        if file.suffix == ".parquet":
            return _parquet(file)
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            rows = [dict(row) for row in reader]
        if any(None in row for row in rows):
            raise ValueError("a line has more cells than the header")
        return rows
    except (ValueError, csv.Error, OSError) as error:
        raise ForeignDataError(
            f"{file} cannot be read ({' '.join(str(error).split())}): repair it or take it out of the folder"
        ) from None


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {type(value).__name__}")
    return value


def _records(data: Any) -> Iterator[dict[str, Any]]:
    """JSON as pandas writes it: a list of objects, or columns by name with values by index."""
    if isinstance(data, list):
        yield from (_mapping(item) for item in data)
        return
    columns = _mapping(data)
    if not columns or not all(isinstance(column, dict) for column in columns.values()):
        raise ValueError("a list of objects is expected")
    for index in next(iter(columns.values())):
        yield {name: column.get(index) for name, column in columns.items()}


def _parquet(file: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ForeignDataError(
            f"{file} wants pyarrow, which is missing: pip install 'bbi-lightning[parquet]', or export as CSV"
        ) from None
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    # a table of floats has no other word for "not logged" than NaN
    return [{k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))} for row in rows]


TABLES = (".csv", ".jsonl", ".ndjson", ".parquet")


def tables_in(folder: Path) -> list[Path]:
    """All tables of a folder and those below it, hidden ones left out."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in TABLES and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def nearest(word: str, known: Iterable[str], otherwise: int = 12) -> str:
    """A did-you-mean, or what there is."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    more = f" and {len(names) - otherwise} more" if len(names) > otherwise else ""
    return f"there are {', '.join(names[:otherwise]) or 'none'}{more}"
