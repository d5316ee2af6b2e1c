"""Runs that were thrown away: whole, in `<root>/.trash/`, until somebody restores them or empties it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.registry import TRASH, RegistryError
from bbi_lightning.tracking.run_folder import RunFolder

_NOTE = "trashed.json"


@dataclass(frozen=True)
class Trashed:
    """A run in the trash: where it lies, where it was below the root, since when (UTC, ISO 8601)."""

    folder: Path
    root: Path
    was: str
    when: str

    @property
    def name(self) -> str:
        """The run's name."""
        return Path(self.was).name


def throw_away(folder: Path, root: Path) -> Trashed:
    """Move a run's folder to the trash of its root.

    Raises:
        RunBusyError: a process trains the run.
        RegistryError: the run is not below the root, or is the root itself.
        OSError: the folder cannot be moved.
    """
    folder, root = folder.absolute(), root.absolute()
    if root not in folder.parents:
        raise RegistryError(f"{folder} is not below {root}: give the folder that holds the run with --dir")
    run = RunFolder(folder)
    run.acquire()
    try:
        trash = root / TRASH
        trash.mkdir(exist_ok=True)
        place = _free(trash, folder.name)
        thrown = Trashed(place, root, folder.relative_to(root).as_posix(), _now())
        note = json.dumps({"was": thrown.was, "when": thrown.when}) + "\n"
        write_atomically(folder / _NOTE, note.encode())  # before it moves: the trash is never without
        folder.rename(place)
    finally:
        run.release()
    return thrown


def trashed_runs(root: Path) -> Iterator[Trashed]:
    """What is in the trash of a root, the last thrown away first."""
    found = []
    trash = root.absolute() / TRASH
    for folder in trash.iterdir() if trash.is_dir() else ():
        try:
            note = json.loads((folder / _NOTE).read_bytes())
            found.append(Trashed(folder, root.absolute(), str(note["was"]), str(note["when"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none of ours
    yield from sorted(found, key=lambda run: (run.when, run.folder.name), reverse=True)


def restore(run: Trashed) -> Path:
    """Put a run back where it was.

    Raises:
        RegistryError: its place is taken, or would be outside the root.
    """
    place = run.root / run.was
    if run.root not in place.parents or ".." in Path(run.was).parts:
        raise RegistryError(
            f"{run.folder} says it was in {run.was}, which is outside {run.root}: move it by hand"
        )
    if place.exists():
        raise RegistryError(f"{place} exists: move that one away before {run.name} is restored")
    place.parent.mkdir(parents=True, exist_ok=True)
    run.folder.rename(place)
    (place / _NOTE).unlink(missing_ok=True)
    return place


def delete(run: Trashed) -> None:
    """Delete a run in the trash for good."""
    shutil.rmtree(run.folder)


def _free(trash: Path, name: str) -> Path:
    number = 1
    while (place := trash / f"{name}-{number}").exists():
        number += 1
    return place


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
