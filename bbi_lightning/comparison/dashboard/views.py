"""A dashboard as wandb-workspaces objects. The only module that knows how W&B spells charts and filters."""

from __future__ import annotations

import importlib
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from bbi_lightning.comparison.dashboard.report import RUNS_WORDS
from bbi_lightning.comparison.dashboard.specification import (
    Dashboard,
    Panel,
    Runs,
    Section,
    View,
    derived_name,
)

MOST_COLOURED = 2000  # runs that get their arm's colour in charts of single runs; more make a spec too large
_MOST_LINES = 200
_TITLE = 128  # characters that a report's title may have


def module(name: str) -> Any:
    """A module of wandb-workspaces, without the warnings of its first import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # written for pydantic 1
        return importlib.import_module(f"wandb_workspaces.{name}")


def workspace(dashboard: Dashboard, view: View, entity: str) -> Any:
    """A saved view as a `wandb_workspaces.workspaces.Workspace`, not yet saved; W&B is not asked anything."""
    expr, ws = module("expr"), module("workspaces")

    best_first = (
        [expr.Ordering(expr.Summary(view.order_by), ascending=not view.descending)] if view.order_by else None
    )
    settings: dict[str, Any] = {"order": best_first} if best_first else {}
    if view.by_arm:
        settings["groupby"] = [expr.Config("arm")]
        settings["group_colors"] = {arm.name: arm.colour for arm in dashboard.arms}
    elif view.runs != "summary":
        settings["run_settings"] = {
            run: ws.RunSettings(color=colour)
            for run, colour in list(dashboard.colours.items())[:MOST_COLOURED]
        }
    built = ws.Workspace(
        entity=entity,
        project=dashboard.project,
        name=_acceptable(view.title),
        sections=[
            ws.Section(
                name=title,
                panels=[_panel(panel, place, view.name, title) for place, panel in enumerate(panels)],
                is_open=True,
            )
            for title, panels in view.sections
        ],
        settings=ws.WorkspaceSettings(x_axis="trainer/global_step", max_runs=_MOST_LINES),
        runset_settings=ws.RunsetSettings(
            filters=_filters(dashboard, view.runs), pinned_columns=list(view.columns), **settings
        ),
    )
    built._internal_name = view.name
    built._internal_runset_id = derived_name(view.name, "runs")
    return built


def report(dashboard: Dashboard, entity: str, *, lookup: bool = True) -> Any:
    """The report as a `wandb_workspaces.reports.v2.Report`, not yet saved.

    Args:
        dashboard: what to show.
        entity: W&B user or team.
        lookup: name the project in every set of runs, for which wandb-workspaces asks the server when the
            report is saved. Without, the sets are of the report's own project and no server is needed.
    """
    wr = module("reports.v2")

    blocks: list[Any] = [wr.TableOfContents()]
    for section in dashboard.sections:
        blocks += [wr.H1(section.title), wr.MarkdownBlock(section.text)]
        blocks += _grids(dashboard, section, entity if lookup else "")
    return wr.Report(
        entity=entity,
        project=dashboard.project,
        title=_acceptable(dashboard.title)[:_TITLE],
        description=f"Sweep {dashboard.sweep}, made by bbi_lightning. {dashboard.mark}",
        blocks=blocks,
        width="fluid",
    )


def _grids(dashboard: Dashboard, section: Section, entity: str) -> list[Any]:
    wr = module("reports.v2")

    grids = []
    for runs, panels in section.panels.items():
        if not panels and runs != "lost":
            continue
        name = f"{RUNS_WORDS[runs]} of {dashboard.sweep}"
        by_arm = bool(panels) and all(panel.by_arm for panel in panels)
        runset = wr.Runset(
            entity=entity,
            project=dashboard.project if entity else "",
            name=name,
            filters=_filters(dashboard, runs),
            groupby=["config.arm"] if by_arm else [],
        )
        runset._id = derived_name(dashboard.sweep, section.key, runs)
        arm = wr.Config("arm")
        colours: dict[Any, Any] = (
            {
                wr.RunsetGroup(
                    runset_name=name, keys=(wr.RunsetGroupKey(key=arm, value=look.name),)
                ): look.colour
                for look in dashboard.arms
            }
            if by_arm
            else dict(list(dashboard.colours.items())[:MOST_COLOURED])
        )
        grids.append(
            wr.PanelGrid(
                runsets=[runset],
                panels=[_panel(panel, place, runset._id) for place, panel in enumerate(panels)],
                hide_run_sets=bool(panels),
                custom_run_colors={} if runs == "summary" else colours,
            )
        )
    return grids


def _filters(dashboard: Dashboard, runs: Runs) -> Any:
    expr = module("expr")

    return expr.And(*(expr.Metric(name).isin(list(values)) for name, values in dashboard.conditions(runs)))


def _panel(panel: Panel, place: int, *where: str) -> Any:
    """A chart at a place of a grid of three columns; `where` it stands makes its id, the same every time."""
    wr = module("reports.v2")

    build: dict[str, Callable[[Panel], Any]] = {
        "lines": _lines,
        "bars": _bars,
        "scatter": _scatter,
        "parallel": _parallel,
        "importance": lambda p: wr.ParameterImportancePlot(with_respect_to=p.metrics[0]),
        "text": lambda p: wr.MarkdownPanel(markdown=p.text),
        "media": lambda p: wr.MediaBrowser(title=p.title, media_keys=list(p.metrics), num_columns=1),
    }
    built = build[panel.kind](panel)
    built._id = derived_name(*where, str(place), panel.title)
    wide = panel.kind in ("parallel", "importance")
    built.layout = wr.Layout(
        x=0 if wide else 8 * (place % 3), y=6 * (place // 3), w=24 if wide else 8, h=8 if wide else 6
    )
    return built


def _lines(panel: Panel) -> Any:
    wr = module("reports.v2")

    return wr.LinePlot(
        title=panel.title,
        x=panel.x,
        y=list(panel.metrics),
        log_x=panel.log_x or None,
        log_y=panel.log_y or None,
        max_runs_to_show=_MOST_LINES,
        **_of_arms(panel),
    )


def _bars(panel: Panel) -> Any:
    wr = module("reports.v2")

    return wr.BarPlot(
        title=panel.title,
        metrics=list(panel.metrics),
        max_bars_to_show=max(20, len(panel.metrics)),
        **_of_arms(panel),
    )


def _of_arms(panel: Panel) -> dict[str, Any]:
    wr = module("reports.v2")

    if not panel.by_arm:
        return {}
    return {"groupby": wr.Config("arm"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}


def _scatter(panel: Panel) -> Any:
    wr = module("reports.v2")

    return wr.ScatterPlot(
        title=panel.title,
        x=_key(panel.x),
        y=_key(panel.metrics[0]),
        log_x=panel.log_x or None,
        log_y=panel.log_y or None,
    )


def _parallel(panel: Panel) -> Any:
    wr = module("reports.v2")

    columns = [
        wr.ParallelCoordinatesPlotColumn(
            metric=_key(name),
            display_name=name.removeprefix("config:"),
            log=name in panel.log_columns or None,
        )
        for name in panel.metrics
    ]
    return wr.ParallelCoordinatesPlot(title=panel.title, columns=columns)


def _key(name: str) -> Any:
    wr = module("reports.v2")

    return wr.Config(name.removeprefix("config:")) if name.startswith("config:") else wr.SummaryMetric(name)


def _acceptable(name: str) -> str:
    """A name without the characters that wandb-workspaces refuses: it takes +, <, = and $ for emojis."""
    refused: Sequence[str] = ("So", "Sk", "Sm", "Sc", "Cs")
    return "".join(" " if unicodedata.category(letter) in refused else letter for letter in name)
