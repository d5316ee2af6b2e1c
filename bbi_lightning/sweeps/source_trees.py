"""Which source trees a process imports from, and how one is copied: the raw material of a snapshot.

A tree is a git work tree, or the installed package where there is no git. Of a work tree everything counts
that git tracks or would track: with the changes that are not committed, without what it ignores, and without
what programs leave behind (sweeps, runs, environments), ignored or not.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import bbi_lightning
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.tracking.environment import ask_git

LARGEST_FILE = 10 * 2**20
"""Bytes; a larger file is data, not code: the copy has a link to it."""

LARGEST_TREE = 500 * 2**20
"""Bytes; more than that is not a source tree, and nobody wants it copied for every sweep."""

_LEFT_BEHIND = ("journal.log", "run.json", "pyvenv.cfg")  # the mark of a sweep, a run, an environment
_BESIDE_THE_PACKAGE = ("configs", "slurm")  # belong to it wherever they lie
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Tree:
    """A source tree.

    Attributes:
        root: its folder.
        files: relative paths of what is copied, sorted.
        import_roots: the folders in it (relative, "." for itself) that Python imports from.
    """

    root: Path
    files: tuple[str, ...]
    import_roots: tuple[str, ...]


@dataclass
class Copied:
    """What copying a tree came to.

    Attributes:
        files: how many were copied.
        bytes: their size.
        linked: relative paths of the files that were too large and became links.
    """

    files: int = 0
    bytes: int = 0
    linked: list[str] = field(default_factory=list)


def trees_in_use(without: Path, search_path: Sequence[str] | None = None) -> tuple[list[Tree], list[Path]]:
    """The trees this process imports from, this package's first; and import folders that are under no git.

    What is installed is not among them: `pip install` during a sweep is the user's own affair.

    Args:
        without: a folder whose content does not count, wherever it lies: the sweep's own.
        search_path: `sys.path` if not given.
    """
    package = Path(bbi_lightning.__file__).resolve().parent
    folders = list(dict.fromkeys(_own_folders(sys.path if search_path is None else search_path)))
    trees: dict[Path, Tree] = {}
    loose: list[Path] = []
    for folder in [package.parent, *folders]:
        root = work_tree_of(folder)
        if root is None:
            loose.append(folder)
            continue
        files = trees[root].files if root in trees else tuple(_files(root, without.resolve()))
        here = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        if any(name.startswith(here) for name in files):
            before = trees[root].import_roots if root in trees else ()
            trees[root] = Tree(root, files, tuple(dict.fromkeys([*before, here.rstrip("/") or "."])))
    if not any(_holds(tree, package) for tree in trees.values()):
        return [_installed(package), *trees.values()], [f for f in loose if f != package.parent]
    return list(trees.values()), loose


def work_tree_of(folder: Path) -> Path | None:
    """The root of the git work tree that `folder` is in."""
    answer = ask_git(folder, "rev-parse", "--show-toplevel")
    return Path(os.fsdecode(answer).rstrip("\n")) if answer and answer.strip() else None


def copy(tree: Tree, to: Path) -> Copied:
    """Copy a tree's files to the new folder `to`, read-only; a link that leads out of the tree still does.

    Raises:
        SweepError: the tree is too large.
        OSError: the disk is full, say.
    """
    copied = Copied()
    for name in tree.files:
        source, target = tree.root / name, to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            _copy_link(source, target, tree.root)
            continue
        if not source.exists():  # removed since it was listed
            continue
        size = source.stat().st_size
        if size > LARGEST_FILE:
            target.symlink_to(source.resolve())
            copied.linked.append(name)
            continue
        copied.files, copied.bytes = copied.files + 1, copied.bytes + size
        if copied.bytes > LARGEST_TREE:
            raise SweepError(
                f"the code in {tree.root} is more than {LARGEST_TREE >> 20} MiB, too much to be copied for a "
                f"sweep: put what is no code into its .gitignore ({_heaviest(tree)}, say), or use --live"
            )
        shutil.copyfile(source, target)
        executable = source.stat().st_mode & stat.S_IXUSR
        target.chmod(0o555 if executable else 0o444)
    return copied


def _copy_link(source: Path, target: Path, root: Path) -> None:
    there = source.readlink()
    leads_to = Path(os.path.normpath(source.parent / there))
    inside = not there.is_absolute() and leads_to.is_relative_to(root)
    target.symlink_to(there if inside else leads_to)


def _own_folders(search_path: Iterable[str]) -> Iterable[Path]:
    """The entries of a search path that are neither Python's own nor of installed packages."""
    paths = sysconfig.get_paths()
    foreign = {
        Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    }
    foreign |= {folder / "lib-dynload" for folder in foreign}
    for entry in search_path:
        folder = Path(entry or Path.cwd()).resolve()
        if folder.is_dir() and folder not in foreign and not set(_INSTALLED) & set(folder.parts):
            yield folder


def _files(root: Path, without: Path) -> list[str]:
    """What git tracks in a work tree or would track, submodules included."""
    tracked = _listed(root, "--cached")
    unknown = _listed(root, "--others", "--exclude-standard")
    left = [str(PurePosixPath(name).parent) for name in unknown if PurePosixPath(name).name in _LEFT_BEHIND]
    if without.is_relative_to(root):
        left.append(without.relative_to(root).as_posix())
    unknown = [name for name in unknown if not any(name.startswith(f"{folder}/") for folder in left)]
    files: list[str] = []
    for name in sorted({*tracked, *unknown}):
        path = root / name
        if path.is_symlink() or path.is_file():
            files.append(name)
        elif name in tracked and path.is_dir() and (path / ".git").exists():  # a submodule
            files += [f"{name}/{inner}" for inner in _files(path, without)]
    return files


def _listed(root: Path, *kind: str) -> list[str]:
    answer = ask_git(root, "ls-files", "-z", *kind)
    return [os.fsdecode(name) for name in (answer or b"").split(b"\0") if name]


def _holds(tree: Tree, package: Path) -> bool:
    """Whether the package is part of the tree: an environment inside somebody's repository is not."""
    if not package.is_relative_to(tree.root):
        return False
    return f"{package.relative_to(tree.root).as_posix()}/__init__.py" in tree.files


def _installed(package: Path) -> Tree:
    """The package as it was installed or unpacked, with what belongs to it."""
    beside = [package.parent / name for name in _BESIDE_THE_PACKAGE if not (package / name).is_dir()]
    files = [
        path.relative_to(package.parent).as_posix()
        for folder in [package, *beside]
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return Tree(package.parent, tuple(sorted(files)), (".",))


def _heaviest(tree: Tree) -> str:
    """The folder or file at the tree's top that holds most."""
    sizes: dict[str, int] = {}
    for name in tree.files:
        top = name.split("/")[0]
        sizes[top] = sizes.get(top, 0) + (tree.root / name).lstat().st_size
    return max(sizes, key=sizes.__getitem__)
