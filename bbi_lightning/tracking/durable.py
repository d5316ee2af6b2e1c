"""Files that outlast a crash: whole or not there, and on the disk when a function returns."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)  # from fsync of a folder, on some network file systems


def sync(path: Path) -> None:
    """Force a file's contents or a folder's entries to the disk.

    Raises:
        OSError: the disk has failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED or path.is_file():
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by a file with this content: a reader, and a crash at any moment, finds old or new.

    The caller is the only writer of `path` (the lock of a run sees to that), so the temporary file has one
    fixed name and what a killed writer leaves is overwritten by the next.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)  # makes the rename itself durable
