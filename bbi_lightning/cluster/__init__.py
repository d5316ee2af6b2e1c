"""The cluster: what a job asks for, the script that runs it, SLURM's answers. Knows nothing of training."""

from bbi_lightning.cluster.errors import ClusterError
from bbi_lightning.cluster.job import Job
from bbi_lightning.cluster.rendering import render
from bbi_lightning.cluster.resources import Resources
from bbi_lightning.cluster.site import Site, known_sites, load_site
from bbi_lightning.cluster.slurm import QueuedJob, Slurm

__all__ = [
    "ClusterError",
    "Job",
    "QueuedJob",
    "Resources",
    "Site",
    "Slurm",
    "known_sites",
    "load_site",
    "render",
]
