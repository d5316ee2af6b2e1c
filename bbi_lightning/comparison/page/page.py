"""The page of a comparison: one HTML file that needs nothing else, and the CSV files beside it.

The page is a function of the runs: no clock, no machine name, no network; the same runs give the same bytes.
Its script does what needs one (filtering and sorting the runs, choosing colours, saving single figures);
without it everything can be read.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

import bbi_lightning
from bbi_lightning.comparison import provenance, tables
from bbi_lightning.comparison.audit import Level, audit
from bbi_lightning.comparison.figures import AXES, all_pictures, over_tasks, svg
from bbi_lightning.comparison.figures.drawing import looks
from bbi_lightning.comparison.page import archive, arms, runs
from bbi_lightning.comparison.page.every_run import every_run
from bbi_lightning.comparison.page.gallery import Gallery
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.suite import Suite, sentences_over_tasks
from bbi_lightning.comparison.verdict import verdict

Cells = dict[str, Any]

_STYLES = ("layout.css", "tables.css", "narrow.css", "print.css")
_HEADINGS: dict[Level, str] = {
    "error": "Wrong until mended",
    "warning": "Before you rely on it",
    "note": "Worth knowing",
}
_SCRIPTS = ("colours.js", "runs.js", "figures.js")


def write_page(subject: Suite | Comparison, page: str | Path | None = None) -> Path:
    """Write the page and, in the same folder, trials.csv, replicates.csv and summary.csv.

    Args:
        subject: what to show; of several tasks each has its own CSV files, `trials-<sweep>.csv` and so on.
        page: the HTML file; `report.html` in the (first) sweep's folder if not given. Its folder is made.

    Returns:
        The page's path.
    """
    suite = _suite(subject)
    page = Path(page) if page is not None else suite.comparisons[0].sweep.folder / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    for name, text in csv_files(suite).items():
        (page.parent / name).write_text(text, encoding="utf-8", errors="replace")
    # a message about a file whose name is no UTF-8 cannot be written as it is
    page.write_text(render_page(suite), encoding="utf-8", errors="replace")
    return page


def csv_files(subject: Suite | Comparison) -> dict[str, str]:
    """The CSV files, name to text."""
    comparisons = _suite(subject).comparisons
    files: dict[str, str] = {}
    for place, c in enumerate(comparisons):
        ending = f"-{_file_name(c.sweep.name)}" if len(comparisons) > 1 else ""
        ending += f"-{place + 1}" if f"summary{ending}.csv" in files else ""  # two sweeps of one name
        files[f"summary{ending}.csv"] = tables.to_csv(tables.summary_rows(c))
        files[f"replicates{ending}.csv"] = tables.to_csv(tables.replicate_rows(c))
        files[f"trials{ending}.csv"] = tables.to_csv(tables.trial_rows(c))
    return files


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in name)


def render_page(subject: Suite | Comparison) -> str:
    """The page's HTML."""
    suite = _suite(subject)
    comparisons = suite.comparisons
    tasks = [(c, "" if len(comparisons) == 1 else f"task-{i + 1}-") for i, c in enumerate(comparisons)]
    drawn = [
        [p.of_task(c.sweep.name, f"{place}-" if prefix else "") for p in all_pictures(c)]
        for place, (c, prefix) in enumerate(tasks, start=1)
    ]
    common = over_tasks(suite)
    script = "".join(_text(name) for name in _SCRIPTS)
    gallery = Gallery([*common, *(picture for pictures in drawn for picture in pictures)])
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            version=bbi_lightning.__version__,
            suite=suite,
            title=suite.title,
            level=2 if len(comparisons) == 1 else 3,
            over_tasks=_over_tasks(suite),
            sentences=sentences_over_tasks(suite),
            grid=arms.tasks_by_arms(suite),
            common=gallery.sections(common),
            tasks=[
                _task(c, prefix) | {"pictures": gallery.sections(pictures)}
                for (c, prefix), pictures in zip(tasks, drawn, strict=True)
            ],
            axis_names=AXES,
            every_run=Markup(every_run(comparisons)),  # escaped there
            run_count=sum(len(c.sweep.runs) for c in comparisons),
            downloads=[
                (name, archive.data_link(text.encode(errors="replace"), "text/csv;charset=utf-8"))
                for name, text in csv_files(suite).items()
            ],
            figures_name=_file_name(comparisons[0].sweep.name) + "-figures.zip",
            figures_link=archive.data_link(archive.zipped(gallery.files), "application/zip"),
            has_figures=bool(gallery.files),
            light=list(enumerate(svg.LIGHT)),
            dark=list(enumerate(svg.DARK)),
            style=Markup("".join(_text(name) for name in _STYLES) + gallery.css),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _suite(subject: Suite | Comparison) -> Suite:
    return subject if isinstance(subject, Suite) else Suite((subject,))


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("bbi_lightning.comparison.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _text(name: str) -> str:
    """A style sheet or a script of the page."""
    folder = resources.files("bbi_lightning.comparison.page") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _task(c: Comparison, prefix: str) -> Cells:
    """What the templates show of one comparison. `prefix` keeps its ids apart from another task's."""
    slots = _slots(c)
    return {
        "prefix": prefix,
        "sweep": c.sweep,
        "baseline": c.baseline,
        "test": c.test,
        "validation": c.validation,
        "verdict": verdict(c),
        "findings": _findings(c),
        "results": [arms.result(c, r, slots[r.arm.name]) for r in c.results],
        "budgets": [arms.budget(c, r, slots[r.arm.name]) for r in c.results],
        "near_best": arms.near_best(c),
        "tuned": arms.tuned(c, slots),
        "replicates": runs.replicates(c),
        "searches": [runs.search(c, r) for r in c.results],
        "losses": runs.losses(c),
        "configurations": provenance.configurations(c),
        "provenance": provenance.provenance(c),
    }


def _slots(c: Comparison) -> dict[str, int]:
    """The place of each arm's colour in the palettes."""
    return {name: look.slot % len(svg.LIGHT) for name, look in looks(c.sweep.arms).items()}


def _findings(c: Comparison) -> list[Cells]:
    """What makes the comparison doubtful, gravest first: level, heading, sentences and remedies."""
    found = audit(c)
    groups = [
        {
            "level": level,
            "heading": heading,
            "findings": [(_with_code(f.sentence), _with_code(f.remedy)) for f in found if f.level == level],
        }
        for level, heading in _HEADINGS.items()
    ]
    return [group for group in groups if group["findings"]]


def _with_code(text: str) -> Markup:
    """Text whose parts between backticks are code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them opens nothing
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def _over_tasks(suite: Suite) -> list[Cells]:
    slots: dict[str, int] = {}
    for c in reversed(suite.comparisons):
        slots |= _slots(c)
    return arms.over_tasks(suite, slots)
