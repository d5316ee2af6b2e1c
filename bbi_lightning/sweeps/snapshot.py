"""The code a sweep runs: copied once, at its start, so that editing the checkout changes no queued trial.

<sweep>/code/
  code.json          where it came from: {commit, dirty, diff_sha256, files, bytes, taken, ...}
  bbi_lightning/...  the tree this program runs from, as `source_trees` sees it
  .trees/<name>/...  the other trees that the starting process imported from: the user's own models, say

Workers find the copy by PYTHONPATH, ahead of what is installed; their runs carry its commit and the digest of
its uncommitted changes (`tracking.environment.code_facts`). A sweep without the folder uses the checkout.
"""

from __future__ import annotations

import dataclasses
import filecmp
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import bbi_lightning
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.source_trees import Copied, Tree, copy, trees_in_use
from bbi_lightning.tracking.durable import sync
from bbi_lightning.tracking.environment import SNAPSHOT_FACTS, code_facts

_ENTERED = "BBI_SNAPSHOT"  # set for what was started from a snapshot: nobody starts it a second time
_OTHER_TREES = ".trees"


@dataclass(frozen=True)
class Code:
    """The code of a sweep.

    Attributes:
        folder: where the copy is; None: there is none, and the checkout is used as it is at the moment.
        commit, dirty, diff_sha256: as in `tracking.environment.CodeFacts`, when it was taken.
        trees: place of each tree in `folder` ("." for this program's own) to the folder it was copied from.
        import_path: what comes first on the import path: relative to `folder`, or absolute where a folder is
            under no git and was not copied.
        files, bytes: the size of the copy.
        linked: files that were too large to be copied: links lead to them.
        taken: UTC time, ISO 8601; None for a live checkout.
    """

    folder: Path | None
    commit: str | None
    dirty: bool
    diff_sha256: str | None
    trees: Mapping[str, str] = dataclasses.field(default_factory=dict)
    import_path: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    linked: tuple[str, ...] = ()
    taken: str | None = None

    @property
    def live(self) -> bool:
        """Whether it is the checkout itself."""
        return self.folder is None

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which Python imports this code; empty for a live checkout.

        PYTHONPATH is the whole path: what it held when the snapshot was taken is part of it.
        """
        if self.folder is None:
            return {}
        path = [str(self.folder / entry) for entry in self.import_path]  # an absolute entry stays as it is
        # PYTHONSAFEPATH: else `python -m` and the fork server look into the working folder first
        return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1", _ENTERED: str(self.folder)}

    @classmethod
    def read(cls, folder: Path) -> Code:
        """The code in a sweep's folder of code; the checkout, when there is no such folder.

        Raises:
            SweepError: the snapshot is damaged.
        """
        folder = folder.resolve()
        if not folder.is_dir():
            return cls(None, **dataclasses.asdict(code_facts()))
        try:
            facts = json.loads((folder / SNAPSHOT_FACTS).read_text(encoding="utf-8"))
            return cls(folder, **facts | {key: tuple(facts[key]) for key in ("import_path", "linked")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SweepError(
                f"{folder} is not a whole snapshot of code ({' '.join(str(error).split())}): "
                "restore it from a copy, or remove it to go on with the checkout"
            ) from None

    def plain(self) -> dict[str, Any]:
        """What code.json holds."""
        facts = dataclasses.asdict(self)
        del facts["folder"]
        return facts

    def sentence(self) -> str:
        """Which code it is, for the user."""
        commit = self.commit[:10] if self.commit else f"version {bbi_lightning.__version__}"
        state = f"{commit} with uncommitted changes" if self.dirty else commit
        if self.live:
            return f"the checkout as it is at the moment ({state})"
        size = f"{self.files:,} files, {self.bytes / 2**20:.1f} MiB"
        return f"a snapshot of {state}, taken {self.taken} ({size})"

    def changed_since(self) -> list[str]:
        """Files of the copy that differ in the checkout by now, sorted; new files there do not count."""
        if self.folder is None:
            return []
        changed = []
        for place, origin in self.trees.items():
            for file in _files(self.folder / place):
                name = file.relative_to(self.folder / place)
                original = Path(origin) / name
                if not original.is_file() or not filecmp.cmp(file, original, shallow=False):
                    changed.append((Path(place) / name).as_posix())
        return sorted(changed)

    def is_in_use(self) -> bool:
        """Whether this process runs it."""
        return self.folder is None or is_running_from(self.folder)


def take(folder: Path, *, live: bool = False) -> Code:
    """Copy the code of this process to a sweep's folder of code, unless there is a copy: the first one stays.

    Whole or not there: a copy that was cut off leaves a folder that nobody looks at, and of two processes one
    gives way to the other.

    Args:
        folder: `SweepFolder.code`; the folders above it are made if need be.
        live: take none, and pass over one that is there: the checkout is used.

    Raises:
        SweepError: the code is too large to be copied, or the copy that is there is damaged.
        OSError: it cannot be written.
    """
    if live:
        return Code(None, **dataclasses.asdict(code_facts()))
    folder = folder.resolve()
    if folder.is_dir():
        return Code.read(folder)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        _fill(temporary, without=folder.parent)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody was faster
                raise
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Code.read(folder)


def is_running_from(folder: Path) -> bool:
    """Whether this process's package lies in the copy."""
    return Path(bbi_lightning.__file__).resolve().is_relative_to(folder.resolve())


