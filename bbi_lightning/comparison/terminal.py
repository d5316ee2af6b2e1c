"""A comparison for the terminal: verdict, a table of the arms, doubts; readable from 80 columns on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bbi_lightning.comparison.audit import Finding, serious
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.suite import OverTasks, Suite
from bbi_lightning.comparison.sweep_data import Run
from bbi_lightning.comparison.tables import conclusion_words
from bbi_lightning.comparison.verdict import count, verdict, write_p, write_value

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

_NOTHING = "–"
_IMPORTED = "†"
_MARKS = {"better": "▲", "worse": "▼", "undecided": "·", "unstable": "?", "no data": "", "baseline": ""}
_STYLES = {"better": "green", "worse": "red", "unstable": "yellow"}
_MOST_DOUBTS = 12


@dataclass(frozen=True)
class _Column:
    """A column of the table of arms. `cell` is given the arm's result and whether intervals stand below."""

    title: str
    cell: Callable[[ArmResult, bool], str]
    right: bool = True


class ForTerminal:
    """One comparison, as wide as the terminal allows; a rich renderable.

    Args:
        comparison: to be shown.
        doubts: what an audit found; None: the errors and warnings of `audit.serious`.
    """

    def __init__(self, comparison: Comparison, doubts: Sequence[Finding] | None = None) -> None:
        self.comparison = comparison
        self.doubts = serious(comparison) if doubts is None else doubts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        c, said = self.comparison, verdict(self.comparison)
        yield Text(c.sweep.title, style="bold")
        yield Text(said.headline)
        yield Text(f"{_budget(c)} {said.status}", style="dim")
        yield Text()
        yield table_of_arms(c, options.max_width, console)
        yield from _legend(c)
        yield from _doubts(self.doubts)


