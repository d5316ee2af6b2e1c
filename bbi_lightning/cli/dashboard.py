"""`bbi dashboard`: a sweep's comparison in W&B, made by code, and checked against our own numbers."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.sweep.asking import Against

if TYPE_CHECKING:
    from rich.console import Console

    from bbi_lightning.comparison.dashboard.check import Checked
    from bbi_lightning.comparison.dashboard.push import Pushed
    from bbi_lightning.comparison.dashboard.specification import Dashboard
    from bbi_lightning.comparison.results import Comparison

HELP = """
Build a sweep's dashboard in Weights & Biases: saved views, a report, and a run with our numbers.

[bold]Examples[/bold]

  bbi dashboard digits_showdown             build it, or bring it up to date
  bbi dashboard digits_showdown --dry-run   only write what it would be
  bbi dashboard digits_showdown --upload    first send the runs W&B lacks
  bbi dashboard digits_showdown --check     does W&B say what we say?
  bbi dashboard wide -e my-team -p optics   in a team's project

  Means and intervals are computed here, from every run, and pushed as one
  run of job type "summary": W&B's own grouped means are of a sample of the
  runs. Calling it again replaces what is there, and adds nothing.

  It shows the runs that W&B has: those trained with tracking=online, and
  those that --upload sends, whatever their tracking was. It needs the extra
  "dashboard" (wandb-workspaces) and `wandb login`; without them it writes
  what it would be into the sweep's folder: dashboard/dashboard.json and
  dashboard/report.md.

  Exit codes: 0 done, or W&B agrees; 1 W&B could not be reached, or says
  otherwise; 2 a mistake.
"""

_REMEDIES = {
    "missing": "W&B does not have them: `bbi dashboard {sweep} --upload` sends those that are over",
    "unknown": "W&B has runs that are not in the sweep's folder: deleted here, or of another sweep",
    "state": "they ended otherwise than W&B knows: `bbi sweep sync {sweep}`, or wait for those under way",
    "place": "they are filed elsewhere in W&B, where the views do not look: moved there, or made long ago",
    "number": "W&B has other values, of an earlier attempt perhaps: `bbi sweep sync {sweep}`",
    "mean": "the means follow from the runs above",
    "summary": "the run with our numbers is not of today's results: `bbi dashboard {sweep}`",
}


def dashboard(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's name, or its folder.", show_default=False)
    ],
    entity: Annotated[
        str | None,
        typer.Option(
            "--entity",
            "-e",
            metavar="NAME",
            show_default=False,
            help="W&B user or team. Default: as the runs.",
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", metavar="NAME", show_default=False, help="W&B project. Default: as the runs."
        ),
    ] = None,
    against: Against = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only write what it would be.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing, compare W&B's numbers with ours.")
    ] = False,
    upload: Annotated[bool, typer.Option("--upload", help="First send the runs that W&B lacks.")] = False,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Send our pictures and the page.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Folder of all sweeps.")] = Path("sweeps"),
) -> None:
    """Build a sweep's dashboard in W&B, or check it."""
    from bbi_lightning.comparison.dashboard.service import UnavailableError

    try:
        job = _Job(sweep, directory, entity, project, against, figures=figures, as_json=as_json)
        if check:
            raise typer.Exit(0 if job.check() else 1)
        job.write()
        if dry_run:
            job.say_what_it_would_be("that is what --dry-run is for")
        else:
            job.push(upload=upload)
    except UnavailableError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(1) from None
    except (ValueError, FileNotFoundError) as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None


