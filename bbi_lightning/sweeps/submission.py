"""A sweep on the cluster: as many jobs as are useful, each a worker; the queue says how many there are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bbi_lightning.cluster import ClusterError, Job, Resources, Site, Slurm, render
from bbi_lightning.cluster.chunks import array_chunks
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.journal import locked
from bbi_lightning.sweeps.snapshot import program
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.tracking.durable import write_atomically


@dataclass(frozen=True)
class Submission:
    """What a submission came to.

    Attributes:
        wanted: jobs that are useful for what is left to run.
        living: jobs that were there already.
        queued: jobs that were added.
        arrays: the ids of the arrays they are in.
        refusal: what SLURM said when it took no more; None: it took all.
    """

    wanted: int
    living: int
    queued: int
    arrays: tuple[str, ...]
    refusal: str | None = None


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        resources: of each job.
        slots: trials that a job runs at a time.
        jobs: jobs at a time; None: what the trials need, within the site's limit.
        memory: what one trial may hold ("4G"); None: whatever there is.
        environment: under which Python finds the sweep's code (see `snapshot`).
    """

    resources: Resources
    slots: int = 1
    jobs: int | None = None
    memory: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def job_name(folder: SweepFolder) -> str:
    """The name of all jobs of a sweep, unique to its folder: by it they are found in the queue."""
    place = hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:6]
    return f"bbi-{folder.path.name}-{place}"


def job_of(folder: SweepFolder, request: Request, count: int) -> Job:
    """The job array that works on a sweep."""
    words = [*program(), "sweep", "work", str(folder.path)]
    words += [f"--slots={request.slots}", *([f"--memory={request.memory}"] if request.memory else [])]
    return Job(
        name=job_name(folder),
        title=f"A worker of the sweep {folder.path.name}: it pulls trials until none is left",
        command=tuple(words),
        resources=request.resources,
        folder=str(folder.slurm),
        workdir=str(Path.cwd()),  # where data and the like are looked for, as by bbi sweep run
        array=f"0-{count - 1}",
        environment=request.environment,
    )


def submit(folder: SweepFolder, studies: Studies, site: Site, request: Request, slurm: Slurm) -> Submission:
    """Queue the jobs that are missing. Doing it twice, or twice at once, queues nothing new.

    Raises:
        ClusterError: SLURM took none of them.
    """
    folder.slurm.mkdir(parents=True, exist_ok=True)
    with locked(folder.slurm / "submit", studies.spec.lock):
        left = studies.left()
        useful = math.ceil(left / request.slots)
        wanted = min(useful, request.jobs or site.max_jobs)
        living = sum(job.lives for job in slurm.queue(job_name(folder)))
        missing = max(0, wanted - living)
        if not missing:
            return Submission(wanted, living, 0, ())
        script = folder.slurm / "job.sh"
        write_atomically(script, render(job_of(folder, request, missing), site).encode())
        arrays: list[str] = []
        queued = 0
        for indices in array_chunks(missing, slurm.max_array_size()):
            try:
                arrays.append(slurm.sbatch(script, array=indices))
            except ClusterError as error:
                if not arrays:
                    raise
                return Submission(wanted, living, queued, tuple(arrays), str(error))
            queued += int(indices.split("-")[-1]) + 1
        return Submission(wanted, living, queued, tuple(arrays))
