"""`bbi submit`: one training as a job of the cluster, on one GPU or on many nodes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bbi_lightning.cluster import Job, Resources

HELP = """
Train one network on the cluster: queue its job, and return at once.

[bold]Examples[/bold]

  [dim]# one GPU[/dim]
  bbi submit data=cifar10 model=cifar_resnet18 cluster.gpus=1 cluster.time=4:00:00

  [dim]# four nodes with eight GPUs each: 32 processes, one a GPU[/dim]
  bbi submit data=imagenet model=resnet50 cluster.nodes=4 cluster.gpus=8 cluster.time=1-00:00:00

  [dim]# parameters and momenta in shards[/dim]
  bbi submit data=imagenet model=vit_b cluster.gpus=8 runtime.strategy=fsdp

  [dim]# read the script first[/dim]
  bbi submit data=imagenet model=resnet50 cluster.gpus=8 --print

[bold]How it goes on[/bold]

  Preempted, out of time, or after a lost node or process, the job is requeued
  and goes on from its newest checkpoint, as if it had never stopped. The same
  command again queues nothing while its job is there, and a new job if it is
  gone before the run has its result. scancel JOB is final.

  The job runs a copy of the code, made now (--live: the checkout). Its script,
  outputs and copy are in RUNS/.slurm/RUN/.

[bold]What it asks for: cluster.KEY=VALUE[/bold]

  site        a profile of slurm/sites, or a file: what holds on your cluster
  nodes, gpus, devices    machines; GPUs of each; processes on each, one a GPU
              unless there is none (runtime.devices and num_nodes follow)
  cpus, memory, time, partition, account, qos, constraint, reservation,
  exclude, container      as SLURM takes them

  Exit codes: 0 queued, or nothing to do; 2 a mistake, or SLURM refused.
"""

_DERIVED = {"runtime.devices": "cluster.devices", "runtime.num_nodes": "cluster.nodes"}


def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE cluster.KEY=VALUE",
            help="What differs from the defaults, and what the job asks for.",
        ),
    ],
    live: Annotated[bool, typer.Option("--live", help="Run the checkout, not a copy of it.")] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the script; queue nothing.")] = False,
) -> None:
    """Train one network on the cluster."""
    from bbi_lightning.cli.cluster_words import own_keys, taken_apart
    from bbi_lightning.cli.sweep.asking import mistakes_in_a_sentence
    from bbi_lightning.cluster import Resources, Slurm, load_site, render
    from bbi_lightning.sweeps import snapshot
    from bbi_lightning.sweeps.journal import locked
    from bbi_lightning.tracking.durable import write_atomically
    from bbi_lightning.tracking.run_folder import RunFolder

    with mistakes_in_a_sentence():
        overrides, asked = taken_apart(words)
        site = load_site(str(own_keys(asked, ("site",)).get("site", "generic")))
        resources = _one_process_a_gpu(Resources.read(asked).over(site.defaults))
        config, name = _composed(overrides, resources)
        root = Path(str(config.runtime.root)).resolve()
        folder = root / ".slurm" / name
        job = _job(folder, root, name, overrides, resources)
        if only_print:
            print(render(job, site), end="")
            return
        if (run := RunFolder(root / name)).exists and run.record.is_result:
            typer.echo(f"run {name} has {run.record.state} already: {run.path}")
            return
        slurm = Slurm()
        slurm.config()  # before there is a folder: is there a cluster at all?
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "submit", site.lock):
            living = [there for there in slurm.queue(job.name) if there.lives]
            if living:
                typer.echo(
                    f"its job is there already: {living[0].id} ({living[0].state}); nothing new was queued"
                )
                return
            code = snapshot.take(folder / "code", live=live)
            script = folder / "job.sh"
            text = render(dataclasses.replace(job, environment=code.environment), site)
            write_atomically(script, text.encode())
            queued = slurm.sbatch(script)
    typer.echo(f"Queued job {queued}: run {name}")
    typer.echo(f"Its output: {folder / f'{queued}.log'}")
    typer.echo(f"Its checkpoints, once there are any: bbi checkpoints {root / name}")


def _one_process_a_gpu(resources: Resources) -> Resources:
    if resources.gpus and resources.devices == 1:
        return dataclasses.replace(resources, devices=resources.gpus)
    return resources


def _composed(overrides: Sequence[str], resources: Resources) -> tuple[DictConfig, str]:
    """The run's config, checked, and its name."""
    from bbi_lightning.cluster import ClusterError
    from bbi_lightning.training.composition import compose

    for word in overrides:
        key = word.lstrip("+").partition("=")[0]
        if key in _DERIVED:
            raise ClusterError(f"{word} follows from what the job asks for: say {_DERIVED[key]} instead")
    config = compose([*overrides, *_layout(resources)])

    from bbi_lightning.training.config import checked, run_name

    checked(config)
    return config, run_name(config)


def _layout(resources: Resources) -> list[str]:
    return [f"runtime.devices={resources.devices}", f"runtime.num_nodes={resources.nodes}"]


def _job(folder: Path, root: Path, name: str, overrides: Sequence[str], resources: Resources) -> Job:
    from bbi_lightning.cluster import Job
    from bbi_lightning.sweeps.snapshot import program

    place = hashlib.sha256(str(root).encode()).hexdigest()[:6]
    words = [*program(), "train", *overrides, *_layout(resources)]
    quoted = str(root).replace("'", "\\'")
    return Job(
        name=f"bbi-{name}-{place}",
        title=f"Train {name}",
        command=(*words, f"runtime.root='{quoted}'"),
        resources=resources,
        folder=str(folder),
        workdir=str(Path.cwd()),
    )