class SuiteForTerminal:
    """Several tasks: first what holds over all of them, then one comparison after another."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.rule import Rule
        from rich.text import Text

        several = len(self.suite.comparisons) > 1
        if several:
            names = ", ".join(comparison.sweep.name for comparison in self.suite.comparisons)
            yield Text(f"{len(self.suite.comparisons)} tasks: {names}", style="bold")
            yield from _over_tasks(self.suite, options.max_width, console)
        for comparison in self.suite.comparisons:
            if several:
                yield Text()
                yield Rule(comparison.sweep.name, style="dim", align="left")
            yield ForTerminal(comparison)


def for_terminal(c: Comparison | Suite) -> RenderableType:
    """A comparison, or one of several tasks, for a rich console."""
    return SuiteForTerminal(c) if isinstance(c, Suite) else ForTerminal(c)


def table_of_arms(c: Comparison, width: int, console: Console) -> Table:
    """The arms, one a row, and below each its searches where there were several.

    Of what may be said as much is said as fits: intervals beside their numbers rather than below them, then
    probability of improvement, effect, trials, the best point, median and interquartile mean.
    """
    main, further = _columns(c)
    stacked = _width(_drawn(c, main, False), console) > width
    shown = main
    for column in further:
        more = [*shown[:-1], column, shown[-1]]
        if _width(_drawn(c, more, stacked), console) <= width:
            shown = more
    return _drawn(c, shown, stacked)


def _columns(c: Comparison) -> tuple[list[_Column], list[_Column]]:
    unit = f", {c.test.unit}" if c.test.unit else ""
    points = ", points" if c.test.is_share else ""
    main = [
        _Column("arm", lambda r, _: _name(r), right=False),
        _Column(f"{c.test.label}{unit}", lambda r, s: _number(c.test, r.mean, stacked=s)),
        _Column("n", lambda r, _: _replicates(r)),
        _Column(f"minus {c.baseline.label}{points}", lambda r, s: _difference(c, r, stacked=s)),
        _Column("p", lambda r, _: write_p(r.p_value).removeprefix("p = ").removeprefix("p ")),
        _Column("conclusion", lambda r, _: conclusion_words(r), right=False),
    ]
    further = [
        _Column("P(better)", lambda r, s: _share(r.improvement, stacked=s)),
        _Column("best at", lambda r, s: _point(r.best, stacked=s), right=False),
        _Column("trials", lambda r, _: _trials(r), right=False),
        _Column("effect", lambda r, s: _effect(r, stacked=s)),
        _Column("median", lambda r, s: _number(c.test, r.median, stacked=s)),
        _Column("IQM", lambda r, s: _number(c.test, r.iqm, stacked=s)),
    ]
    return main, [column for column in further if _says_anything(c, column)]


def _says_anything(c: Comparison, column: _Column) -> bool:
    return any(column.cell(r, False) not in ("", _NOTHING) for r in c.results)


def _drawn(c: Comparison, columns: Sequence[_Column], stacked: bool) -> Table:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            escape(column.title),
            justify="right" if column.right else "left",
            style="bold" if column.title == "arm" else "",
            overflow="fold",
        )
    for r in c.results:
        style = _STYLES.get(r.conclusion, "")
        table.add_row(
            *(
                Text(column.cell(r, stacked), style if column.title == "conclusion" else "")
                for column in columns
            )
        )
        for row in _searches(c, r, columns):
            table.add_row(*map(escape, row), style="dim")
    return table


def _searches(c: Comparison, r: ArmResult, columns: Sequence[_Column]) -> Iterator[list[str]]:
    """A row for each of an arm's searches: its replicates' mean, how many, the difference, its best point."""
    studies = sorted({run.study for run in (*r.trials, *r.replicates)})
    if len(studies) < 2:
        return
    reference = c.result(c.baseline.name)
    for study in studies:
        own = [run for run in r.finished if run.study == study]
        values = [value for run in own if math.isfinite(value := run.final(c.test.name))]
        theirs = {run.seed: run.final(c.test.name) for run in reference.finished if run.study == study}
        pairs = [
            run.final(c.test.name) - theirs[run.seed]
            for run in own
            if run.seed in theirs and r is not reference
        ]
        said = {
            "arm": f"  search {study + 1}",
            "n": str(len(values)) if own else "",
            "best at": _point(own[0], stacked=False) if own else "",
            columns[1].title: c.test.number(_mean(values)),
            columns[3].title: c.test.number(_mean(pairs), signed=True) if pairs else "",
        }
        yield [said.get(column.title, "") for column in columns]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _width(table: Table, console: Console) -> int:
    from rich.measure import Measurement

    boundless = console.options.update(width=10_000)
    return Measurement.get(console, boundless, table).maximum


def _number(metric: Metric, estimate: Estimate | None, *, stacked: bool, signed: bool = False) -> str:
    if estimate is None:
        return _NOTHING
    value = metric.number(estimate.value, signed=signed)
    return _beside(value, metric.interval(estimate, signed=signed), stacked)


def _beside(value: str, interval: str, stacked: bool) -> str:
    return f"{value}\n{interval}" if stacked else f"{value} ({interval})"


def _difference(c: Comparison, r: ArmResult, *, stacked: bool) -> str:
    return _number(c.test, r.versus.difference if r.versus else None, stacked=stacked, signed=True)


def _share(estimate: Estimate | None, *, stacked: bool) -> str:
    if estimate is None:
        return _NOTHING
    interval = f"{estimate.low:.2f} to {estimate.high:.2f}" if estimate.has_interval else "no interval"
    return _beside(f"{estimate.value:.2f}", interval, stacked)


def _effect(r: ArmResult, *, stacked: bool) -> str:
    if r.versus is None or not math.isfinite(r.versus.effect.value):
        return _NOTHING
    effect = r.versus.effect
    interval = f"{effect.low:+.1f} to {effect.high:+.1f}" if effect.has_interval else "no interval"
    return _beside(f"{effect.value:+.1f}", interval, stacked).replace("-", "−")


def _name(r: ArmResult) -> str:
    imported = any(run.imported for run in (*r.trials, *r.replicates))
    return r.arm.label + (f" {_IMPORTED}" if imported else "")


def _replicates(r: ArmResult) -> str:
    done = len(r.finished)
    return str(done) if done == len(r.replicates) else f"{done}/{len(r.replicates)}"


def _trials(r: ArmResult) -> str:
    lost = [f"{n} {state}" for state in ("diverged", "failed", "pruned") if (n := r.count("search", state))]
    return ", ".join([str(len(r.trials)), *lost]) if r.trials else ""


def _point(run: Run | None, *, stacked: bool) -> str:
    """Where a search ended: `lr 0.28, momentum 0.9`, keys in short where that is unambiguous."""
    if run is None or not run.params:
        return ""
    ends = Counter(key.rsplit(".", 1)[-1] for key in run.params)
    short = {key: end if ends[end := key.rsplit(".", 1)[-1]] == 1 else key for key in run.params}
    values = [f"{short[key]} {write_value(value)}" for key, value in run.params.items()]
    return ("\n" if stacked else ", ").join(values)


def _budget(c: Comparison) -> str:
    """What every arm was given, in a sentence; nothing where the arms were given different things."""
    plans = {(p.trials, p.replicates, p.studies) for p in (c.sweep.plan(r.arm.name) for r in c.results)}
    if len(plans) != 1:
        return ""
    ((trials, replicates, studies),) = plans
    searches = f"{studies} searches of {count(trials, 'trial')}" if studies > 1 else count(trials, "trial")
    each = " of each" if studies > 1 else ""
    return (
        f"{searches[0].upper()}{searches[1:]} an arm, the best{each} by {c.validation.label} trained again "
        f"with {count(replicates, 'seed')}."
    )


def _legend(c: Comparison) -> Iterator[RenderableType]:
    from rich.text import Text

    sources = {run.imported for run in c.sweep.runs if run.imported}
    if sources:
        yield Text(f"{_IMPORTED} imported from {', '.join(sorted(sources))}", style="dim")


def _doubts(findings: Sequence[Finding]) -> Iterator[RenderableType]:
    """A paragraph a finding, its remedy dimmed; the first line apart from what is above."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not findings:
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    for finding in findings[:_MOST_DOUBTS]:
        style = "red" if finding.level == "error" else "yellow"
        grid.add_row(
            Text("!", style=f"bold {style}"), Text.assemble((finding.sentence, style), " ", finding.remedy)
        )
    if len(findings) > _MOST_DOUBTS:
        grid.add_row("", Text(f"and {len(findings) - _MOST_DOUBTS} more: bbi audit lists them", style="dim"))
    yield Padding(grid, (1, 0, 0, 0))


