"""What there is: the cluster's configuration, this machine, the shared folder. Nothing is judged here."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bbi_lightning.cluster.errors import ClusterError
from bbi_lightning.cluster.site import Site
from bbi_lightning.cluster.slurm import Slurm, answer_of

_FSYNCS = 20
_ON_NODES = 120  # seconds that two nodes may take to be given and to answer


@dataclass(frozen=True)
class FolderFacts:
    """What a folder can do.

    Attributes:
        path: the folder.
        free: bytes.
        locks: whether flock keeps a second open file out; None: the file system has none.
        symlinks, renames: whether links can be made, and a rename replaces a folder's name at once.
        fsync_ms: median milliseconds of a small append with fsync.
        clock_s: seconds by which the file system's clock is ahead of this machine's.
        kind: the file system's name, such as ext4 or nfs4; empty if unknown.
    """

    path: str
    free: int
    locks: bool | None
    symlinks: bool
    renames: bool
    fsync_ms: float
    clock_s: float
    kind: str


@dataclass(frozen=True)
class SweepNeeds:
    """What a sweep that has been described needs.

    Attributes:
        name: its name.
        left: runs to come.
        bytes_a_run: size of a run's folder, from those there are; None before there is one.
        data: the folders its data are read from.
        tracking: how its runs are tracked: online, offline or none.
        gpus: whether its runs insist on a GPU.
    """

    name: str
    left: int
    bytes_a_run: float | None
    data: tuple[str, ...]
    tracking: tuple[str, ...]
    gpus: bool


@dataclass(frozen=True)
class Facts:
    """All that is looked at.

    Attributes:
        site: the profile of the cluster.
        config: `scontrol show config`; None: there is no SLURM here.
        partition: the partition that jobs go to; None: unknown or none.
        refusal: why SLURM did not answer.
        folder: of the sweeps.
        nodes: what each of two nodes said (see `node_probe`); None: they were not asked.
        nodes_refusal: why they could not be asked.
        python: version and path here.
        gpus: names of the GPUs torch sees here; None: torch was not asked.
        nccl: whether torch can use NCCL.
        wandb_key: whether a key for W&B was found. Never the key.
        sweep: the sweep in question; None: none was named.
    """

    site: Site
    config: Mapping[str, str] | None
    partition: Mapping[str, str] | None
    refusal: str | None
    folder: FolderFacts
    nodes: Sequence[Mapping[str, Any]] | None = None
    nodes_refusal: str | None = None
    python: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[str] | None = None
    nccl: bool = False
    wandb_key: bool = False
    sweep: SweepNeeds | None = None


def gather(folder: Path, site: Site, partition: str | None = None, *, on_nodes: bool = False) -> Facts:
    """Look at everything. Makes the folder if it is missing, and leaves nothing else behind.

    Args:
        folder: the folder of sweeps.
        site: the profile of the cluster.
        partition: where jobs go; the site's, or the cluster's default, if not given.
        on_nodes: also start a probe on two nodes: a job of a few seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: site.defaults.get(name) for name in ("partition", "account", "qos", "constraint")}
    wanted["partition"] = partition or wanted["partition"]
    config, chosen, refusal = _of_slurm(wanted["partition"])
    nodes, nodes_refusal = _of_nodes(folder, wanted) if on_nodes and config is not None else (None, None)
    gpus, nccl = _of_torch()
    return Facts(
        site=site,
        config=config,
        partition=chosen,
        refusal=refusal,
        folder=folder_facts(folder),
        nodes=nodes,
        nodes_refusal=nodes_refusal,
        python=python_facts(),
        gpus=gpus,
        nccl=nccl,
        wandb_key=_has_wandb_key(),
    )


def folder_facts(folder: Path) -> FolderFacts:
    """What a folder can do, tried out in a temporary folder inside it."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as name:
        place = Path(name)
        (place / "a").mkdir()
        try:
            (place / "a").rename(place / "b")
            renames = (place / "b").is_dir()
        except OSError:
            renames = False
        try:
            (place / "link").symlink_to(place / "b")
            symlinks = (place / "link").is_symlink()
        except OSError:
            symlinks = False
        times = []
        with (place / "log").open("ab") as file:
            for _ in range(_FSYNCS):
                began = time.perf_counter()
                file.write(b"x" * 200)
                file.flush()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - began)
        clock = (place / "log").stat().st_mtime - time.time()
        return FolderFacts(
            path=str(folder.resolve()),
            free=shutil.disk_usage(folder).free,
            locks=_locks(place / "lock"),
            symlinks=symlinks,
            renames=renames,
            fsync_ms=1e3 * sorted(times)[len(times) // 2],
            clock_s=clock,
            kind=_kind(folder),
        )


def python_facts() -> dict[str, str]:
    """Which Python this is, and which package it imports."""
    import bbi_lightning

    return {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "package": str(Path(bbi_lightning.__file__).resolve().parent),
        "version": bbi_lightning.__version__,
    }


def _locks(file: Path) -> bool | None:
    with file.open("w") as one, file.open("w") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _kind(folder: Path) -> str:
    """The file system of the longest mount point above the folder."""
    best, kind = "", ""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        point, name = line.split()[1:3]
        if Path(point) in (folder.resolve(), *folder.resolve().parents) and len(point) >= len(best):
            best, kind = point, name
    return kind


def _of_slurm(
    wanted: str | None,
) -> tuple[Mapping[str, str] | None, Mapping[str, str] | None, str | None]:
    if not Slurm.is_here():
        return None, None, None
    slurm = Slurm()
    try:
        config, partitions = slurm.config(), slurm.partitions()
    except ClusterError as error:
        at_home = "configuration source" in str(error)  # SLURM's programs, and no slurm.conf
        return None, None, None if at_home else str(error)
    by_name = {partition["PartitionName"]: partition for partition in partitions}
    default = next((p for p in partitions if p.get("Default") == "YES"), None)
    if wanted is not None and wanted not in by_name:
        raise ClusterError(f"partition={wanted} is unknown: this cluster has {', '.join(by_name)}")
    return config, by_name[wanted] if wanted is not None else default, None


def _of_nodes(
    folder: Path, wanted: Mapping[str, str | None]
) -> tuple[list[dict[str, Any]] | None, str | None]:
    where = [f"--{name}={value}" for name, value in wanted.items() if value]
    probe = [sys.executable, "-m", "bbi_lightning.cluster.doctor.node_probe", str(folder.resolve())]
    words = ["srun", "--quiet", "--nodes=2", "--ntasks-per-node=1", "--time=2", *where, *probe]
    try:
        answer = answer_of(*words, patience=_ON_NODES)
        return [json.loads(line) for line in answer.splitlines() if line.startswith("{")], None
    except (ClusterError, ValueError) as error:
        return None, str(error)


def _of_torch() -> tuple[list[str] | None, bool]:
    """In a process of its own: seconds of import, and a GPU that must not stay in use here."""
    program = (
        "import json, torch; n = torch.cuda.device_count(); "
        "print(json.dumps([[torch.cuda.get_device_name(i) for i in range(n)], "
        "torch.distributed.is_nccl_available()]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
        )
        gpus, nccl = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None, False
    return gpus, nccl


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        import netrc

        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
