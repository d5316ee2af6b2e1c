"""A dashboard to W&B. Names in it derive from the sweep: a second call replaces what the first made."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bbi_lightning import __version__
from bbi_lightning.comparison.dashboard import views
from bbi_lightning.comparison.dashboard.content import FIGURES
from bbi_lightning.comparison.dashboard.service import account, runs_of, speaking_plainly
from bbi_lightning.comparison.dashboard.specification import Dashboard, View
from bbi_lightning.comparison.dashboard.summary import JOB_TYPE, PREFIX, Summary
from bbi_lightning.tracking.wandb_logger import FINISH_TIMEOUT

Done = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True)
class Pushed:
    """What is in W&B now: by what it is called, its address and what was done to it."""

    entity: str
    done: Mapping[str, tuple[str, Done]]


@dataclass(frozen=True)
class Attachments:
    """What the summary run shows beside its numbers; files that exist.

    Attributes:
        figures: our pictures, by key. captions: how to read them, by key.
        page: that of `bbi compare`.
    """

    figures: Mapping[str, Path]
    captions: Mapping[str, str]
    page: Path | None = None


def push(
    api: Any,
    dashboard: Dashboard,
    summary: Summary,
    attachments: Attachments,
    *,
    tell: Callable[[str], None] = lambda what: None,
) -> Pushed:
    """Bring W&B to what the dashboard says: the summary run, the saved views, the report.

    The summary run is left alone when its contents are the same, so that nothing piles up. Views and report
    are found by name and mark and replaced; what was edited there by hand is lost.

    Args:
        api: of `service.connect`.
        dashboard: the specification.
        summary: what it was made of.
        attachments: pictures and page for the summary run.
        tell: called with what is being done next.

    Raises:
        UnavailableError: the server refuses, or is gone.
    """
    entity = account(api, dashboard.entity)
    done: dict[str, tuple[str, Done]] = {}
    with speaking_plainly():
        tell("summary run")
        done["summary run"] = _push_summary(api, entity, dashboard, summary, attachments)
        for view in dashboard.views:
            tell(f"view {view.key}")
            done[f"view {view.key}"] = _push_view(dashboard, view, entity)
        tell("report")
        done["report"] = _push_report(api, dashboard, entity)
    return Pushed(entity, done)


def _push_summary(
    api: Any, entity: str, dashboard: Dashboard, summary: Summary, attachments: Attachments
) -> tuple[str, Done]:
    import wandb

    there = next(iter(runs_of(api, entity, dashboard.project, {"name": summary.run})), None)
    with_page = "with" if attachments.page else "without"
    contents = (
        f"{summary.digest}, {len(attachments.figures)} pictures, {with_page} page, version {__version__}"
    )
    address = f"{api._service_api.app_url}{entity}/{dashboard.project}/runs/{summary.run}"
    if there is not None and there.config.get("contents") == contents and there.state == "finished":
        return address, "unchanged"
    with tempfile.TemporaryDirectory(prefix="bbi-dashboard-") as folder:
        run = wandb.init(
            mode="online",
            project=dashboard.project,
            entity=entity,
            id=summary.run,
            name=f"{dashboard.sweep} summary",
            resume="allow",
            reinit="create_new",
            group=dashboard.sweep,
            job_type=JOB_TYPE,
            tags=[JOB_TYPE],
            config={**summary.config, "contents": "incomplete"},
            dir=folder,
            settings=wandb.Settings(
                console="off", disable_git=True, quiet=True, silent=True, force=True,
                x_disable_stats=True, finish_timeout=FINISH_TIMEOUT,
            ),
        )  # fmt: skip
        try:
            run.log(_media(summary, attachments))
            stale = () if there is None else [key for key in there.summary_metrics if _is_ours(key)]
            for key in stale:
                if key not in summary.values:
                    run.summary[key] = None  # an arm that is no more
            run.summary.update(dict(summary.values))
            run.config.update({"contents": contents}, allow_val_change=True)
        finally:
            run.finish()
    return address, "created" if there is None else "updated"


def _is_ours(key: str) -> bool:
    return key.startswith((f"{PREFIX}/", "verdict/"))


def _media(summary: Summary, attachments: Attachments) -> dict[str, Any]:
    import wandb

    columns = list(dict.fromkeys(column for row in summary.rows for column in row))
    table = wandb.Table(columns=columns, allow_mixed_types=True)
    for row in summary.rows:
        table.add_data(*(row.get(column) for column in columns))
    media: dict[str, Any] = {f"{PREFIX}/table": table}
    for key, file in attachments.figures.items():
        media[f"{FIGURES}/{key}"] = wandb.Image(str(file), caption=attachments.captions.get(key))
    if attachments.page is not None:
        media["page"] = wandb.Html(attachments.page.read_text(encoding="utf-8"), inject=False)
    return media


def _push_view(dashboard: Dashboard, view: View, entity: str) -> tuple[str, Done]:
    internal = views.module("workspaces.internal")
    built = views.workspace(dashboard, view, entity)
    try:
        known = internal.get_view_dict(
            entity, dashboard.project, view.name.removeprefix("nw-").removesuffix("-v")
        )
    except ValueError:  # there is none of this name
        known = None
    if known is not None:
        built._internal_id = known["id"]
    built.save()
    return str(built.url), "updated" if known is not None else "created"


def _push_report(api: Any, dashboard: Dashboard, entity: str) -> tuple[str, Done]:
    built = views.report(dashboard, entity)
    known = [
        report
        for report in api.reports(f"{entity}/{dashboard.project}")
        if dashboard.mark in (report.description or "")
    ]
    if known:
        built.id = known[0].id
    built.save()
    return str(built.url), "updated" if known else "created"