class _Job:
    """One call: the comparison, where it goes, and how to speak about it."""

    def __init__(
        self,
        sweep: str,
        directory: Path,
        entity: str | None,
        project: str | None,
        against: str | None,
        *,
        figures: bool,
        as_json: bool,
    ) -> None:
        from rich.console import Console

        from bbi_lightning.cli.sweep.asking import SWEEPS, find
        from bbi_lightning.comparison.dashboard.content import dashboard
        from bbi_lightning.comparison.dashboard.summary import summarise
        from bbi_lightning.comparison.figures import all_pictures
        from bbi_lightning.comparison.results import compare_sweep
        from bbi_lightning.comparison.sweep_data import read_sweep

        self.console = Console(highlight=False, soft_wrap=True)
        self.figures, self.as_json = figures, as_json
        self.name = sweep if directory == SWEEPS or Path(sweep).is_dir() else str(directory / sweep)
        with self.busy("reading the runs"):
            self.comparison: Comparison = compare_sweep(read_sweep(find(directory, sweep).path), against)
            self.pictures = all_pictures(self.comparison) if figures else ()
        theirs = _where_the_runs_went(self.comparison)
        self.project = _checked_project(project or theirs.get("project") or "bbi_lightning")
        self.dashboard: Dashboard = dashboard(
            self.comparison,
            project=self.project,
            entity=entity or theirs.get("entity"),
            pictures=self.pictures,
        )
        self.summary = summarise(self.comparison)
        self.folder = self.comparison.sweep.folder / "dashboard"

    def write(self) -> None:
        """The specification, beside the sweep."""
        from bbi_lightning.comparison.dashboard.report import report_markdown

        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / "dashboard.json").write_text(self.dashboard.to_json(), encoding="utf-8")
            (self.folder / "report.md").write_text(report_markdown(self.dashboard), encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"{self.folder} cannot be written ({error.strerror}): copy the sweep elsewhere"
            ) from None

    def push(self, *, upload: bool = False) -> None:
        """Bring W&B up to date; say where to look. Where there is no W&B, say what it would be."""
        from bbi_lightning.comparison.dashboard.push import Attachments, push
        from bbi_lightning.comparison.dashboard.service import UnavailableError, connect, missing_package

        try:
            lacking = missing_package()
            if lacking:
                raise UnavailableError(lacking)
            with self.busy("asking W&B"):
                api = connect()
            if upload:
                self._upload(api)
            with (
                self.busy("drawing") as tell,
                tempfile.TemporaryDirectory(prefix="bbi-dashboard-") as temporary,
            ):
                attachments = self._draw(Path(temporary)) if self.figures else Attachments({}, {})
                pushed = push(api, self.dashboard, self.summary, attachments, tell=tell)
        except UnavailableError as error:
            self.say_what_it_would_be(str(error))
            raise typer.Exit(1) from None
        self._say_what_was_done(pushed)

    def _upload(self, api: Any) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from bbi_lightning.comparison.dashboard.check import fetch
        from bbi_lightning.comparison.dashboard.service import UnavailableError, account
        from bbi_lightning.comparison.dashboard.upload import lacking, upload

        entity = account(api, self.dashboard.entity)
        there = {run.run for run in fetch(api, self.dashboard, entity)}
        runs = lacking(self.comparison.sweep.runs, there)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bars = {what: progress.add_task(what, total=len(runs)) for what in ("recording", "sending")}
            troubles = upload(
                self.dashboard, entity, runs, did=lambda what, run: progress.advance(bars[what])
            )
        if troubles:
            run, trouble = next(iter(troubles.items()))
            raise UnavailableError(
                f"{len(troubles)} of {len(runs)} runs could not be sent ({run}: {trouble}): "
                "the same command sends the rest"
            )

    def _draw(self, folder: Path) -> Any:
        from bbi_lightning.comparison.dashboard.content import chosen
        from bbi_lightning.comparison.dashboard.push import Attachments
        from bbi_lightning.comparison.figures import save_figures
        from bbi_lightning.comparison.page.page import write_page

        files = save_figures(self.comparison, folder / "figures", ("png",), told=chosen)
        page = write_page(self.comparison, folder / "report.html")
        captions = {picture.key: picture.caption for picture in self.pictures}
        return Attachments({file.stem: file for file in files if file.suffix == ".png"}, captions, page)

    def check(self) -> bool:
        """Compare; say what differs; whether nothing does."""
        from bbi_lightning.comparison.dashboard.check import check, fetch
        from bbi_lightning.comparison.dashboard.service import account, connect

        with self.busy("asking W&B"):
            api = connect()
            entity = account(api, self.dashboard.entity)
            remote = fetch(api, self.dashboard, entity)
        checked = check(self.comparison, self.dashboard, self.summary, remote)
        if self.as_json:
            from dataclasses import asdict

            answer = {"agrees": checked.agrees, **asdict(checked)}
            for mean in answer["means"]:  # JSON has no NaN
                mean |= {key: None for key in ("ours", "theirs") if not math.isfinite(mean[key])}
            print(json.dumps(answer, indent=1, ensure_ascii=False))
        else:
            _print_check(self.console, checked, f"{entity}/{self.project}", self.comparison, self.name)
        return checked.agrees

    def say_what_it_would_be(self, why: str) -> None:
        """What was written, and what it would make of it."""
        d = self.dashboard
        where = f"{d.entity or '<your account>'}/{d.project}"
        if self.as_json:
            answer = {"pushed": False, "why": why, "files": [str(self.folder / name) for name in _FILES]}
            print(json.dumps(answer, indent=1, ensure_ascii=False))
            return
        say = self.console.print
        say(f"Nothing was sent to W&B: {why}.", markup=False)
        say(f"\nIn {where} it would make", markup=False)
        say(f"  the run {d.summary_run} with {len(self.summary.values)} numbers, a table of the arms"
            f"{', our pictures and the page' if self.figures else ''}", markup=False)  # fmt: skip
        for view in d.views:
            charts = sum(len(panels) for _, panels in view.sections)
            say(f'  the view "{view.title}" with {charts} charts', markup=False)
        charts = sum(len(panels) for section in d.sections for panels in section.panels.values())
        say(f'  the report "{d.title}" with {len(d.sections)} sections and {charts} charts', markup=False)
        say(
            f"\nSpecification: {self.folder / _FILES[0]}\nReport in words: {self.folder / _FILES[1]}",
            markup=False,
        )
        say("To have it: pip install 'bbi-lightning[dashboard]', wandb login, then "
            f"bbi dashboard {self.name}", style="dim", markup=False)  # fmt: skip

    def _say_what_was_done(self, pushed: Pushed) -> None:
        if self.as_json:
            done = {name: {"url": url, "done": what} for name, (url, what) in pushed.done.items()}
            print(json.dumps({"pushed": True, "entity": pushed.entity, "done": done}, indent=1))
            return
        for name, (url, what) in pushed.done.items():
            self.console.print(f"{name:<18} {what:<10} {url}", markup=False)
        self.console.print(f"\nDoes W&B agree? bbi dashboard {self.name} --check", style="dim", markup=False)

    @contextmanager
    def busy(self, what: str) -> Iterator[Any]:
        """A spinner on a terminal's stderr; gives a function that changes its words."""
        from rich.console import Console

        with Console(stderr=True).status(what) as status:
            yield status.update


