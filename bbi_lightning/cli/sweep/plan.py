"""`bbi sweep plan`: what a sweep would do and need, before anything runs."""

from __future__ import annotations

import json
import math
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.sweep.asking import SWEEPS, Dir, Json, counted, described, mistakes_in_a_sentence

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bbi_lightning.sweeps.config_check import Progress
    from bbi_lightning.sweeps.packing import Node, Packing
    from bbi_lightning.sweeps.plan import Plan
    from bbi_lightning.sweeps.probe import Measured

HELP = """
See what a sweep would do and need, before anything runs: nothing is queued, nothing is left behind.

[bold]Examples[/bold]

  [dim]# every trial's config checked, one trial of each arm measured[/dim]
  bbi sweep plan sweep=digits_showdown

  [dim]# on a cluster: how many jobs, how many trials in each[/dim]
  bbi sweep plan sweep=digits_showdown cluster.cpus=8 cluster.memory=32G

  [dim]# what if: twice the trials, four jobs of six at a time[/dim]
  bbi sweep plan sweep=digits_showdown sweep.search.trials=32 \\
      cluster.jobs=4 cluster.slots=6

  [dim]# only the check, in seconds; or for a script[/dim]
  bbi sweep plan sweep=digits_showdown --no-probe
  bbi sweep plan sweep=digits_showdown --json | jq .core_hours

[bold]What the figures mean[/bold]

  The probe trains some steps of each arm's first trial here, validates and
  tests once: hours are this machine's. Memory is that of one trial beside
  others, which share the imports. cluster.KEY=VALUE are the words of
  bbi sweep submit.

  Exit codes: 0 it fits, 1 it does not (disk), 2 a mistake in the command,
  or in the config of some trial.
"""


def plan(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="sweep=NAME KEY=VALUE cluster.KEY=VALUE",
            help="Which sweep, what differs from it, and what its jobs would ask for.",
        ),
    ],
    threads: Annotated[int, typer.Option("--threads", min=1, help="Cores of a trial.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps that the probe times.")] = 50,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Measure nothing.")] = False,
    directory: Dir = SWEEPS,
    as_json: Json = False,
) -> None:
    """See what a sweep would do and need."""
    from rich.console import Console

    from bbi_lightning.cli.cluster_words import taken_apart
    from bbi_lightning.cli.sweep.task import task_named
    from bbi_lightning.sweeps import child
    from bbi_lightning.sweeps.packing import pack
    from bbi_lightning.sweeps.plan import make_plan
    from bbi_lightning.sweeps.probe import Probing

    console = Console()
    with mistakes_in_a_sentence():
        overrides, asked = taken_apart(words)
        place = _Place.read(asked)
        spec = described(overrides)
        task, probing = task_named(spec.task), Probing(0 if no_probe else steps, threads=threads)
        try:
            with _progress(Console(stderr=True)) as progress:
                made = make_plan(spec, task, directory, probing, progress)
        except KeyboardInterrupt:  # most likely in the seconds of the server's imports
            child.kill_server()
            raise typer.Exit(128 + signal.SIGINT) from None
        packing = pack(made, place.node, slots=place.slots, jobs=place.jobs, max_jobs=place.max_jobs)
        arrays = _arrays(packing.jobs) if place.is_cluster else []
    if as_json:
        print(json.dumps(made.plain() | {"packing": packing.plain(), "arrays": arrays}, indent=2))
    else:
        _show(console, made, packing, arrays, _next(words, packing, place.is_cluster))
    raise typer.Exit(0 if not made.disk_bytes > made.disk_free else 1)


@dataclass(frozen=True)
class _Place:
    """Where it would run: on this machine, or in the jobs of a cluster."""

    node: Node
    is_cluster: bool = False
    max_jobs: int = 1
    slots: int | None = None
    jobs: int | None = None

    @classmethod
    def read(cls, asked: dict[str, Any]) -> _Place:
        """What the `cluster.` words say. A job has what they or the site ask for, else what is here."""
        from bbi_lightning.cli.sweep.submit import requested
        from bbi_lightning.sweeps.memory import bytes_of
        from bbi_lightning.sweeps.packing import Node

        here = Node.here()
        if not asked:
            return cls(here)
        slots = asked.get("slots")
        site, request = requested(asked)
        resources = request.resources.over(site.defaults)
        text = resources.memory
        size = bytes_of(f"{text}M" if text.isdigit() else text) if text else here.memory  # as SLURM reads it
        node = Node(resources.cpus or here.cores, size, resources.gpus)
        return cls(node, True, site.max_jobs, slots, request.jobs)


