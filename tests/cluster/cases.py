"""One job of every kind, and the batch script it must become. To write the scripts anew after a change of the
templates, and then read the difference: python tests/cluster/cases.py"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bbi_lightning.cluster import Job, Resources, Site, load_site, render

GOLDEN = Path(__file__).parent / "golden"

WORKER = Job(
    name="bbi-sweep-digits-1f2e3d",
    title="A worker of the sweep digits",
    command=("/env/bin/python", "-m", "bbi_lightning.cli", "sweep", "work", "/shared/sweeps/digits"),
    resources=Resources(cpus=4),
    folder="/shared/sweeps/digits/slurm",
    workdir="/shared",
    array="0-9",
    environment={"PYTHONPATH": "/shared/sweeps/digits/code"},
)
TRAIN = Job(
    name="bbi-imagenet-resnet50-bbi-0c1d2e3f4a-s0",
    title="Train imagenet-resnet50-bbi-0c1d2e3f4a-s0",
    command=(
        *("/env/bin/python", "-m", "bbi_lightning.cli", "train", "data=imagenet", "model=resnet50"),
        *("runtime.devices=1", "runtime.num_nodes=1", "runtime.root=/shared/runs", "data.root='/data/it''s'"),
    ),
    resources=Resources(gpus=1, cpus=8, memory="64G", time="4:00:00"),
    folder="/shared/runs/.slurm/imagenet-resnet50-bbi-0c1d2e3f4a-s0",
    workdir="/home/user/study",
)


def _train(**resources: object) -> Job:
    return dataclasses.replace(TRAIN, resources=dataclasses.replace(TRAIN.resources, **resources))


def _worker(*words: str, **resources: object) -> Job:
    command = (*WORKER.command, *words)
    return dataclasses.replace(
        WORKER, command=command, resources=dataclasses.replace(WORKER.resources, **resources)
    )


def cases() -> dict[str, tuple[Job, Site]]:
    """What each golden file shows."""
    generic = load_site("generic")
    return {
        "one_gpu": (TRAIN, generic),
        "one_node_many_gpus": (_train(gpus=8, devices=8), load_site("preemptable_gpus")),
        "many_nodes": (_train(nodes=4, gpus=8, devices=8), generic),
        "array": (WORKER, generic),
        "packed": (_worker("--slots=8", gpus=1, cpus=16, time="12:00:00"), generic),
        "cpu_only": (dataclasses.replace(WORKER, array=None, resources=Resources(memory="8G")), generic),
        "container": (_train(container="/images/bbi.sif"), load_site("short_queue_containers")),
    }


if __name__ == "__main__":
    for name, (job, site) in cases().items():
        (GOLDEN / f"{name}.sh").write_text(render(job, site))
