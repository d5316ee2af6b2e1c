"""A dashboard's report as Markdown: what W&B will show, for those without an account."""

from __future__ import annotations

from collections.abc import Iterator

from bbi_lightning.comparison.dashboard.specification import AXIS_WORDS, Dashboard, Panel, Runs, Section

RUNS_WORDS: dict[Runs, str] = {
    "replicates": "the replicates",
    "search": "the trials of the searches",
    "all": "every run",
    "lost": "the runs that failed",
    "summary": "the run with our numbers",
}


def report_markdown(dashboard: Dashboard) -> str:
    """The report: its texts as they are, its charts in words."""
    where = f"{dashboard.entity or '<your account>'}/{dashboard.project}"
    head = (
        f"# {dashboard.title}\n\n"
        f"*W&B report of sweep `{dashboard.sweep}` for {where}; charts are described in brackets.*"
    )
    return (
        "\n\n".join([head, *(_section(section) for section in dashboard.sections), _views(dashboard)]) + "\n"
    )


def describe(panel: Panel) -> str:
    """A chart in a line of words."""
    names = ", ".join(f"`{name.removeprefix('config:')}`" for name in panel.metrics)
    by_arm = ", mean and standard error of each arm" if panel.by_arm else ""
    log = {(False, False): "", (True, False): ", logarithmic in x", (False, True): ", logarithmic"}
    scale = log.get((panel.log_x, panel.log_y), ", logarithmic in x and y")
    x = f"`{panel.x.removeprefix('config:')}`"
    what = {
        "lines": f"lines of {names} over {AXIS_WORDS.get(panel.x, x)}",
        "bars": f"bars of {names}",
        "scatter": f"points of {names} over {x}",
        "parallel": f"parallel coordinates of {names}",
        "importance": f"importance and correlation of every config key for {names}",
        "media": f"our picture {names}",
        "text": "text",
    }[panel.kind]
    return f"{panel.title}: {what}{by_arm}{scale}"


def _section(section: Section) -> str:
    parts = [f"## {section.title}", section.text]
    parts += [
        "\n".join(_charts(runs, panels))
        for runs, panels in section.panels.items()
        if panels or runs == "lost"
    ]
    return "\n\n".join(parts)


def _charts(runs: Runs, panels: tuple[Panel, ...]) -> Iterator[str]:
    yield f"[of {RUNS_WORDS[runs]}]" if panels else f"[table of {RUNS_WORDS[runs]}]"
    if panels:
        yield ""
    yield from (f"- [{describe(panel)}]" for panel in panels)


def _views(dashboard: Dashboard) -> str:
    rows = [
        f"- **{view.title}**: {RUNS_WORDS[view.runs]}{', grouped by arm' if view.by_arm else ''}"
        for view in dashboard.views
    ]
    return "\n".join(["## Saved views of the workspace", "", *rows])
