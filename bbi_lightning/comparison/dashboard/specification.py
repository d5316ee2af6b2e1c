"""What a dashboard is before W&B has it: plain values, the same for every sweep but for its arms and metrics.

A `Dashboard` can be written down (`dashboard.json`), read by people (`report.md`), turned into objects of
wandb-workspaces (`views`), pushed, and checked; making one needs neither an account nor that package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

STEP, EPOCH, SAMPLES, TIME = "trainer/global_step", "epoch", "samples", "time"
AXIS_WORDS = {STEP: "optimizer steps", EPOCH: "epochs", SAMPLES: "training samples", TIME: "seconds"}

Kind = Literal["lines", "bars", "scatter", "parallel", "importance", "media", "text"]
Runs = Literal["replicates", "search", "all", "lost", "summary"]

JOB_TYPES: Mapping[Runs, tuple[str, ...]] = {
    "replicates": ("replicate",),
    "search": ("search",),
    "all": ("search", "replicate", "added"),
    "lost": ("search", "replicate", "added"),
    "summary": ("summary",),
}


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        kind: lines over an axis of training; bars and scatters over runs; parallel coordinates; W&B's
            parameter importance; media: our own pictures from the summary run; text: Markdown, for views.
        title: its heading.
        metrics: what is drawn: logged metrics; of "media" keys of pictures, of "parallel" the columns.
            A key that begins with "config:" is a config key, else it is a metric (a run's last value).
        x: the axis: of lines a key of `AXIS_WORDS`, of a scatter like a metric.
        by_arm: mean over the runs of each arm, with the standard error around it: W&B's, of a sample of runs.
        log_x, log_y: logarithmic axes.
        log_columns: of "parallel", the columns that are logarithmic.
        text: of "text".
    """

    kind: Kind
    title: str
    metrics: tuple[str, ...]
    x: str = STEP
    by_arm: bool = False
    log_x: bool = False
    log_y: bool = False
    log_columns: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report, and of the views whose runs it is about.

    Attributes:
        key: one word. title: its heading.
        text: how to read it, and what the numbers say; Markdown.
        panels: charts, by the runs they are of.
    """

    key: str
    title: str
    text: str
    panels: Mapping[Runs, tuple[Panel, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """A saved view of the project's workspace.

    Attributes:
        key: one word. title: what it is called in W&B.
        name: W&B's identifier of it, of one sweep always the same.
        runs: which runs it lists.
        by_arm: whether they are grouped.
        order_by: a metric, best first; "" for the newest first.
        descending: whether the largest is best.
        columns: pinned in the table of runs, as W&B names them.
        sections: the titles, with their charts.
    """

    key: str
    title: str
    name: str
    runs: Runs
    by_arm: bool
    order_by: str
    descending: bool
    columns: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Panel, ...]], ...]


@dataclass(frozen=True)
class ArmLook:
    """An arm as W&B shows it: its value of the config key "arm", its label and its colour on every page."""

    name: str
    label: str
    colour: str
    group: str


@dataclass(frozen=True)
class Dashboard:
    """Everything that W&B is to show of a sweep.

    Attributes:
        entity: W&B user or team; None is the account's default.
        project: W&B project.
        sweep: the sweep's name. title: a heading.
        arms: the contestants.
        summary_run: id of the run with our numbers. digest: of its contents.
        mark: in the description of the report, by which it is found again.
        sections: of the report.
        views: saved views of the workspace.
        colours: of runs, by id: their arm's.
    """

    entity: str | None
    project: str
    sweep: str
    title: str
    arms: tuple[ArmLook, ...]
    summary_run: str
    digest: str
    mark: str
    sections: tuple[Section, ...]
    views: tuple[View, ...]
    colours: Mapping[str, str] = field(repr=False)

    @property
    def groups(self) -> tuple[str, ...]:
        """The W&B groups of its runs."""
        return tuple(arm.group for arm in self.arms)

    def conditions(self, runs: Runs) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Which runs these are: every attribute of a run (as W&B names it) with the values it may have.

        Only attributes of runs, no config keys: W&B spells those differently in filters, groups and charts.
        """
        groups = (self.sweep,) if runs == "summary" else self.groups
        conditions = [("Group", groups), ("JobType", JOB_TYPES[runs])]
        if runs == "lost":
            conditions.append(("State", ("failed", "crashed", "killed", "preempted")))
        return tuple(conditions)

    def to_json(self) -> str:
        """All of it, for `dashboard.json`."""
        plain = asdict(self)
        plain["conditions"] = {runs: dict(self.conditions(runs)) for runs in JOB_TYPES}
        return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def derived_name(*parts: str) -> str:
    """Eleven letters and digits, as W&B's names have, that are always the same for the same parts."""
    number = int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest(), "big")
    letters = ""
    while len(letters) < 11:
        number, digit = divmod(number, 36)
        letters += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    return letters


def view_name(sweep: str, key: str) -> str:
    """W&B's identifier of a saved view of a sweep."""
    return f"nw-{derived_name(sweep, key)}-v"


def report_mark(sweep: str) -> str:
    """What the description of a sweep's report ends with, in every version of it."""
    return f"[bbi dashboard {derived_name(sweep, 'report')}]"


def panels_of(sections: Sequence[Section], runs: Runs) -> tuple[tuple[str, tuple[Panel, ...]], ...]:
    """The charts of some runs, under their sections' titles; sections without any are left out."""
    return tuple((s.title, s.panels[runs]) for s in sections if s.panels.get(runs))
