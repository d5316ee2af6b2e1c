"""All runs below some folders, at any depth, ready to be searched: `read_runs`.

The folders are the truth. What they say is kept in an index (`index_file`) beside them, and a run is read
again only when its `run.json`, `config.yaml` or `annotations.json` has another time, size or inode.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from bbi_lightning.tracking.annotations import FILE as ANNOTATIONS
from bbi_lightning.tracking.field_names import FieldNames
from bbi_lightning.tracking.index_file import Entry, IndexFile
from bbi_lightning.tracking.query import (
    Comparison,
    QueryError,
    comparisons,
    number,
    parse,
    predicate,
)
from bbi_lightning.tracking.run_fields import run_fields
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.shapes import Shapes

TRASH = ".trash"
LOST = "lost"
"""The state of a run that run.json calls running and that nobody holds: its process was killed."""

_WATCHED = ("run.json", "config.yaml", ANNOTATIONS)
_UNSETTLED = 2 * 10**9  # ns: a file this young may change once more without its time or size showing it
_CHUNK = 500  # runs that are read before they are written down
Progress = Callable[[int, int], None]


class RegistryError(ValueError):
    """A mistake of the user's about runs: one sentence with the remedy."""


@dataclass(frozen=True)
class IndexedRun:
    """A run as the index knows it.

    Attributes:
        root: the folder that was searched.
        below: its folder, from there.
        fields: see `run_fields`; also path, age and, while it trains, duration up to now.
    """

    root: Path
    below: str
    fields: Mapping[str, Any] = field(repr=False)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return _folder(self.root, self.below)

    @property
    def name(self) -> str:
        """The run's name, its folder's."""
        return str(self.fields["name"])

    @property
    def state(self) -> str:
        """One of `run_record.STATES`, or "lost", or "unreadable"."""
        return str(self.fields["state"])


@dataclass(frozen=True)
class Registry:
    """The runs of some roots at one moment, newest first.

    Attributes:
        runs: all of them.
        roots: the folders that were searched.
        reread: how many runs were not in the index, or had changed.
        indexes: the index of each root; None where none could be kept.
    """

    runs: tuple[IndexedRun, ...] = field(repr=False)
    roots: tuple[Path, ...] = ()
    reread: int = 0
    indexes: tuple[Path | None, ...] = ()

    @cached_property
    def names(self) -> FieldNames:
        """The fields that the runs have."""
        return FieldNames(set().union(*(run.fields for run in self.runs)))

    def where(self, query: str) -> tuple[IndexedRun, ...]:
        """The runs that a query holds of, in the registry's order.

        Raises:
            QueryError: it cannot be read, names a field that no run has, or compares numbers with a word.
        """
        expression = parse(query)
        if not self.runs:
            return ()
        for comparison in comparisons(expression):
            self._check(comparison)
        holds = predicate(expression, self.names.resolve)
        return tuple(run for run in self.runs if holds(run.fields))

    def sort(self, runs: Iterable[IndexedRun], keys: Sequence[str]) -> list[IndexedRun]:
        """Runs in the order of some fields, the first deciding; "-lr" is from high to low.

        Numbers come before text; what a run does not have, and NaN, comes last either way.
        """
        ordered = list(runs)
        for key in reversed(keys):
            name = self.names.resolve(key.lstrip("+-")) if self.runs else key
            there = [run for run in ordered if _is_sortable(run.fields.get(name))]
            missing = [run for run in ordered if not _is_sortable(run.fields.get(name))]
            there.sort(key=lambda run: _sort_key(run.fields[name]), reverse=key.startswith("-"))
            ordered = there + missing
        return ordered

    def find(self, word: str) -> IndexedRun:
        """The run of this name or folder; a part of the name is enough where only one has it.

        Raises:
            RegistryError: there is none, or several.
        """
        found = self._by_word(word)
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(str(run.folder) for run in found[:4]) + (", …" if len(found) > 4 else "")
            raise RegistryError(f"{word} could be {len(found)} runs ({shown}): write the folder of one")
        where = ", ".join(f"{root}/" for root in self.roots) or "no folder"
        near = _nearest(word, [run.name for run in self.runs])
        hint = (
            f"did you mean {near}?" if near else f"`bbi runs ls` lists the {len(self.runs)} runs in {where}"
        )
        raise RegistryError(f"there is no run {word}: {hint}")

    def _by_word(self, word: str) -> list[IndexedRun]:
        path = Path(word)
        exact = [run for run in self.runs if run.name == word]
        if exact:
            return exact
        if (path / "run.json").is_file():
            known = [run for run in self.runs if run.folder.resolve() == path.resolve()]
            return known[:1] or [_read_one(path)]
        for root in self.roots:
            if (root / path / "run.json").is_file():
                return [run for run in self.runs if run.folder == root / path] or [_read_one(root / path)]
        return [run for run in self.runs if run.name.startswith(word)] or [
            run for run in self.runs if word in run.name
        ]

    def _check(self, comparison: Comparison) -> None:
        """Refuse a word where a number is meant; otherwise the answer would silently be empty."""
        name = self.names.resolve(comparison.field)
        if comparison.operator in ("~", "null"):
            return
        values = [run.fields[name] for run in self.runs if name in run.fields]
        kind = _kind(values)
        for word in comparison.values:
            if kind == "number" and number(word) is None:
                example = f"{values[0]:.4g}"
                raise QueryError(
                    f"{name} is a number ({example} in one run), {word!r} is none: write a number"
                )
            if kind == "truth" and word.casefold() not in ("true", "false", "yes", "no"):
                raise QueryError(f"{name} is true or false, not {word!r}: write one of these")