def _arrays(jobs: int) -> list[str]:
    """The arrays that so many jobs are queued as."""
    from bbi_lightning.cluster import ClusterError, Slurm
    from bbi_lightning.cluster.chunks import array_chunks

    limit = None
    if Slurm.is_here():
        try:
            limit = Slurm().max_array_size()
        except ClusterError:  # the controller is away: planning goes on
            limit = None
    return array_chunks(jobs, limit)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A bar with an ETA on a terminal; elsewhere nothing, it takes a minute at most."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def _show(
    console: Console,
    plan: Plan,
    packing: Packing,
    arrays: Sequence[str],
    command: str,
) -> None:
    from rich.markup import escape

    console.print(f"\n[bold]{escape(plan.spec.title)}[/bold]", highlight=False)
    rate = f"{plan.checked:,} configurations checked in {_time(plan.check_s)}, all of them right"
    console.print(f"{plan.runs:,} runs · {rate}\n", highlight=False, style="dim")
    console.print(_table(plan))
    _bullets(console, "What is compared", plan.compared)
    _bullets(console, "What it needs", _needs(plan, packing, arrays))
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    console.print(f"\nNext: [bold]{escape(command)}[/bold]", highlight=False, soft_wrap=True)


def _next(words: Sequence[str], packing: Packing, is_cluster: bool) -> str:
    """The command that does it."""
    if not is_cluster:
        return f"bbi sweep run {shlex.join(words)} --workers {packing.slots}"
    given = [word for word in words if not word.startswith(("cluster.slots=", "cluster.jobs="))]
    return f"bbi sweep submit {shlex.join(given)} cluster.slots={packing.slots} cluster.jobs={packing.jobs}"


def _bullets(console: Console, title: str, sentences: Sequence[str]) -> None:
    from rich.padding import Padding

    console.print(f"\n[bold]{title}[/bold]")
    for sentence in sentences:
        console.print(Padding(sentence, (0, 0, 0, 2)), highlight=False, markup=False)


def _table(plan: Plan) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    measured = any(arm.measured for arm in plan.arms)
    figures = ("steps", "a step", "a run", "memory", "a run's disk", "in all") if measured else ("searched",)
    for title in ("runs", *figures):
        table.add_column(title, justify="right" if measured or title == "runs" else "left")
    for arm in plan.arms:
        runs = f"{arm.trials} + {arm.replicates}" if arm.replicates else str(arm.trials)
        if arm.measured:
            table.add_row(arm.label, runs, *_figures(arm.measured), _time(arm.seconds * plan.threads))
        else:
            table.add_row(arm.label, runs, ", ".join(arm.space))
    return table


def _figures(measured: Measured) -> list[str]:
    steps = "–" if math.isnan(measured.total_steps) else f"{round(measured.total_steps):,}"
    memory = _size(measured.own_bytes)
    if measured.gpu_bytes:
        memory += f" + {_size(measured.gpu_bytes)} GPU"
    return [steps, _time(measured.step_s), _time(measured.run_s), memory, _size(measured.disk_bytes)]


def _needs(plan: Plan, packing: Packing, arrays: Sequence[str]) -> list[str]:
    lines = []
    if not math.isnan(plan.seconds):
        work = f"{_time(plan.seconds * plan.threads)} of core time"
        if plan.needs_gpu:
            work += f", {_time(plan.seconds / packing.slots)} of GPU time"
        lines.append(f"{work} (measured on this machine)")
        lines.append(f"disk: {_size(plan.disk_bytes)} of the {_size(plan.disk_free)} that are free")
    else:
        lines.append("time and disk are not known: nothing was measured")
    where = "in each job" if arrays else "on this machine"
    lines.append(f"{counted(packing.slots, 'trial')} at a time {where} ({_reason(packing)})")
    if arrays:
        cut = f", queued as {len(arrays)} arrays: {', '.join(arrays)}" if len(arrays) > 1 else ""
        lines.append(f"{packing.jobs} {'job' if packing.jobs == 1 else 'jobs'} at a time{cut}")
    if not math.isnan(packing.seconds):
        when = ", once all jobs run" if arrays else ""
        lines.append(f"about {_time(packing.seconds)} from the first trial to the last result{when}")
    return lines


def _reason(packing: Packing) -> str:
    return packing.limited_by if packing.limited_by == "asked for" else f"{packing.limited_by} allow no more"


def _time(seconds: float) -> str:
    """Seconds for people: 3.1 ms, 12 s, 4 min, 2.5 h."""
    if math.isnan(seconds):
        return "–"
    for limit, unit, scale in ((0.1, "ms", 1e-3), (100.0, "s", 1.0), (6000.0, "min", 60.0)):
        if seconds < limit:
            return (
                f"{seconds / scale:.2g} {unit}" if seconds / scale < 10 else f"{seconds / scale:.0f} {unit}"
            )
    return f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    from bbi_lightning.sweeps.memory import size

    return "–" if math.isnan(count) else size(count)
