"""Where the runs are: at any depth below a folder, found again without walking the whole tree again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_NEVER_INSIDE = {"checkpoints", "wandb", "code", "configs", "slurm", "workers", "__pycache__"}
_FRESH = 2.0  # seconds: a folder that changed so lately may change again without another time
_DEEPEST = 6
_DORMANT = 600.0  # seconds without a change after which a folder without runs is looked at less often
_SELDOM = 10  # that is, in every so-manieth search
_RUN = "run.json"


@dataclass(frozen=True)
class _Listing:
    changed: int  # the folder's own time, ns
    fresh: bool
    is_run: bool
    folders: tuple[str, ...]


class RunFinder:
    """Finds the folders that have a run.json. A folder is listed again only when its time has changed.

    Hidden folders and those that never hold runs are passed over; a run's own folder is not entered, and not
    looked at again: whoever watches the run sees when it is gone, and says so by `forget`. Below a folder
    that has no runs and has not changed for long (a data set, say) every tenth search looks.

    Args:
        root: where to look; may be a run itself. Need not exist.
        deepest: levels below it that are looked at.
    """

    def __init__(self, root: Path, deepest: int = _DEEPEST) -> None:
        self.root = root
        self._deepest = deepest
        self._runs: set[str] = set()
        self._listings: dict[str, _Listing] = {}
        self._barren: set[str] = set()
        self._searches = 0

    def runs(self) -> list[Path]:
        """The folders of all runs there are now, those of one folder in order of their names."""
        thorough = self._searches % _SELDOM == 0
        self._searches += 1
        if thorough:
            self._barren.clear()
        visited: set[str] = set()
        found = [Path(path) for path in self._below(str(self.root), 0, visited)]
        if thorough:
            for path in self._listings.keys() - visited:
                del self._listings[path]
        return found

    def forget(self, run: Path) -> None:
        """Look at this folder anew: its run.json is gone."""
        self._runs.discard(str(run))

    def _below(self, path: str, depth: int, visited: set[str]) -> list[str]:
        if path in self._runs:
            return [path]
        listing = None if path in self._barren else self._listing(path)
        if listing is None:
            return []
        if listing.is_run:
            self._runs.add(path)
            return [path]
        visited.add(path)
        folders = listing.folders if depth < self._deepest else ()
        found = [run for folder in folders for run in self._below(folder, depth + 1, visited)]
        if not found and time.time() - listing.changed * 1e-9 > _DORMANT:
            self._barren.add(path)
        return found

    def _listing(self, path: str) -> _Listing | None:
        """What is in a folder; None if it is none, or cannot be read."""
        try:
            changed = Path(path).stat().st_mtime_ns
            known = self._listings.get(path)
            if known is not None and known.changed == changed and not known.fresh:
                return known
            with os.scandir(path) as entries:
                names = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError:
            self._listings.pop(path, None)
            return None
        folders = sorted(
            f"{path}/{name}"
            for name, is_folder in names
            if is_folder and not name.startswith(".") and name not in _NEVER_INSIDE
        )
        is_run = any(name == _RUN for name, _ in names)
        listing = _Listing(changed, time.time() - changed * 1e-9 < _FRESH, is_run, tuple(folders))
        self._listings[path] = listing
        return listing
