"""`bbi sweep submit`: a sweep on the cluster."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.sweep.asking import (
    SWEEPS,
    Dir,
    as_typed,
    counted,
    described,
    mistakes_in_a_sentence,
)

if TYPE_CHECKING:
    from bbi_lightning.cluster import Site
    from bbi_lightning.sweeps.submission import Request, Submission

HELP = """
Run a sweep on the cluster: queue the jobs it needs, and return at once.

[bold]Examples[/bold]

  [dim]# one GPU a job, four hours each; as many jobs as there are trials, at most 64[/dim]
  bbi sweep submit sweep=digits_showdown cluster.gpus=1 cluster.time=4:00:00

  [dim]# small trials: eight share a GPU; ten jobs[/dim]
  bbi sweep submit sweep=digits_showdown cluster.gpus=1 cluster.cpus=8 \\
      cluster.slots=8 cluster.jobs=10

  [dim]# a cluster described once, in a file of your own[/dim]
  bbi sweep submit sweep=digits_showdown cluster.site=my_cluster.yaml

  [dim]# read the script first[/dim]
  bbi sweep submit sweep=digits_showdown cluster.gpus=1 --print

[bold]What jobs ask for: cluster.KEY=VALUE[/bold]

  site           a profile of slurm/sites, or a file: what holds on your cluster
  jobs, slots    jobs at a time (else as many as there are trials, within the
                 site's max_jobs); trials at a time in each
  trial_memory   what one trial may hold, such as 4G; beyond, it fails
  gpus, cpus, memory, time, partition, account, qos, constraint, reservation,
  exclude, container    as SLURM takes them

[bold]How it goes on[/bold]

  Each job is a worker that pulls trials until none is left. Preempted or out
  of time, it saves, is requeued, and goes on with its own trials. The same
  command again queues only what is missing: nothing, if all is well.

  The jobs run a copy of the code, made now: edit the checkout as you like
  (--live runs the checkout). bbi sweep status NAME shows how it goes.

  Exit codes: 0 queued, or nothing to do; 2 a mistake, or SLURM refused.
"""


def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="sweep=NAME KEY=VALUE cluster.KEY=VALUE",
            help="Which sweep, what differs from it, and what its jobs ask for.",
        ),
    ],
    directory: Dir = SWEEPS,
    live: Annotated[bool, typer.Option("--live", help="Run the checkout, not a copy of it.")] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the script; queue nothing.")] = False,
) -> None:
    """Run a sweep on the cluster."""
    from rich.console import Console

    from bbi_lightning.cli.cluster_words import taken_apart
    from bbi_lightning.cli.sweep.task import task_named
    from bbi_lightning.cluster import Slurm, render
    from bbi_lightning.sweeps import snapshot
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.live import display
    from bbi_lightning.sweeps.run import prepare
    from bbi_lightning.sweeps.submission import job_of
    from bbi_lightning.sweeps.submission import submit as submit_jobs

    console = Console()
    with mistakes_in_a_sentence():
        overrides, asked = taken_apart(words)
        spec = described(overrides)
        site, request = requested(asked)
        if only_print:
            folder = SweepFolder(directory.resolve() / spec.name)
            print(render(job_of(folder, request, request.jobs or 1), site), end="")
            return
        slurm = Slurm()
        slurm.config()  # before there is a folder: is there a cluster at all?
        spec = dataclasses.replace(spec, lock=site.lock) if site.lock != "auto" else spec
        folder, studies = prepare(spec, directory, task_named(spec.task), display(console))
        code = snapshot.take(folder.code, live=live)
        request = dataclasses.replace(request, environment=code.environment)
        made = submit_jobs(folder, studies, site, request, slurm)
    for line in _in_words(made, as_typed(spec.name, directory)):
        console.print(line, highlight=False, soft_wrap=True)


def requested(asked: dict[str, Any]) -> tuple[Site, Request]:
    """What `cluster.KEY=VALUE` words come to."""
    from bbi_lightning.cli.cluster_words import own_keys
    from bbi_lightning.cluster import ClusterError, Resources, load_site
    from bbi_lightning.sweeps.memory import bytes_of
    from bbi_lightning.sweeps.submission import Request

    own = own_keys(asked, ("site", "jobs", "slots", "trial_memory"))
    for key in ("jobs", "slots"):
        value = own.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ClusterError(f"cluster.{key}={value} must be a whole number, 1 or more")
    memory = own.get("trial_memory")
    if memory is not None:
        bytes_of(str(memory))
    resources = Resources.read(asked)
    if resources.tasks > 1:
        raise ClusterError(
            f"cluster.nodes={resources.nodes} and cluster.devices={resources.devices}: a sweep's job is one "
            "process on one node; use cluster.jobs for more of them, cluster.slots for more trials in each"
        )
    site = load_site(str(own.get("site", "generic")))
    return site, Request(resources, own.get("slots", 1), own.get("jobs"), memory and str(memory))


def _in_words(made: Submission, name: str) -> list[str]:
    if not made.wanted:
        return ["Nothing is left to run.", f"Next: [bold]bbi compare {name}[/bold]"]
    lines = []
    if made.queued:
        had = f", beside {made.living} that were there" if made.living else ""
        lines.append(f"Queued {counted(made.queued, 'job')}{had}: {', '.join(made.arrays)}")
    else:
        lines.append(f"{counted(made.living, 'job')} at work or in the queue already: nothing new was queued")
    if made.refusal:
        lines.append(f"[yellow]SLURM took no more ({made.refusal}); these do it all, only later[/yellow]")
    return [*lines, f"Next: [bold]bbi sweep status {name} --watch[/bold]"]
