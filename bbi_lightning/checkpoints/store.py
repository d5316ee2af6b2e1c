"""The checkpoints of a run, as folders: begun hidden, sealed, renamed into sight, verified, cleared away.

A reader sees complete checkpoints only, at any moment and after any crash, and never locks. There is
one writer, the process that holds the run's lock; what a killed one leaves is hidden and removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bbi_lightning.checkpoints.digest import digest_of_file
from bbi_lightning.checkpoints.manifest import (
    MANIFEST,
    STATE,
    FileRecord,
    Manifest,
    NewerFormatError,
    Note,
    read_manifest,
)
from bbi_lightning.checkpoints.retention import best_of, superfluous
from bbi_lightning.tracking.durable import sync

__all__ = ["Checkpoint", "CheckpointStore", "Finding", "ForeignCheckpointError", "Note"]

_NAME = re.compile(r"checkpoint-(\d{6,})-step-\d+")
_UNFINISHED, _REMOVED = ".unfinished-", ".removed-"


class ForeignCheckpointError(ValueError):
    """The newest checkpoint is another run's, or was written by a later version of this program."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk: its folder, and what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def number(self) -> int:
        """See `Manifest`."""
        return self.manifest.number

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.manifest.step


@dataclass(frozen=True)
class Finding:
    """What is at a checkpoint's place.

    Attributes:
        path: its folder.
        checkpoint: None where the manifest cannot be read.
        wrong: why it cannot be used, as the rest of a sentence or a clause; None if it can.
        is_foreign: it is sound, but not this run's or not this version's.
    """

    path: Path
    checkpoint: Checkpoint | None
    wrong: str | None
    is_foreign: bool = False


