"""What produced a run: the code's commit, the hardware and the versions. Facts about the program, never the
environment's variables, which may hold secrets.

Imports neither torch nor Lightning; a GPU's name is looked up only where torch is loaded already.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bbi_lightning

_PACKAGE = Path(bbi_lightning.__file__).resolve().parent
SNAPSHOT_FACTS = "code.json"
"""The file at the top of a copy of the code that says where it came from: a copy is under no git."""

_SNAPSHOT_DEPTH = 4  # so far down a package may be: <snapshot>/.trees/<tree>/src/<package>
_GIT_TIMEOUT = 30.0  # seconds; a slow network file system should not hold up a run for longer


@dataclass(frozen=True)
class CodeFacts:
    """The commit of the repository that holds a package.

    Attributes:
        commit: full hash; None where the package is not under git (its version tells then).
        dirty: whether a tracked file of the repository differs from the commit, or the package or `configs/`
            beside it hold files that git does not know.
        diff_sha256: hex digest of those differences, None when there are none. Equal digests mean equal code.
    """

    commit: str | None
    dirty: bool
    diff_sha256: str | None


def code_facts(package: Path = _PACKAGE) -> CodeFacts:
    """The state of the code in the folder `package`; no git, or a package git does not track: no commit."""
    nothing = CodeFacts(commit=None, dirty=False, diff_sha256=None)
    recorded = _facts_of_snapshot(package)
    if recorded is not None:
        return recorded
    # An environment inside somebody's repository is not that repository's code, so "inside" is not enough.
    if not package.is_dir() or not ask_git(package, "ls-files", "--", "__init__.py"):
        return nothing
    head = ask_git(package, "rev-parse", "HEAD")
    if not head:  # a repository without commits
        return nothing
    difference = ask_git(package, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv")
    names = ask_git(package, "ls-files", "-z", "--others", "--exclude-standard", "--", ".", "../configs")
    unknown = sorted(name for name in (names or b"").split(b"\0") if name)
    if not difference and not unknown:
        return CodeFacts(head.decode().strip(), dirty=False, diff_sha256=None)

    digest = hashlib.sha256(difference or b"")
    for name in unknown:
        file = package / os.fsdecode(name)
        content = file.read_bytes() if file.is_file() else b""
        digest.update(name + b"\0" + hashlib.sha256(content).digest())
    return CodeFacts(head.decode().strip(), dirty=True, diff_sha256=digest.hexdigest())


def _facts_of_snapshot(package: Path) -> CodeFacts | None:
    """What was the state of the code when a sweep took the snapshot that `package` is in, if it is in one."""
    for folder in list(package.parents)[:_SNAPSHOT_DEPTH]:
        try:
            facts = json.loads((folder / SNAPSHOT_FACTS).read_text(encoding="utf-8"))
            return CodeFacts(**{key: facts[key] for key in ("commit", "dirty", "diff_sha256")})
        except (OSError, ValueError, LookupError, TypeError):
            continue  # there is none, or it is somebody else's file
    return None


def ask_git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints when asked in `folder`; None where it is missing, fails or takes too long."""
    # A hook of another repository sets GIT_DIR and its like; they must not point us there.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # reading must not disturb the user's own git
    # safe.directory: this folder's code runs already, whoever owns it (in containers often another user)
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, timeout=_GIT_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout


def hardware_facts() -> dict[str, Any]:
    """The machine: {"cpu": model, "threads": logical CPUs this process may use, "gpus": [names]}.

    `gpus` is empty unless torch is loaded already and sees CUDA devices.
    """
    return {"cpu": _cpu_model(), "threads": _usable_threads(), "gpus": _gpu_names()}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _usable_threads() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what the scheduler gave us, not what the node has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def version_facts() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, read without importing them."""
    versions = {"python": platform.python_version(), "bbi_lightning": bbi_lightning.__version__}
    for package in ("torch", "pytorch_lightning"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
