"""The index of runs on disk: an SQLite file of what the runs' folders said when they were last read.

It is a copy and never the truth: deleted, damaged, of another version or refused by the file system, it is
made again, elsewhere if need be, and at worst not kept. Each row has a checksum, so that a damaged one is not
believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bbi_lightning.tracking.shapes import Shapes

NAME = ".bbi_runs.sqlite"
SCHEMA = 1
"""Raise it whenever `run_fields` would say something else of the same files."""

_TABLES = {
    "runs": "path TEXT PRIMARY KEY, signature TEXT, shape TEXT, own TEXT, checksum INTEGER",
    "shapes": "digest TEXT PRIMARY KEY, fields TEXT",
}
_PATIENCE = 5.0  # seconds to wait for another process that writes


class Entry(NamedTuple):
    """What is known of one run: the state of its files when read, and its fields (see `Shapes.pack`)."""

    signature: str
    shape: str
    own: str


class IndexFile:
    """The index of one root, in the first place that takes it.

    Args:
        root: the folder that holds the runs.
        cache: where an index goes that the root does not take. None: the user's cache folder.
        patience: seconds to wait for a place that somebody else writes to.

    Attributes:
        place: the file; None when it is kept nowhere.
    """

    def __init__(self, root: Path, cache: Path | None = None, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._places = [root / NAME, *_cache_places(root, cache)]
        self._connection: sqlite3.Connection | None = None
        self.place: Path | None = None
        self._open_next()

    def load(self) -> tuple[dict[str, Entry], Shapes]:
        """What is known, by the run's path below the root; rows that are damaged are left out."""
        while self._connection is not None:
            try:
                shapes = Shapes(dict(self._connection.execute("SELECT digest, fields FROM shapes")))
                rows = self._connection.execute("SELECT path, signature, shape, own, checksum FROM runs")
                known = {
                    path: Entry(signature, shape, own)
                    for path, signature, shape, own, checksum in rows
                    if shape in shapes and checksum == _checksum(path, signature, shape, own)
                }
            except (sqlite3.Error, TypeError, ValueError, AttributeError):
                self._begin_anew()
            else:
                return known, shapes
        return {}, Shapes()

    def update(self, changed: Mapping[str, Entry], removed: Iterable[str], shapes: Mapping[str, str]) -> None:
        """Take over what has been read, and forget what is gone; all of it or nothing.

        Args:
            changed: entries by the run's path.
            removed: paths where no run is any more.
            shapes: those that are new, by their digests.
        """
        rows = [(path, *entry, _checksum(path, *entry)) for path, entry in changed.items() if _is_text(path)]
        gone = [(path,) for path in removed]
        if self._connection is None or not (rows or gone):
            return
        try:
            with _transaction(self._connection):
                self._connection.executemany("INSERT OR REPLACE INTO shapes VALUES (?, ?)", shapes.items())
                self._connection.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", rows)
                self._connection.executemany("DELETE FROM runs WHERE path = ?", gone)
        except sqlite3.OperationalError:
            pass  # busy or full: what was not kept is read again
        except sqlite3.Error:
            self._begin_anew()

    def clear(self) -> None:
        """Forget everything, without taking the file from others who have it open."""
        if self._connection is None:
            return
        try:
            with _transaction(self._connection):
                for table in _TABLES:
                    self._connection.execute(f"DELETE FROM {table}")
        except sqlite3.Error:
            self._begin_anew()

    def close(self) -> None:
        """Let go of the file; harmless twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> IndexFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin_anew(self) -> None:
        """Replace the present file by an empty one; if that fails, the next place is taken."""
        self.close()
        place, self.place = self.place, None
        if place is not None and _delete(place):
            self._places.insert(0, place)
            self._open_next(repair=False)
        else:
            self._open_next()

    def _open_next(self, repair: bool = True) -> None:
        while self._places and self._connection is None:
            place = self._places.pop(0)
            try:
                self._connection = _opened(place, self._patience)
            except sqlite3.OperationalError:  # read-only, no locks, somebody writes for long
                continue
            except sqlite3.DatabaseError:  # damaged
                if repair and _delete(place):
                    self._places.insert(0, place)
                    repair = False
                continue
            except OSError:
                continue
            self.place = place


def _opened(place: Path, patience: float) -> sqlite3.Connection:
    """A connection that has shown it can write. Raises sqlite3.Error or OSError: it cannot."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(place.parent, os.W_OK):
        raise PermissionError(f"{place.parent} is read-only")
    connection = sqlite3.connect(place, timeout=patience, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        with _transaction(connection):
            if connection.execute("PRAGMA user_version").fetchone() != (SCHEMA,):
                for table, columns in _TABLES.items():
                    connection.execute(f"DROP TABLE IF EXISTS {table}")
                    connection.execute(f"CREATE TABLE {table} ({columns})")
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; waits for whoever writes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _delete(place: Path) -> bool:
    """Whether the file is gone, with what SQLite keeps beside it."""
    try:
        for suffix in ("-journal", "-wal", "-shm", ""):
            place.with_name(place.name + suffix).unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _checksum(path: str, signature: str, shape: str, own: str) -> int:
    return zlib.crc32(f"{path}\0{signature}\0{shape}\0{own}".encode())


def _is_text(path: str) -> bool:
    """Whether SQLite can hold it; a folder whose name is no UTF-8 is read each time."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cache_places(root: Path, cache: Path | None) -> list[Path]:
    if cache is None:
        try:
            cache = (
                Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bbi_lightning" / "runs"
            )
        except RuntimeError:  # no home
            return []
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()
    return [cache / f"{digest[:16]}.sqlite"]