def _over_tasks(suite: Suite, width: int, console: Console) -> Iterator[RenderableType]:
    """A table of arms over all tasks: each task's mean and verdict, and what holds over all."""
    from rich.text import Text

    if not suite.over_tasks:
        yield Text("No arm has finished replicates in every task yet: the tasks are shown one by one.")
        return
    yield Text()
    for tasks in ("with intervals", "plain", "counted"):
        for stacked in (False, True):
            table = _table_over_tasks(suite, tasks, stacked)
            if _width(table, console) <= width:
                break
        else:
            continue
        break
    yield table
    baseline = suite.comparisons[0].baseline.label
    conclusions = {r.conclusion for c in suite.comparisons for r in c.results}
    unstable = f", {_MARKS['unstable']} replicates diverged" if "unstable" in conclusions else ""
    yield Text(
        f"{_MARKS['better']} better, {_MARKS['worse']} worse than {baseline} on that task, "
        f"{_MARKS['undecided']} no difference shown{unstable}. Over all tasks: {suite.score}; "
        "intervals from runs resampled within each task, without a test or correction.",
        style="dim",
    )


def _table_over_tasks(suite: Suite, tasks: str, stacked: bool) -> Table:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    first = suite.comparisons[0]
    scale = first.test if _in_percent(suite) else Metric("score", "maximize")
    points = ", points" if scale.is_share else ""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("arm", style="bold", overflow="fold")
    for title in [c.sweep.name for c in suite.comparisons] if tasks != "counted" else ["tasks"]:
        table.add_column(escape(title), justify="right", overflow="fold")
    for title in ("IQM", f"minus {first.baseline.label}{points}", "P(better)"):
        table.add_column(escape(title), justify="right")
    table.add_column("over all")
    for arm in suite.over_tasks:
        results = [c.result(arm.arm.name) for c in suite.comparisons]
        conclusion = _concluded(suite, arm)
        table.add_row(
            escape(arm.arm.label),
            *_task_cells(suite, results, tasks, stacked),
            _number(scale, arm.iqm, stacked=stacked),
            _number(scale, arm.difference, stacked=stacked, signed=True),
            _share(arm.improvement, stacked=stacked),
            Text(conclusion, style=_STYLES.get(conclusion, "")),
        )
    return table


def _task_cells(suite: Suite, results: Sequence[ArmResult], tasks: str, stacked: bool) -> Iterable[str]:
    if tasks == "counted":
        counts = Counter(r.conclusion for r in results)
        yield " ".join(
            f"{counts[word]}{_MARKS[word]}" for word in ("better", "undecided", "worse") if counts[word]
        )
        return
    for c, r in zip(suite.comparisons, results, strict=True):
        mark = _MARKS[r.conclusion]
        if tasks == "plain" or r.mean is None:
            yield f"{c.test.text(r.mean.value) if r.mean else _NOTHING} {mark}".rstrip()
        else:
            yield _beside(f"{c.test.text(r.mean.value)} {mark}".rstrip(), c.test.interval(r.mean), stacked)


def _in_percent(suite: Suite) -> bool:
    test = suite.comparisons[0].test
    return test.is_share and suite.score == test.label


def _concluded(suite: Suite, arm: OverTasks) -> str:
    """As `suite.sentences_over_tasks` has it."""
    if arm.difference is None:
        return "baseline" if arm.arm.name == suite.comparisons[0].baseline.name else _NOTHING
    if not arm.difference.excludes(0.0):
        return "no difference shown"
    towards_better = suite.comparisons[0].test.sign if _in_percent(suite) else 1
    return "better" if arm.difference.value * towards_better > 0 else "worse"
