"""Checksums of files."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

_CHUNK = 2**20  # bytes; fits the cache, and hashlib lets other threads run meanwhile


def digest_of_file(path: Path, *, from_disk: bool = False) -> str:
    """The SHA-256 of a file's contents, in hexadecimal.

    Args:
        path: the file.
        from_disk: not from what the system still has of it in memory, where it lets us choose; the file must
            have been synced.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        if from_disk and sys.platform == "linux":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