class CheckpointStore:
    """The checkpoints in a folder.

    Args:
        folder: made with the first checkpoint.
        run: the identity that the checkpoints must carry.
        keep_last: newest valid checkpoints to keep, ≥ 1; see `retention.superfluous` for what else is kept.

    Example:
        >>> import tempfile
        >>> store = CheckpointStore(Path(tempfile.mkdtemp()), run="toy-s0")
        >>> unfinished = store.begin()
        >>> _ = (unfinished / "state.pt").write_bytes(b"weights")
        >>> store.commit(unfinished, Note(step=120, epoch=3)).path.name
        'checkpoint-000001-step-120'
        >>> checkpoint, passed_over = store.newest_valid()
        >>> checkpoint.step, passed_over
        (120, [])
    """

    def __init__(self, folder: Path, run: str, *, keep_last: int = 2) -> None:
        self.folder = Path(folder)
        self.run = run
        self.keep_last = keep_last
        self._begun: set[Path] = set()
        self._validity: dict[Path, bool] = {}  # of what this process has verified

    def checkpoints(self) -> list[Checkpoint]:
        """Those whose manifest can be read, oldest first; their files are not verified."""
        found = []
        for path in self._folders():
            with contextlib.suppress(OSError, ValueError):
                found.append(Checkpoint(path, read_manifest(path)))
        return found

    def damage(self, checkpoint: Checkpoint) -> str | None:
        """What is wrong with the files of a checkpoint, in a clause; None if they are what was written."""
        try:
            return _damage(checkpoint, from_disk=False)
        except OSError as error:
            return f"{Path(error.filename or STATE).name} cannot be read ({error.strerror})"

    def examine(self) -> Iterator[Finding]:
        """Look at every checkpoint, newest first, each when it is asked for; reads all their files.

        One that is cleared away meanwhile is left out.
        """
        for path in reversed(self._folders()):
            finding = self._find_out_about(path)
            if finding is not None:
                yield finding

    def newest_valid(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is what was written, and a sentence about each one passed over.

        Raises:
            ForeignCheckpointError: it is not this run's, or of a later version of this program.
        """
        passed_over: list[str] = []
        for path in reversed(self._folders()):
            finding = self._find_out_about(path)
            if finding is None:  # the one that writes has been faster, and there is a newer one by now
                return self.newest_valid()
            if finding.is_foreign:
                raise ForeignCheckpointError(f"{finding.path} {finding.wrong}")
            if finding.wrong is None:
                return finding.checkpoint, passed_over
            passed_over.append(f"{finding.path.name} is passed over: {finding.wrong}")
        return None, passed_over

    def best(self) -> Checkpoint | None:
        """The newest one that was the best so far when it was saved; its files are not verified."""
        own = {c.number: c for c in self.checkpoints() if c.manifest.run == self.run}
        best = best_of(c.manifest for c in own.values())
        return None if best is None else own[best.number]

    def begin(self) -> Path:
        """A new hidden folder to write a checkpoint's files into."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        folder = self.folder / f"{_UNFINISHED}{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        self._begun.add(folder)
        return folder

    def commit(self, folder: Path, note: Note) -> Checkpoint:
        """Make what lies in a folder from `begin` the newest checkpoint; then clear away what may go.

        Raises:
            OSError: of the disk; the folder is removed, and the checkpoints are those that were before.
        """
        final: Path | None = None
        try:
            manifest = Manifest(
                **vars(note),
                number=self._largest_number() + 1,
                run=self.run,
                saved=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                files={name: _record(folder / name) for name in _files_in(folder)},
            )
            (folder / MANIFEST).write_bytes(manifest.to_bytes())
            _sync_all_in(folder)  # at once: a journal is then committed once and not file by file
            final = self.folder / manifest.folder_name
            folder.rename(final)
            sync(self.folder)
            checkpoint = Checkpoint(final, read_manifest(final))
            wrong = _damage(checkpoint, from_disk=True)
            if wrong is not None:
                raise OSError(errno.EIO, f"the disk does not give back what was written: {wrong}", str(final))
        except BaseException:
            self.abandon(folder if final is None or folder.exists() else final)
            raise
        self._begun.discard(folder)
        self._validity[final] = True
        with contextlib.suppress(OSError):  # what cannot be cleared away now can be the next time
            self._prune()
        return checkpoint

    def abandon(self, folder: Path) -> None:
        """Remove a folder from `begin`, as far as the disk lets us; the rest is a leftover."""
        self._begun.discard(folder)
        self._remove(folder)

    def _folders(self) -> list[Path]:
        """The checkpoints' folders in the order of their numbers."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        numbered = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
        return [self.folder / name for _, name in sorted(numbered)]

    def _largest_number(self) -> int:
        folders = self._folders()
        return int(folders[-1].name.split("-")[1]) if folders else 0

    def _find_out_about(self, path: Path) -> Finding | None:
        """What is at a checkpoint's place; None if it has been cleared away."""
        checkpoint = None
        try:
            checkpoint = Checkpoint(path, read_manifest(path))
            wrong = self.damage(checkpoint)
        except NewerFormatError as error:
            return Finding(path, None, str(error), is_foreign=True)
        except ValueError as error:
            wrong = str(error)
        except OSError as error:
            wrong = f"{MANIFEST} cannot be read ({error.strerror})"
        if wrong is not None:
            return Finding(path, checkpoint, wrong) if path.exists() else None
        if checkpoint is not None and checkpoint.manifest.run != self.run:
            wrong = (
                f"is a checkpoint of run {checkpoint.manifest.run}, not of {self.run}: "
                "move it away, or begin another run from it"
            )
            return Finding(path, checkpoint, wrong, is_foreign=True)
        return Finding(path, checkpoint, None)

    def _prune(self) -> None:
        own = {c.number: c for c in self.checkpoints() if c.manifest.run == self.run}
        for number, checkpoint in list(own.items()):
            if checkpoint.path not in self._validity:
                try:
                    self._validity[checkpoint.path] = _damage(checkpoint, from_disk=False) is None
                except OSError:  # what cannot be read now may be sound: it neither counts nor goes
                    del own[number]
        damaged = {number for number, checkpoint in own.items() if not self._validity[checkpoint.path]}
        for manifest in superfluous(
            (c.manifest for c in own.values()), keep_last=self.keep_last, damaged=damaged
        ):
            path = own[manifest.number].path
            self._validity.pop(path, None)
            self._remove(path)
        self._remove_leftovers()

    def _remove(self, folder: Path) -> None:
        """Out of sight at once, then file by file: a kill in between leaves no half checkpoint."""
        hidden = folder
        with contextlib.suppress(OSError):
            hidden = folder.rename(folder.with_name(f"{_REMOVED}{uuid.uuid4().hex[:12]}"))
        shutil.rmtree(hidden, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith((_UNFINISHED, _REMOVED)) and path not in self._begun:
                shutil.rmtree(path, ignore_errors=True)


def _damage(checkpoint: Checkpoint, *, from_disk: bool) -> str | None:
    for name, record in checkpoint.manifest.files.items():
        wrong = _difference(checkpoint.path / name, record, from_disk)
        if wrong is not None:
            return f"{name} {wrong}"
    return None


def _difference(path: Path, record: FileRecord, from_disk: bool) -> str | None:
    """How a file differs from what was written, as the end of a clause. Raises OSError: nobody knows."""
    try:
        size = path.stat().st_size
        if size != record.bytes:
            return f"has {size:,} of {record.bytes:,} bytes"
        same = digest_of_file(path, from_disk=from_disk) == record.sha256
        return None if same else "has other contents than were written"
    except FileNotFoundError:
        return "is missing"


def _files_in(folder: Path) -> Iterator[str]:
    """Names of all files, relative to the folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _record(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, digest_of_file(path))


def _sync_all_in(folder: Path) -> None:
    """Force a folder and all that is in it to the disk, what is inside first."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)
