"""A cluster's habits, written down once in `slurm/sites/<name>.yaml`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

import bbi_lightning
from bbi_lightning.cluster.errors import ClusterError, unknown
from bbi_lightning.cluster.resources import Resources

_REQUEUE = ("requeue", "resubmit", "never")
_GPUS = ("gpus-per-node", "gres")
_LOCKS = ("auto", "flock", "symlink")


@dataclass(frozen=True, kw_only=True)
class Site:
    """How one cluster wants its jobs.

    Attributes:
        name: the profile's name.
        description: one line for people.
        defaults: what a job asks for unless the user says otherwise; keys of `Resources`.
        gpus_as: how GPUs are asked for: gpus-per-node, or gres.
        gpu_type: the cluster's name for its GPUs ("a100"); None: any.
        setup: shell lines before the work: modules, an environment.
        environment: variables of the job.
        scratch: a folder on the node's own disk, may name variables; None: the system's.
        sbatch: further options of sbatch, such as --licenses=x.
        srun: further options of srun.
        requeue: how a job goes on after an interruption: requeue (scontrol), resubmit (sbatch again, where
            requeueing is forbidden), or never.
        max_restarts: how often a job may go on, ≥ 0.
        max_crashes: after how many crashes it gives up, ≥ 1.
        crash_pause: seconds before it goes on after a crash, ≥ 0; doubled each time.
        bad_node_after: crashes on one node after which it is avoided, ≥ 1.
        notice: seconds before the time limit at which the job is told, ≥ 0; 0: not at all.
        max_jobs: jobs of one sweep at a time, ≥ 1.
        lock: how the shared folder is locked: auto, flock or symlink.
        container: the command in front of the work, with {image}; None: containers are not offered.
    """

    name: str = "generic"
    description: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    gpus_as: str = "gpus-per-node"
    gpu_type: str | None = None
    setup: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    scratch: str | None = None
    sbatch: tuple[str, ...] = ()
    srun: tuple[str, ...] = ()
    requeue: str = "requeue"
    max_restarts: int = 100
    max_crashes: int = 3
    crash_pause: int = 30
    bad_node_after: int = 2
    notice: int = 120
    max_jobs: int = 64
    lock: Literal["auto", "flock", "symlink"] = "auto"
    container: str | None = None

    def __post_init__(self) -> None:
        Resources.read(self.defaults, where="defaults")
        for name, allowed in (("requeue", _REQUEUE), ("gpus_as", _GPUS), ("lock", _LOCKS)):
            if getattr(self, name) not in allowed:
                raise unknown(f"{name}:", str(getattr(self, name)), allowed)
        least = {"max_restarts": 0, "crash_pause": 0, "notice": 0}
        for name in (*least, "max_crashes", "bad_node_after", "max_jobs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least.get(name, 1):
                raise ClusterError(f"{name}={value} must be a whole number, {least.get(name, 1)} or more")
        for option in (*self.sbatch, *self.srun):
            if not option.startswith("-") or "\n" in option:
                raise ClusterError(f"{option} is no option: write it as --name=value")
        if self.container is not None and "{image}" not in self.container:
            raise ClusterError(f"container={self.container} has no {{image}}: say where the image goes")

    @classmethod
    def read(cls, data: Mapping[str, Any], name: str) -> Site:
        """A profile from plain values.

        Raises:
            ClusterError: an unknown key (with the known ones) or a wrong value.
        """
        known = [f.name for f in dataclasses.fields(cls) if f.name != "name"]
        for key in data:
            if key not in known:
                raise unknown(f"site {name}:", str(key), known)
        values: dict[str, Any] = {}
        for key, value in data.items():
            if value is None:
                continue
            if key in ("setup", "sbatch", "srun"):
                value = _lines(name, key, value)
            elif key in ("defaults", "environment") and not isinstance(value, Mapping):
                raise ClusterError(f"site {name}: {key}={value} must be a mapping")
            values[key] = value
        try:
            return cls(name=name, **values)
        except ClusterError as error:
            raise ClusterError(f"site {name}: {error}") from None


def template_folder() -> Path:
    """`slurm/`: inside the package where a wheel put it, beside the package in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(bbi_lightning.__file__).resolve().parent
    for folder in (package / "slurm", package.parent / "slurm"):
        if (folder / "sites").is_dir():
            return folder
    raise FileNotFoundError(f"slurm/ is neither in {package} nor beside it: install bbi_lightning again")


def known_sites() -> tuple[str, ...]:
    """The names of the shipped profiles."""
    return tuple(sorted(file.stem for file in (template_folder() / "sites").glob("*.yaml")))


def load_site(name: str = "generic") -> Site:
    """The profile of this name, or in this file.

    Raises:
        ClusterError: there is none, or it is wrong; one sentence.
    """
    file = Path(name)
    if file.suffix not in (".yaml", ".yml"):
        file = template_folder() / "sites" / f"{name}.yaml"
    if not file.is_file():
        raise unknown("site", name, (*known_sites(), "or a file of your own, mine.yaml"))
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClusterError(f"site {file} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping):
        raise ClusterError(f"site {file} must be a mapping of keys to values")
    return Site.read(data, file.stem)


def _lines(name: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(line, str) for line in value):
        raise ClusterError(f"site {name}: {key}={value} must be a list of texts")
    return tuple(value)