def read_runs(
    roots: Iterable[str | Path],
    *,
    rebuild: bool = False,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Registry:
    """The runs below some folders; the index is brought up to date.

    Args:
        roots: searched at any depth, but not in hidden folders and not inside runs. A run below two of them
            is listed once.
        rebuild: forget the index, and read every run.
        progress: told (runs read, runs to read) while there is something to read.
        cache: where an index goes that its root does not take. None: the user's cache folder.

    Raises:
        RegistryError: a root is not a folder.
    """
    found: list[IndexedRun] = []
    searched: list[Path] = []
    indexes: list[Path | None] = []
    reread = 0
    for root in map(Path, roots):
        if not root.is_dir():
            raise RegistryError(f"{root} is not a folder: give the folder that holds the runs with --dir")
        if root in searched:
            continue
        searched.append(root)
        with closing(IndexFile(root, cache)) as index:
            if rebuild:
                index.clear()
            entries, shapes, changed = _up_to_date(root, index, progress)
            indexes.append(index.place)
        reread += changed
        with _no_collection():
            found += _runs(root, {path: entry[1:] for path, entry in entries.items()}, shapes)
    if _overlap(searched):
        found = list({run.folder.resolve(): run for run in reversed(found)}.values())
    runs = sorted(found, key=_newest_first)
    return Registry(tuple(runs), tuple(searched), reread, tuple(indexes))


def run_folders(root: Path) -> Iterator[tuple[str, str]]:
    """(path below the root, state of its files) of every run; the root itself may be one (".")."""
    signature = _signature(str(root))
    if signature is not None:
        yield ".", signature
        return
    waiting, seen = [""], set()
    while waiting:
        below = waiting.pop()
        folder = os.path.join(root, below)  # noqa: PTH118  ten thousand of them: strings, not Paths
        try:
            status = os.stat(folder)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in seen:  # a link in a circle
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
        except OSError:  # gone meanwhile, or not ours to read
            continue
        for name in names:
            path = f"{below}/{name}" if below else name
            signature = _signature(f"{root}/{path}")
            if signature is None:
                waiting.append(path)
            else:
                yield path, signature


def _signature(folder: str) -> str | None:
    """Time, size and inode of what the index reads of a run; None where no run is."""
    parts, newest = [], 0
    for name in _WATCHED:
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116
        except OSError:
            if name == "run.json":
                return None
            parts.append("-")
            continue
        newest = max(newest, status.st_mtime_ns)
        parts.append(f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}")
    if newest > time.time_ns() - _UNSETTLED:
        parts.append(f"unsettled {time.time_ns()}")  # is no other signature's equal: it is read again
    return " ".join(parts)


def _up_to_date(
    root: Path, index: IndexFile, progress: Progress | None
) -> tuple[dict[str, Entry], Shapes, int]:
    """Every run's entry by its path below the root, their shapes, and how many had to be read."""
    (known, shapes), entries = index.load(), {}
    stale: list[tuple[str, str]] = []
    for path, signature in run_folders(root):
        entry = known.get(path)
        if entry is not None and entry.signature == signature:
            entries[path] = entry
        else:
            stale.append((path, signature))
    index.update({}, known.keys() - entries.keys() - {path for path, _ in stale}, {})
    for start in range(0, len(stale), _CHUNK):
        chunk = {}
        for place, (path, signature) in enumerate(stale[start : start + _CHUNK], start + 1):
            folder = RunFolder(_folder(root, path))
            fields = run_fields(folder)
            if folder.exists:  # it may have been removed since it was found
                chunk[path] = Entry(signature, *shapes.pack(fields))
            if progress:
                progress(place, len(stale))
        index.update(chunk, (), shapes.new)
        entries.update(chunk)
    return entries, shapes, len(stale)


def _folder(root: Path, path: str) -> Path:
    return root / path if path != "." else root.resolve()  # which has a name


def _runs(root: Path, packed: Mapping[str, tuple[str, str]], shapes: Shapes) -> Iterator[IndexedRun]:
    """The runs, and what of them changes by itself."""
    now = datetime.now(timezone.utc)
    for path, fields in zip(packed, shapes.unpack(packed.values()), strict=True):
        place = os.path.join(root, path) if path != "." else str(_folder(root, path))  # noqa: PTH118  as above
        fields["path"] = place if place.isascii() else os.fsencode(place).decode(errors="replace")
        if fields["state"] == "running":
            _look_at(RunFolder(root / path), fields, now)
        age = _seconds_since(fields.get("started") or fields.get("created"), now)
        if age is not None:
            fields["age"] = age
        yield IndexedRun(root, path, fields)


def _read_one(folder: Path) -> IndexedRun:
    """A run that no root has."""
    folder = folder.resolve()
    shapes = Shapes()
    packed = shapes.pack(run_fields(RunFolder(folder)))
    return next(_runs(folder.parent, {folder.name: packed}, shapes))


def _look_at(folder: RunFolder, fields: dict[str, Any], now: datetime) -> None:
    """Complete the fields of a run that calls itself running."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file system without locks
        try:
            held = folder.holder() is not None
        except OSError:
            held = True  # cannot be told
    if not held:
        fields["state"] = LOST
        return
    lasted = _seconds_since(fields.get("started"), now)
    if lasted is not None:
        fields["duration"] = (fields.get("duration", 0.0) if fields.get("attempts", 1) > 1 else 0.0) + lasted


def _seconds_since(moment: Any, now: datetime) -> float | None:
    try:
        seconds = (now - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return None
    return seconds if seconds >= 0 else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which would go through ten thousand young mappings again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _overlap(roots: Sequence[Path]) -> bool:
    """Whether one of the folders is, or is below, another."""
    whole = [root.resolve() for root in roots]
    return any(a == b or a in b.parents for a in whole for b in whole if a is not b)


def _newest_first(run: IndexedRun) -> tuple[float, str]:
    age = run.fields.get("age")
    return (age if isinstance(age, float) else float("inf"), run.name)


def _is_sortable(value: Any) -> bool:
    return value is not None and value == value  # NaN is not


def _sort_key(value: Any) -> tuple[bool, Any]:
    if isinstance(value, (int, float)):
        return (False, value)
    return (True, ", ".join(map(str, value)).casefold() if isinstance(value, list) else str(value).casefold())


def _kind(values: Sequence[Any]) -> str | None:
    """ "number" or "truth" where all values are, else None."""
    if not values:
        return None
    if all(isinstance(value, bool) for value in values):
        return "truth"
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return "number"
    return None


def _nearest(word: str, names: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return near[0] if near else ""
