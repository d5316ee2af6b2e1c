"""`bbi doctor`: will a sweep run well on this cluster?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from bbi_lightning.cluster.doctor import Finding, SweepNeeds

HELP = """
Say before anything is queued what this cluster will do to a sweep, and what to do about it.

[bold]Examples[/bold]

  bbi doctor
  bbi doctor digits_showdown         # also what this sweep needs: disk, data, W&B
  bbi doctor --site my_cluster.yaml --partition gpu
  bbi doctor --on-nodes              # also a probe of seconds on two nodes

  It looks at what preemption does and how soon, whether interrupted jobs go
  on, time limits, arrays and memory; at the shared folder's locks, renames,
  speed, clock and space; at GPUs, NCCL, W&B; and with --on-nodes at whether
  two nodes see the same code and folder, and whether locks reach across.
  Nothing is changed; on a machine without SLURM it looks at the rest.

  Exit codes: 0, 1 something will not work, 2 a mistake in the command.
"""

_WEIGHED = 20  # runs whose size is looked at
_STYLES = {
    "ok": ("✓", "green"),
    "note": ("·", "cyan"),
    "warning": ("!", "yellow"),
    "error": ("✗", "bold red"),
}


def doctor(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A sweep's name, or its folder.", show_default=False)
    ] = None,
    site: Annotated[str, typer.Option("--site", help="A profile of slurm/sites, or a file.")] = "generic",
    partition: Annotated[
        str | None, typer.Option("--partition", help="Where jobs go.", show_default=False)
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="The folder that holds all sweeps.")] = Path(
        "sweeps"
    ),
    on_nodes: Annotated[bool, typer.Option("--on-nodes", help="Start a probe on two nodes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Will a sweep run well here?"""
    from rich.console import Console

    from bbi_lightning.cli.sweep.asking import mistakes_in_a_sentence
    from bbi_lightning.cluster import load_site
    from bbi_lightning.cluster.doctor import examine, gather

    console = Console()
    with mistakes_in_a_sentence():
        profile = load_site(site)
        with console.status("looking") if console.is_terminal and not as_json else _silence():
            made = not directory.exists()
            facts = gather(directory, profile, partition, on_nodes=on_nodes)
            if sweep is not None:
                facts = dataclasses.replace(facts, sweep=_needs(directory, sweep))
            findings = examine(facts)
            if made and not any(directory.iterdir()):
                directory.rmdir()
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        console.print(_picture(findings))
    raise typer.Exit(1 if any(finding.level == "error" for finding in findings) else 0)


def _needs(directory: Path, name: str) -> SweepNeeds:
    """What a sweep needs, from its folder."""
    import yaml

    from bbi_lightning.cli.sweep.asking import find, opened
    from bbi_lightning.cluster.doctor import SweepNeeds

    folder = find(directory, name)
    configs = [yaml.safe_load(file.read_text()) for file in folder.configs.glob("*.yaml")]
    runs = [path for path in folder.runs.iterdir() if path.is_dir()] if folder.runs.is_dir() else []
    sizes = [sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) for run in runs[:_WEIGHED]]
    roots = {config["data"]["data_dir"] for config in configs if config["data"].get("data_dir")}
    return SweepNeeds(
        name=name,
        left=opened(folder).left(),
        bytes_a_run=sum(sizes) / len(sizes) if sizes else None,
        data=tuple(sorted(map(str, roots))),
        tracking=tuple(sorted({str(config["tracking"]["mode"]) for config in configs})),
        gpus=any(config["runtime"]["accelerator"] in ("gpu", "cuda") for config in configs),
    )


def _silence() -> AbstractContextManager[None]:
    import contextlib

    return contextlib.nullcontext()


def _picture(findings: Sequence[Finding]) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for finding in findings:
        sign, style = _STYLES[finding.level]
        says = Text(finding.says, style=style if finding.level in ("warning", "error") else "")
        if finding.remedy:
            says.append(f"\n→ {finding.remedy}", style="dim")
        grid.add_row(Text(sign, style=style), finding.about, says)
    return Padding(grid, (1, 0, 1, 2), expand=False)
