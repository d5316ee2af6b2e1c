"""What people say of a run: tags and a note, in `annotations.json` in the run's folder.

They lie beside `run.json` and not in it, which belongs to the process that trains the run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bbi_lightning.tracking.durable import write_atomically

FILE = "annotations.json"
_LOCK = ".annotations.lock"
_TAG = re.compile(r"\w[\w.:/-]*")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Annotations:
    """Tags, sorted and each once, and a note (empty: none)."""

    tags: tuple[str, ...] = ()
    note: str = ""


def read_annotations(folder: Path) -> Annotations:
    """A run's annotations; nothing when it has none.

    Raises:
        ValueError: the file is damaged; one sentence with the remedy.
    """
    file = folder / FILE
    try:
        said = json.loads(file.read_bytes())
        tags, note = said.get("tags", []), said.get("note", "")
        if not (
            isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) and isinstance(note, str)
        ):
            raise ValueError("tags or note have the wrong type")
    except FileNotFoundError:
        return Annotations()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read ({error}): repair it, or delete it and tag again") from None
    return Annotations(tuple(sorted(set(tags))), note)


def change_annotations(folder: Path, change: Callable[[Annotations], Annotations]) -> Annotations:
    """Replace a run's annotations by what `change` makes of them; nobody else's change is lost by it.

    Raises:
        ValueError: the present file is damaged, or a tag is no word.
        OSError: the folder cannot be written to.
    """
    with _alone(folder):
        before = read_annotations(folder)
        after = change(before)
        for tag in after.tags:
            check_tag(tag)
        after = Annotations(tuple(sorted(set(after.tags))), after.note.strip())
        if after != before:
            content = json.dumps({"tags": list(after.tags), "note": after.note}, indent=2, ensure_ascii=False)
            write_atomically(folder / FILE, (content + "\n").encode())
    return after


def check_tag(tag: str) -> None:
    """Raises ValueError unless the tag is a word: letters, digits, and _ . : / - after the first."""
    if not _TAG.fullmatch(tag):
        raise ValueError(f"the tag {tag!r} is no word: use letters, digits and _ . : / -")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time, for the milliseconds that it takes."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)