_FILES = ("dashboard.json", "report.md")


def _where_the_runs_went(c: Comparison) -> dict[str, str]:
    """The project and entity of the first run that tells."""
    from bbi_lightning.tracking.config_file import config_if_readable
    from bbi_lightning.tracking.run_folder import RunFolder

    for run in c.sweep.runs:
        said = config_if_readable(RunFolder(run.folder).config_file).get("tracking")
        if isinstance(said, dict) and said.get("project"):
            return {key: str(said[key]) for key in ("project", "entity") if said.get(key)}
    return {}


def _checked_project(project: str) -> str:
    from bbi_lightning.tracking.wandb_logger import WandbTracking

    return WandbTracking(project=project).project


def _print_check(console: Console, checked: Checked, where: str, c: Comparison, name: str) -> None:
    from rich.table import Table

    from bbi_lightning.comparison.dashboard.check import counted

    console.print(
        f"{checked.found} of {checked.runs} runs are in {where}; {checked.numbers} numbers compared.",
        markup=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("arm", f"{c.test.label}, ours", "n", "W&B's", "n"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for m in checked.means:
        ours, theirs = (c.test.text(v) if math.isfinite(v) else "–" for v in (m.ours, m.theirs))
        table.add_row(m.arm, ours, str(m.ours_n), theirs, str(m.theirs_n))
    console.print(table)
    if checked.agrees:
        console.print("\nW&B says the same.", style="green")
        return
    for kind, count in counted(checked.differences).items():
        console.print(
            f"\n{count} × {kind}: {_REMEDIES[kind].format(sweep=name)}.", style="yellow", markup=False
        )
        for difference in [d for d in checked.differences if d.kind == kind][:5]:
            ours, theirs = difference.ours or "nothing", difference.theirs or "nothing"
            console.print(
                f"  {difference.where} {difference.what}: ours {ours}, W&B's {theirs}", markup=False
            )
        if count > 5:
            console.print(f"  and {count - 5} more", style="dim")
