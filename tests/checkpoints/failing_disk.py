"""A disk on which every operation can be the last one, or be refused."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_OPERATIONS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "os.utime",
}
_WITH_FOLDER = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}  # at which place the descriptor of a folder is


class Killed(BaseException):
    """The process is gone: nothing it would still do has an effect."""


class FailingDisk:
    """Watches what is done in a folder.

    Args:
        folder: other places always work.
        kill_at: the operation at which the process dies, counted from 1; it and all later ones do nothing.
        refuse_at: the operation that fails because the disk is full.

    Attributes:
        operations: how many there have been.
        dead: whether the process has died.
    """

    def __init__(self, folder: Path, *, kill_at: int | None = None, refuse_at: int | None = None) -> None:
        self.folder = folder
        self.kill_at = kill_at
        self.refuse_at = refuse_at
        self.operations = 0
        self.dead = False
        self._unsynced: set[Path] = set()
        self._renames_at_risk: list[tuple[Path, Path]] = []

    def take(self, path: Path) -> None:
        """Count an operation, and let it happen or not."""
        if not path.is_relative_to(self.folder):
            return
        self.operations += 1
        if self.operations == self.kill_at:
            self.dead = True
        if self.dead:
            raise Killed
        if self.operations == self.refuse_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def write(self, path: Path) -> None:
        """A file's contents are at risk."""
        self._unsynced.add(path)

    def sync(self, path: Path) -> None:
        """A file's contents or a folder's entries are safe from now on."""
        self._unsynced.discard(path)
        self._renames_at_risk = [pair for pair in self._renames_at_risk if pair[0].parent != path]

    def rename(self, old: Path, new: Path) -> None:
        """What was at risk is so under its new name; and so is the name itself."""
        self._unsynced = {new / p.relative_to(old) if p.is_relative_to(old) else p for p in self._unsynced}
        if not new.name.startswith("."):  # no file system removes what is inside before it is out of sight
            self._renames_at_risk.append((old, new))

    def lose_power(self, chance: random.Random) -> None:
        """Lose some of what was never forced to the disk."""
        for old, new in reversed(self._renames_at_risk):
            if new.exists() and not old.exists() and chance.random() < 0.5:
                new.rename(old)
                self.rename(new, old)
        for path in sorted(self._unsynced):
            if path.is_file() and chance.random() < 0.8:
                path.write_bytes(path.read_bytes()[: chance.randint(0, path.stat().st_size)])


_watching: FailingDisk | None = None


def _audit(event: str, args: tuple) -> None:
    disk = _watching
    if disk is None or event not in _OPERATIONS or not isinstance(args[0], (str, os.PathLike)):
        return
    path = Path(args[0])
    place = _WITH_FOLDER.get(event)
    if place is not None and args[place] not in (-1, None):
        path = Path(f"/proc/self/fd/{args[place]}").readlink() / path
    disk.take(path)
    if event == "open" and isinstance(args[1], str) and "w" in args[1]:
        disk.write(path)
    if event == "os.rename":
        disk.rename(path, Path(args[1]))


sys.addaudithook(_audit)  # stays for good, and does nothing unless somebody watches


@contextmanager
def watched(disk: FailingDisk) -> Iterator[FailingDisk]:
    """Everything that is done in the disk's folder goes through it. A death ends the block quietly."""
    global _watching
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        disk.take(path)
        real(descriptor)
        disk.sync(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        _watching = disk
        try:
            yield disk
        except Killed:
            pass
        finally:
            _watching = None
