"""A job: what is run with which resources, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bbi_lightning.cluster.errors import ClusterError
from bbi_lightning.cluster.resources import Resources

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What `render` makes a batch script of.

    Attributes:
        name: the job's name in the queue; unique for what it works on, so that it is found there again.
        title: what it does, for whoever reads the script.
        command: the words of the work, run by srun once for every process.
        resources: what it asks for.
        folder: an absolute folder for the script, its outputs and its history of crashes.
        workdir: the absolute folder it runs in.
        array: the indices of an array, such as 0-9; None: a single job.
        environment: variables of the work, beside the site's.
    """

    name: str
    title: str
    command: tuple[str, ...]
    resources: Resources
    folder: str
    workdir: str
    array: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(f"the job's name {self.name} must be letters, digits, '-', '_' or '.'")
        if "\n" in self.title:
            raise ClusterError(f"the job's title {self.title!r} must be one line")
        if not self.command:
            raise ClusterError(f"the job {self.name} has no command")
        for what, path in (("folder", self.folder), ("workdir", self.workdir)):
            if not path.startswith("/") or "\n" in path:
                raise ClusterError(f"the job's {what} {path} must be an absolute path")
            if "%" in path:  # SLURM's own pattern character in names of outputs
                raise ClusterError(f"the job's {what} {path} has a % in it, which SLURM reads as a pattern")

    @property
    def output(self) -> str:
        """The pattern of its outputs' names: `<job>.log`, of an array `<job>_<index>.log`."""
        return f"{self.folder}/{'%A_%a' if self.array else '%j'}.log"
