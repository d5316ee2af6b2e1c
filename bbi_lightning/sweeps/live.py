"""How a sweep goes on, for human eyes: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bbi_lightning.sweeps.run import Display
from bbi_lightning.sweeps.spaces import Value
from bbi_lightning.sweeps.spec import SweepSpec
from bbi_lightning.sweeps.status import ArmStatus, SweepStatus
from bbi_lightning.sweeps.study import best
from bbi_lightning.sweeps.trial import Trial
from bbi_lightning.tracking.durations import in_words

_INTERVAL = 10.0  # seconds between plain lines
_BAR = 10  # characters
WIDE = 110
"""Columns of a terminal from which on the best points are shown."""

_MARGIN = 2  # characters to the left of it


def display(console: Console) -> Display:
    """What suits the console: `LiveTable` on a terminal, `PlainLines` in a file or a pipe."""
    return LiveTable(console) if console.is_terminal else PlainLines(console)


class LiveTable:
    """Redraws one table in place until it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._started = time.monotonic()

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """A spinner."""
        return self._console.status(Text(f"{text} …", style="dim"), spinner="dots")

    def update(self, status: SweepStatus) -> None:
        """Draw the table anew."""
        picture = self._picture(status)
        if self._live is None:
            self._live = Live(picture, console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(picture, refresh=True)

    def close(self, status: SweepStatus) -> None:
        """Leave the last table standing."""
        if self._live is not None:
            self._live.stop()
        self._console.print(self._picture(status))

    def _picture(self, status: SweepStatus) -> RenderableType:
        return Group(table(status, self._console.width), footer(status, time.monotonic() - self._started), "")


class PlainLines:
    """One line now and then: counts, ETA, and the best of each arm."""

    def __init__(self, console: Console, interval: float = _INTERVAL) -> None:
        self._console = console
        self._interval = interval
        self._started = time.monotonic()
        self._spoke: float | None = None
        self._ended = -1

    def note(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Print a line."""
        self._print(text)
        return nullcontext()

    def update(self, status: SweepStatus) -> None:
        """Print a line if some seconds have passed and something has happened."""
        now = time.monotonic()
        recent = self._spoke is not None and now - self._spoke < self._interval
        if recent or status.ended == self._ended:
            return
        self._spoke, self._ended = now, status.ended
        bests = [f"{arm.arm.label} {_metric(arm.best_value)}" for arm in status.arms if arm.best]
        tail = f" · best {status.spec.objective.metric}: {', '.join(bests)}" if bests else ""
        self._print(footer(status, now - self._started).plain.strip() + tail)

    def close(self, status: SweepStatus) -> None:
        """Print the table."""
        wide = Console(file=self._console.file, width=max(self._console.width, WIDE))
        wide.print(table(status, wide.width))
        self._print(footer(status, time.monotonic() - self._started).plain.strip())

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def table(status: SweepStatus, width: int) -> RenderableType:
    """The arms of a sweep, one a row.

    Args:
        status: what to show.
        width: columns of the terminal; what does not fit is left out.
    """
    spec = status.spec
    title = Text.assemble((spec.name, "bold"), ("  " + spec.title if spec.title != spec.name else "", "dim"))
    grid = _grid(status, with_points=width >= WIDE, with_bars=True)
    boundless = Console(width=10_000)
    if Measurement.get(boundless, boundless.options, grid).maximum > width - _MARGIN:
        grid = _grid(status, with_points=width >= WIDE, with_bars=False)
    return Padding(Group(title, "", grid, ""), (1, 0, 0, _MARGIN), expand=False)


def _grid(status: SweepStatus, *, with_points: bool, with_bars: bool) -> Table:
    goal = status.spec.objective
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("arm", no_wrap=True)
    grid.add_column("search", no_wrap=True)
    grid.add_column(f"best {goal.metric}", justify="right", no_wrap=True)
    if goal.tie_breaker:
        grid.add_column(goal.tie_breaker.metric, justify="right", no_wrap=True)
    if with_points:
        grid.add_column("at")
    grid.add_column("replicates", no_wrap=True)
    grid.add_column("")

    leader = _leader(status)
    for arm in status.arms:
        style = "bold green" if arm is leader else "" if arm.best else "dim"
        tie_value = arm.best.outcome.tie_breaker if arm.best and arm.best.outcome else None
        cells: list[RenderableType] = [
            Text(arm.arm.label, style="bold"),
            _progress(arm.searched, arm.searches, with_bars),
            Text(_metric(arm.best_value), style=style),
        ]
        if goal.tie_breaker:
            cells.append(Text(_metric(tie_value), style=style))
        if with_points:
            cells.append(Text(_params(arm.best.job.params) if arm.best else "", style="cyan"))
        cells += [_progress(arm.replicated, arm.replicates, with_bars), _counts(arm)]
        grid.add_row(*cells)
    return grid


def best_table(spec: SweepSpec, trials: Sequence[Trial]) -> RenderableType:
    """Trials with their results and points, one a row, in the order they are given."""
    goal = spec.objective
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("trial", no_wrap=True)
    grid.add_column(goal.metric, justify="right", no_wrap=True)
    if goal.tie_breaker:
        grid.add_column(goal.tie_breaker.metric, justify="right", no_wrap=True)
    grid.add_column("at")
    grid.add_column("run", style="dim", overflow="fold")
    for trial in trials:
        outcome = trial.outcome
        cells: list[RenderableType] = [Text(trial.job.name, style="bold")]
        cells.append(_metric(outcome.value if outcome else None))
        if goal.tie_breaker:
            cells.append(_metric(outcome.tie_breaker if outcome else None))
        grid.add_row(*cells, Text(_params(trial.job.params), style="cyan"), trial.run or "")
    return Padding(grid, (1, 0, 1, 2), expand=False)


def footer(status: SweepStatus, elapsed: float) -> Text:
    """One line: how much is done, how long it took, how long it will take."""
    parts = [f"{status.ended}/{status.total} runs", f"{in_words(elapsed)} so far"]
    if status.done:
        parts[1] = in_words(elapsed)
    elif status.eta is not None:
        parts.append(f"about {in_words(status.eta)} to go")
    return Text("  " + " · ".join(parts), style="dim")


def _progress(done: int, total: int, with_bar: bool) -> RenderableType:
    count = Text(f"{done:>{len(str(total))}}/{total}" if total else "–", style="" if done else "dim")
    if not with_bar or not total:
        return count
    bar = ProgressBar(total, done, width=_BAR, style="grey30", complete_style="blue", finished_style="green")
    both = Table.grid(padding=(0, 1))
    both.add_row(bar, count)
    return both


def _counts(arm: ArmStatus) -> Text:
    """What is worth a word: how many run, diverged, failed."""
    counts = (
        (arm.running, "running", "cyan"),
        (arm.interrupted, "interrupted", "magenta"),
        (arm.diverged, "diverged", "yellow"),
        (arm.pruned, "pruned", "dim"),
        (arm.cancelled, "cancelled", "dim"),
        (arm.failed, "failed", "red"),
    )
    return Text("  ").join(Text(f"{number} {word}", style=style) for number, word, style in counts if number)


def _metric(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.3g}"


def _params(params: dict[str, Value]) -> str:
    """The point in short: optim.lr=0.1 is lr=0.1, as long as no other key ends so."""
    ends = [key.rsplit(".", 1)[-1] for key in params]
    names = [end if ends.count(end) == 1 else key for key, end in zip(params, ends, strict=True)]
    return "  ".join(f"{name}={_number(value)}" for name, value in zip(names, params.values(), strict=True))


def _number(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _leader(status: SweepStatus) -> ArmStatus | None:
    """The arm whose best is the best of all, once there are two to compare."""
    winners = {arm.best.key: arm for arm in status.arms if arm.best}
    leader = best([arm.best for arm in status.arms if arm.best], status.spec.objective)
    return winners[leader.key] if leader and len(winners) > 1 else None