def enter(code: Code, arguments: Sequence[str] | None = None) -> None:
    """Go on as ``bbi *arguments`` in the snapshot's code, in this process; returns if it is in use already.

    Args:
        code: the sweep's.
        arguments: this process's own if not given.

    Raises:
        SweepError: this process was started from the snapshot, and yet imports other code.
    """
    if code.is_in_use():
        return
    if os.environ.get(_ENTERED) == str(code.folder):
        raise SweepError(
            f"{bbi_lightning.__file__} is imported instead of the sweep's own code in {code.folder}: "
            "restore that folder from a copy, or use --live"
        )
    _replace_process(sys.argv[1:] if arguments is None else arguments, code.environment)


def program() -> list[str]:
    """The words that start `bbi` under `Code.environment`, whatever the working folder holds."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-m", "bbi_lightning.cli"]
    # this Python does not know PYTHONSAFEPATH, and looks into the working folder first
    start = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; sys.argv[0] = 'bbi'; "
        "from bbi_lightning.cli import main; main()"
    )
    return [sys.executable, "-c", start]


def _replace_process(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [*program(), *arguments], {**os.environ, **environment})


def _fill(snapshot: Path, without: Path) -> None:
    """Copy the trees, and write down what they are."""
    facts = code_facts()  # before the copy: an edit in between is a change more, not one less
    trees, loose = trees_in_use(without)
    total, placed = Copied(), dict[str, Tree]()
    for tree in trees:
        place = _place(tree.root.name, placed)
        copied = copy(tree, snapshot / place)
        placed[place] = tree
        total.files, total.bytes = total.files + copied.files, total.bytes + copied.bytes
        total.linked += [(Path(place) / file).as_posix() for file in copied.linked]
    code = Code(
        snapshot,
        **dataclasses.asdict(facts),
        trees={place: str(tree.root) for place, tree in placed.items()},
        import_path=_import_path(placed, loose),
        files=total.files,
        bytes=total.bytes,
        linked=tuple(total.linked),
        taken=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    file = snapshot / SNAPSHOT_FACTS
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(code.plain(), indent=2) + "\n", encoding="utf-8")
    sync(file)


def _place(name: str, taken: Mapping[str, object]) -> str:
    """Where in the snapshot the next tree is put: the first, this program's own, at its top."""
    if not taken:
        return "."
    wanted = place = f"{_OTHER_TREES}/{name or 'root'}"
    number = 1
    while place in taken:
        number += 1
        place = f"{wanted}-{number}"
    return place


def _import_path(trees: Mapping[str, Tree], loose: Sequence[Path]) -> tuple[str, ...]:
    """Where to import from: the copied trees, then what was asked for by PYTHONPATH or by standing in it."""
    copied = [(Path(place) / root).as_posix() for place, tree in trees.items() for root in tree.import_roots]
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    wanted = {Path.cwd(), *(Path(entry).resolve() for entry in asked if entry)}
    return (*copied, *(str(folder) for folder in loose if folder in wanted))


def _files(folder: Path) -> Iterator[Path]:
    """What was copied to `folder`: not what Python caches, nor other trees and the facts."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if parts[0] in (_OTHER_TREES, SNAPSHOT_FACTS) or "__pycache__" in parts:
            continue
        if path.is_file():
            yield path
