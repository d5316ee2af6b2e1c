"""The screen of `bbi top`: what is going on in a line, the sweeps, the runs, the alarms, the keys."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from bbi_lightning.cli.live.choosing import Choice, label
from bbi_lightning.cli.live.columns import STATE_STYLES, RunTable, several_sweeps
from bbi_lightning.cli.live.detail import detail
from bbi_lightning.cli.live.gathering import Queue, Scene, Workers
from bbi_lightning.cli.live.words import bar, elided, metric_value, short_duration
from bbi_lightning.tracking.durations import in_words
from bbi_lightning.tracking.live.alarms import Alarm
from bbi_lightning.tracking.live.run_watch import RunView
from bbi_lightning.tracking.live.watch import SweepView

_NUMBER = re.compile(r"\d+([.,]\d+)*(e[+-]?\d+)?")
_OLD = 3.0  # times the interval: then the screen says how old it is
_MOST_SWEEPS = 6
_KEYS = "q quit   s sort   f filter   a show   ↑↓ choose   Enter detail"


class Screen:
    """A scene as lines of text that fit a terminal; a rich renderable.

    Args:
        scene: what there is to show; None while the first look is under way.
        choice: which runs, in which order.
        height: lines; None for all there is to say (then without the line of keys).
        interval: seconds between two looks, to tell when a scene is old.
        roots: folders, as the user named them.
        trouble: a sentence in red below everything.
    """

    def __init__(
        self,
        scene: Scene | None,
        choice: Choice,
        *,
        height: int | None = None,
        interval: float = 2.0,
        roots: Sequence[str] = (),
        trouble: str = "",
    ) -> None:
        self.scene, self.choice, self.height = scene, choice, height
        self.interval, self.roots, self.trouble = interval, roots, trouble

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = not (console.encoding or "").lower().startswith("utf")
        for line in self.lines(options.max_width, plain=plain):
            line.truncate(options.max_width)
            yield line

    def page(self, width: int) -> int:
        """How many runs fit on it."""
        return self._room(list(self._above(width, False)), self._below(width, False))[0] if self.scene else 1

    def count(self) -> int:
        """How many runs are chosen."""
        return len(self.choice.of(self.scene.snapshot.runs)) if self.scene else 0

    def lines(self, width: int, *, plain: bool = False) -> list[Text]:
        """All lines, none longer than `width`, not more than `height`."""
        if self.scene is None:
            where = " and ".join(self.roots)
            return [Text(f"looking at {where} …", style="dim"), *self._trouble()]
        runs = self.choice.of(self.scene.snapshot.runs)
        above, below = list(self._above(width, plain)), self._below(width, plain)
        room, alarm_room = self._room(above, below)
        cursor = min(self.choice.cursor, len(runs) - 1)
        first = max(0, min(cursor - room // 2, len(runs) - room))
        shown = runs[first : first + room]
        table = RunTable(self.scene.snapshot.runs, width, plain=plain)
        lines = [*above, table.titles()]
        lines += [
            table.line(run, chosen=self.height is not None and first + place == cursor)
            for place, run in enumerate(shown)
        ]
        if not runs:
            lines.append(Text(f"  {self._nothing()}", style="dim"))
        if len(shown) < len(runs):
            where = f"{first + 1}–{first + len(shown)} of {len(runs):,}"
            lines.append(Text(f"  {where}", style="dim"))
        if below:
            lines += [Text(), *(below[:alarm_room] if self.choice.detail else _cut(below, alarm_room))]
        lines += self._trouble()
        if self.height is not None:
            lines = lines[: self.height - 1]
            lines += [Text()] * (self.height - 1 - len(lines)) + [self._footer(plain)]
        return lines

    def _room(self, above: list[Text], below: list[Text]) -> tuple[int, int]:
        """Lines for runs, and for alarms."""
        if self.height is None:
            return 10**9, len(below)
        left = self.height - len(above) - 3 - bool(self.trouble)  # titles, "1–9 of 20", keys
        for_alarms = min(len(below), max(2, left * 2 // 3 if self.choice.detail else left // 3))
        return max(1, left - (for_alarms + 1 if below else 0)), for_alarms

    def _above(self, width: int, plain: bool) -> Iterator[Text]:
        assert self.scene is not None
        yield self._headline()
        queue = _queue_line(self.scene.queue)
        if queue:
            yield queue
        yield Text()
        sweeps = sorted(self.scene.snapshot.sweeps, key=_by_activity)
        for sweep in sweeps[:_MOST_SWEEPS]:
            yield _sweep_line(sweep, self.scene.workers.get(sweep.folder, Workers()), width, plain)
        if len(sweeps) > _MOST_SWEEPS:
            yield Text(f"  and {len(sweeps) - _MOST_SWEEPS} more sweeps", style="dim")
        if sweeps:
            yield Text()

    def _headline(self) -> Text:
        assert self.scene is not None
        counts = Counter(run.state for run in self.scene.snapshot.runs)
        line = Text.assemble(("bbi top", "bold"), ("  " + time.strftime("%H:%M:%S"), "dim"))
        for state, style in STATE_STYLES.items():
            if counts[state]:
                line.append(f"  {counts[state]:,} {state}", style=style)
        if not counts:
            line.append("  no runs", style="dim")
        age = time.monotonic() - self.scene.looked
        if self.height is not None and age > max(5.0, _OLD * self.interval):
            line.append(f"  {in_words(age)} old: the disk is slow", style="bold yellow")
        elif not self.scene.snapshot.complete:
            line.append("  reading logs …", style="dim")
        return line

    def _nothing(self) -> str:
        assert self.scene is not None
        if self.scene.snapshot.runs:
            return "no run is like that: press Esc to see all" if self.choice.words else "none"
        return (
            f"there are no runs below {' and '.join(self.roots)} yet: bbi train, or bbi sweep run, makes one"
        )

    def _below(self, width: int, plain: bool) -> list[Text]:
        assert self.scene is not None
        runs = self.choice.of(self.scene.snapshot.runs)
        if self.choice.detail and self.height is not None and runs:
            chosen = runs[min(self.choice.cursor, len(runs) - 1)]
            return detail(chosen, width, max(4, self.height // 4), plain=plain)
        runs.sort(key=lambda run: not run.is_in_trouble)
        with_sweep = several_sweeps(self.scene.snapshot.runs)
        lines = [_alarm_line(alarm, "", width, plain) for alarm in self.scene.alarms]
        for alarm, members in grouped(runs):
            names = elided(label(members[0], with_sweep=with_sweep), max(18, width // 4), plain=plain)
            whose = names if len(members) == 1 else f"{len(members)} runs, {names} first"
            lines.append(_alarm_line(alarm, whose, width, plain))
        return lines

    def _trouble(self) -> list[Text]:
        return [Text(self.trouble, style="bold red")] if self.trouble else []

    def _footer(self, plain: bool) -> Text:
        choice = self.choice
        if choice.typing:
            return Text.assemble(
                ("filter: ", "bold"), choice.words, ("_" if plain else "▏", "bold"),
                ("   Enter keep   Esc clear   !word leaves out", "dim"),
            )  # fmt: skip
        keys = _KEYS.replace("↑↓", "up/down") if plain else _KEYS
        chosen = [f"by {choice.order}", *([choice.view] if choice.view != "all" else [])]
        chosen += [f"filter {choice.words}"] if choice.words.strip() else []
        return Text.assemble((keys, "dim"), ("   " + "   ".join(chosen), "cyan"))


def _cut(alarms: list[Text], room: int) -> list[Text]:
    """So many alarms as there is room for, the last line saying how many are left out."""
    if len(alarms) <= room:
        return alarms
    return [*alarms[: room - 1], Text(f"  and {len(alarms) - room + 1} more alarms", style="dim")]


def grouped(runs: Sequence[RunView]) -> list[tuple[Alarm, list[RunView]]]:
    """Alarms of the same code and sentence, whatever numbers are in it, with their runs; errors first."""
    groups: dict[tuple[str, str], tuple[Alarm, list[RunView]]] = {}
    for run in runs:
        for alarm in run.alarms:
            key = (alarm.code, _NUMBER.sub("#", alarm.sentence))
            groups.setdefault(key, (alarm, []))[1].append(run)
    return sorted(groups.values(), key=lambda group: (group[0].level != "error", -len(group[1])))


def _alarm_line(alarm: Alarm, whose: str, width: int, plain: bool) -> Text:
    mark = ("X" if plain else "✖") if alarm.level == "error" else "!"
    style = "red" if alarm.level == "error" else "yellow"
    sentence = " ".join(alarm.sentence.split())
    return Text.assemble(
        (f"{mark} ", f"bold {style}"), (f"{whose}: " if whose else "", "bold"),
        (elided_end(sentence, width - 2 - (len(whose) + 2 if whose else 0), plain), style), no_wrap=True,
    )  # fmt: skip


def elided_end(text: str, width: int, plain: bool = False) -> str:
    """At most `width` characters, the end left out."""
    return text if len(text) <= width else text[: max(0, width - 1)] + ("~" if plain else "…")


def _queue_line(queue: Queue) -> Text | None:
    if not queue.here:
        return None
    if queue.trouble and not queue.jobs:
        return Text.assemble(("SLURM", "bold"), ("  unknown", "yellow"))
    states = Counter(job.state.lower() for job in queue.jobs)
    waiting = Counter(job.reason for job in queue.jobs if job.state == "PENDING")
    line = Text.assemble(("SLURM", "bold"))
    for state, number in states.most_common():
        line.append(f"  {number} {state}", style="cyan" if state == "running" else "")
    if waiting:
        line.append(f" ({', '.join(reason for reason, _ in waiting.most_common(3))})", style="dim")
    if not queue.jobs:
        line.append("  no jobs", style="dim")
    return line


def _by_activity(sweep: SweepView) -> tuple[bool, bool, str]:
    return (not sweep.counts.get("running"), (sweep.progress or 0.0) >= 1.0, sweep.name)


def _sweep_line(sweep: SweepView, workers: Workers, width: int, plain: bool) -> Text:
    full, empty = bar(sweep.progress, 12 if width < 120 else 24, plain=plain)
    line = Text(no_wrap=True)
    line.append(elided(sweep.name, 24, plain=plain), style="bold")
    line.append(f"  {full}", style="green" if sweep.progress == 1 else "blue")
    line.append(empty, style="bright_black")
    line.append(f"  {sweep.ended}/{sweep.total if sweep.total is not None else '?'}")
    if sweep.eta is not None:
        line.append(f"  {short_duration(sweep.eta)} to go", style="bold")
    for state in ("running", "lost", "failed", "diverged", "interrupted", "pruned"):
        if sweep.counts.get(state):
            line.append(f"  {sweep.counts[state]} {state}", style=STATE_STYLES[state])
    if workers.living:
        line.append(f"  {workers.living} worker{'s' if workers.living > 1 else ''}", style="dim")
    if sweep.best is not None:
        value = metric_value(sweep.metric, sweep.best)
        line.append(f"  best {sweep.metric} {value} {sweep.best_arm}".rstrip(), style="dim")
    return line
