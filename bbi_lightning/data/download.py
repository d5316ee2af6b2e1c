"""Fetching the small public sets through torchvision, and saying how when a file is missing.

Many processes may ask at once, on several nodes that share a folder: one fetches, the others wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def fetch(name: Literal["MNIST", "CIFAR10", "CIFAR100"], data_dir: Path) -> None:
    """Download a data set into `data_dir` in torchvision's layout; files already there are kept.

    A file appears there whole or not at all, whenever a process is killed.

    Raises:
        FileNotFoundError: the download did not succeed.
    """
    from torchvision import datasets

    kind = getattr(datasets, name)
    if _is_there(kind, data_dir):
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(data_dir / f".{name}.lock") as alone:
            if not _is_there(kind, data_dir):  # nobody has fetched it while we waited
                _fetch_beside(kind, data_dir, alone)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"data.download=true could not fetch {name} into {data_dir} ({error}): "
            "run it once where there is a network, or copy the files there"
        ) from error


def _is_there(kind: Any, data_dir: Path) -> bool:
    """Whether torchvision finds the whole set, with the right checksums where it knows them."""
    try:
        kind(data_dir, train=True, download=False)
    except Exception:  # missing, or damaged in any way
        return False
    return True


def _fetch_beside(kind: Any, data_dir: Path, alone: bool) -> None:
    """Fetch into a folder of its own, then move file by file."""
    prefix = f".{kind.__name__}.unfinished-"
    if alone:
        for left_behind in data_dir.glob(f"{prefix}*"):
            shutil.rmtree(left_behind, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=data_dir))
    try:
        kind(unfinished, train=True, download=True)
        for file in sorted(path for path in unfinished.rglob("*") if path.is_file()):
            target = data_dir / file.relative_to(unfinished)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[bool]:
    """Wait for the lock and hold it; yields whether there is one (some network mounts have none).

    The kernel lets go of it when its holder dies.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def missing_file(path: Path, name: str) -> FileNotFoundError:
    """Return the error for a file that is not where it should be."""
    return FileNotFoundError(
        f"{path.parent} has no file {name}: set data.data_dir to the folder that holds the data, "
        "or data.download=true to fetch it"
    )
