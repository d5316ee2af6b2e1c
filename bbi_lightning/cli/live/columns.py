"""The columns of the table of runs: what each says, how wide it is, which go first when there is no room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from bbi_lightning.cli.live.choosing import label
from bbi_lightning.cli.live.words import (
    bar,
    elided,
    metric_value,
    short_count,
    short_duration,
    short_number,
    sparkline,
)
from bbi_lightning.tracking.live.alarms import LARGE_ENERGY_ERROR
from bbi_lightning.tracking.live.run_watch import RunView

STATE_STYLES = {
    "running": "cyan",
    "lost": "bold red",
    "damaged": "bold red",
    "failed": "red",
    "diverged": "yellow",
    "interrupted": "magenta",
    "finished": "green",
    "pruned": "dim",
}
"""The states, those that matter most first."""

_NARROWEST_NAME, _WIDEST_NAME = 12, 46
_A_SIXTH = 6  # of the width is for names, if they are that long
_WIDEST_CURVE = 32
_GAP = 2


@dataclass(frozen=True)
class Column:
    """A column: its title, width in characters, what a run's cell says, and how soon it is left out (the
    column of the highest number first; 0 never)."""

    title: str
    width: int
    cell: Callable[[RunView], tuple[str, str]]
    dispensable: int
    right: bool = True


def _progress(plain: bool) -> Callable[[RunView], tuple[str, str]]:
    def cell(run: RunView) -> tuple[str, str]:
        if run.progress is None:
            return "", "dim"
        full, empty = bar(run.progress, 8, plain=plain)
        return f"{full}{empty} {_share(run.progress):>4}", STATE_STYLES.get(run.state, "")

    return cell


def _share(progress: float) -> str:
    return f"{min(99, int(100 * progress)) if progress < 1 else 100}%"


def _done(run: RunView) -> tuple[str, str]:
    return "" if run.progress is None else _share(run.progress), ""


def _epoch(run: RunView) -> tuple[str, str]:
    if run.epoch is None:
        return "–", "dim"
    return f"{run.epoch}/{run.planned_epochs}" if run.planned_epochs else str(run.epoch), ""


def _step(run: RunView) -> tuple[str, str]:
    if run.step is None:
        return "–", "dim"
    total = f"/{short_count(run.planned_steps)}" if run.planned_steps else ""
    return f"{run.step if total == '' else short_count(run.step)}{total}", ""


def _loss(run: RunView) -> tuple[str, str]:
    style = "bold red" if run.loss is not None and run.loss != run.loss else ""
    return short_number(run.loss), style


def _best(run: RunView) -> tuple[str, str]:
    value = run.best if run.best is not None else run.newest
    text = metric_value(run.metric, value)
    return (text, "") if run.complete and run.best is not None else (text, "dim")


def _energy_error(run: RunView) -> tuple[str, str]:
    if run.energy_error is None:
        return "", ""
    return f"{run.energy_error:.1e}" if run.energy_error < 0.01 else f"{run.energy_error:.2f}", (
        "yellow" if run.energy_error >= LARGE_ENERGY_ERROR else ""
    )


def _ratio(run: RunView) -> tuple[str, str]:
    ratio = run.potential_over_energy
    if ratio is None:
        return "", ""
    return short_number(ratio) if ratio >= 0.001 or ratio == 0 else f"{ratio:.0e}", ""


def _bounces(run: RunView) -> tuple[str, str]:
    return ("" if run.bounces is None else f"{run.bounces:.0f}"), ""


def columns(plain: bool) -> list[Column]:
    """All columns but the mark and the run's name, from left to right; the curve's width is its least."""
    return [
        Column("state", 11, lambda run: (run.state, STATE_STYLES.get(run.state, "")), 2, right=False),
        Column("progress", 13, _progress(plain), 5, right=False),
        Column("done", 4, _done, 1),
        Column("epoch", 9, _epoch, 8),
        Column("step", 13, _step, 11),
        Column("to go", 6, lambda run: (short_duration(run.eta) if run.runs else "", "bold"), 1),
        Column("took", 6, lambda run: (short_duration(run.took), "dim"), 10),
        Column("steps/s", 7, lambda run: (short_count(run.steps_per_second), ""), 9),
        Column("samples/s", 9, lambda run: (short_count(run.samples_per_second), ""), 12),
        Column("training loss", 12, lambda run: ("", "cyan" if run.runs else "dim"), 4, right=False),
        Column("loss", 8, _loss, 3),
        Column("best val", 8, _best, 1),
        Column("E error", 7, _energy_error, 6),
        Column("V/E", 6, _ratio, 7),
        Column("bounces", 7, _bounces, 13),
        Column("host", 12, lambda run: (elided(run.host, 12, plain=plain), "dim"), 14, right=False),
    ]


class RunTable:
    """The table of runs at a width: a title line and a line a run.

    Args:
        runs: all that may be shown, to find which columns say anything and how long names are.
        width: characters.
        plain: only ASCII.
    """

    def __init__(self, runs: Sequence[RunView], width: int, *, plain: bool = False) -> None:
        self._plain = plain
        self._with_sweep = several_sweeps(runs)
        longest = max((len(self._label(run)) for run in runs), default=_NARROWEST_NAME)
        self._columns = _fitting(columns(plain), runs, width - min(longest, width // _A_SIXTH))
        taken = sum(column.width + _GAP for column in self._columns) + 2
        most = max(_NARROWEST_NAME, min(_WIDEST_NAME, width - taken))
        self._name = min(max(_NARROWEST_NAME, longest), most)
        spare = width - taken - self._name
        self._curve = 12 + max(0, min(_WIDEST_CURVE - 12, spare))

    def titles(self) -> Text:
        """The line of titles."""
        parts = [f"  {'run':<{self._name}}"]
        for column in self._columns:
            width = self._curve if column.title == "training loss" else column.width
            title = "loss curve" if column.title == "training loss" else column.title
            parts.append(f"{title:>{width}}" if column.right else f"{title:<{width}}")
        return Text((" " * _GAP).join(parts).rstrip(), style="dim", no_wrap=True)

    def line(self, run: RunView, *, chosen: bool = False) -> Text:
        """A run's line; its name in reverse where it is the chosen one."""
        line = Text(no_wrap=True)
        line.append(*_mark(run, self._plain))
        name = elided(self._label(run), self._name, plain=self._plain)
        line.append(" ").append(f"{name:<{self._name}}", style="bold reverse" if chosen else "bold")
        for column in self._columns:
            text, style = column.cell(run)
            width = column.width
            if column.title == "training loss":
                width = self._curve
                text = sparkline(run.losses, width, plain=self._plain)
            line.append(" " * _GAP)
            line.append(f"{text:>{width}}" if column.right else f"{text:<{width}}", style=style)
        return line

    def _label(self, run: RunView) -> str:
        return label(run, with_sweep=self._with_sweep)


