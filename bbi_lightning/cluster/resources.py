"""What a job asks the cluster for. The number of tasks is derived here and nowhere else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bbi_lightning.cluster.durations import seconds_of
from bbi_lightning.cluster.errors import ClusterError, unknown

_MEMORY = re.compile(r"\d+[KMGT]?")
_WORD = re.compile(r"[^\s'\"`$;&|<>()\\]+")  # what may stand behind #SBATCH --option= as it is


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job asks for.

    Attributes:
        nodes: machines, ≥ 1.
        devices: processes on each node that train together, ≥ 1.
        gpus: GPUs on each node, ≥ 0.
        cpus: cores of each process, ≥ 1; None: the cluster's default.
        memory: of each node, SLURM's way ("64G"); None: the cluster's default.
        time: longest time of one attempt, "4:00:00" or "1-00:00:00"; None: the partition's default.
        partition, account, qos, constraint, reservation, exclude: as sbatch takes them.
        container: an image to run in; the site says by which runtime.
        asked: names that were asked for by name; a site's defaults do not replace them, whatever their value.
    """

    nodes: int = 1
    devices: int = 1
    gpus: int = 0
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = None
    container: str | None = None
    asked: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("devices", 1), ("gpus", 0), ("cpus", 1)):
            value = getattr(self, name)
            if value is None and name == "cpus":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ClusterError(f"{name}={value} must be a whole number, {least} or more")
        if self.gpus and self.devices > self.gpus:
            raise ClusterError(
                f"devices={self.devices} processes cannot share gpus={self.gpus} on a node: make them equal"
            )
        if self.memory is not None and not _MEMORY.fullmatch(str(self.memory)):
            raise ClusterError(f"memory={self.memory} is not a size: write it as 64G or 4000M")
        if isinstance(
            self.time, int
        ):  # YAML reads 4:00:00 as a number of base 60, and SLURM a number as minutes
            raise ClusterError(f"time={self.time} is a bare number: put it in quotes, time: '4:00:00'")
        if self.time is not None and seconds_of(str(self.time)) is None:
            raise ClusterError(f"time={self.time} is not a duration: write it as 4:00:00 or 1-00:00:00")
        for name in ("partition", "account", "qos", "constraint", "reservation", "exclude", "container"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and _WORD.fullmatch(value)):
                raise ClusterError(f"{name}={value} must be one word that SLURM knows")

    @property
    def tasks(self) -> int:
        """Processes of the whole job."""
        return self.nodes * self.devices

    @property
    def seconds(self) -> float | None:
        """`time` in seconds."""
        return None if self.time is None else seconds_of(str(self.time))

    @classmethod
    def keys(cls) -> list[str]:
        """What may be asked for."""
        return [field.name for field in dataclasses.fields(cls) if field.name != "asked"]

    @classmethod
    def read(cls, data: Mapping[str, Any], where: str = "cluster") -> Resources:
        """Resources from plain values; nulls count as absent.

        Raises:
            ClusterError: an unknown key (with the known ones) or a wrong value.
        """
        known = cls.keys()
        for key in data:
            if key not in known:
                raise unknown(f"{where}:", str(key), known)
        try:
            said = {key: value for key, value in data.items() if value is not None}
            return cls(**said, asked=frozenset(said))
        except ClusterError as error:
            raise ClusterError(f"{where}: {error}") from None

    def over(self, defaults: Mapping[str, Any]) -> Resources:
        """These, with a site's defaults where nothing was asked for."""
        standard = Resources()
        asked = {
            name: value
            for name in self.keys()
            if (value := getattr(self, name)) != getattr(standard, name) or name in self.asked
        }
        return Resources.read({**defaults, **asked})