def _mark(run: RunView, plain: bool) -> tuple[str, str]:
    if run.is_in_trouble:
        return ("X" if plain else "✖"), "bold red"
    return ("!", "bold yellow") if run.alarms else (" ", "")


def _fitting(known: list[Column], runs: Sequence[RunView], width: int) -> list[Column]:
    """The columns that say something of these runs, the dispensable ones left out until all fit."""
    silent = {
        "E error": all(run.energy_error is None for run in runs),
        "V/E": all(run.potential_over_energy is None for run in runs),
        "bounces": all(not run.bounces for run in runs),
        "samples/s": all(run.samples_per_second is None for run in runs),
        "to go": all(run.eta is None for run in runs),
        "host": len({run.host for run in runs}) < 2,
    }
    chosen = [column for column in known if not silent.get(column.title) and column.title != "done"]
    while chosen and 2 + sum(column.width + _GAP for column in chosen) > width:
        least = max(chosen, key=lambda column: column.dispensable)
        # without room for the bar its number stays
        number = [column for column in known if column.title == "done" and least.title == "progress"]
        place = chosen.index(least)
        chosen[place : place + 1] = number
    return chosen


def several_sweeps(runs: Iterable[RunView]) -> bool:
    """Whether the runs' sweeps have to be named to tell them apart."""
    return len({run.folder.parent for run in runs if run.sweep}) > 1
