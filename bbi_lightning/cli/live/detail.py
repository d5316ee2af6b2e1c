"""One run at length: what it is, where it stands, its loss as a chart, its alarms in full."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from rich.text import Text

from bbi_lightning.cli.live.choosing import label
from bbi_lightning.cli.live.columns import STATE_STYLES
from bbi_lightning.cli.live.words import chart, elided, metric_value, short_number
from bbi_lightning.tracking.durations import in_words
from bbi_lightning.tracking.live.run_watch import RunView

_AXIS = 9  # characters to the left of the chart


def detail(run: RunView, width: int, chart_height: int, *, plain: bool = False) -> list[Text]:
    """Lines about a run.

    Args:
        run: which.
        width: characters.
        chart_height: lines of the chart.
        plain: only ASCII; then there is no chart.
    """
    lines = [_title(run), *_facts(run)]
    for alarm in run.alarms:
        style = "red" if alarm.level == "error" else "yellow"
        lines.append(Text(f"{alarm.code}: {alarm.sentence}", style=style))
    if run.losses and not plain:
        lines += _loss_chart(run, width, chart_height)
    lines.append(Text(elided(str(run.folder), width, plain=plain), style="dim"))
    return lines


def _title(run: RunView) -> Text:
    title = Text.assemble(
        (label(run, with_sweep=True), "bold"), "  ", (run.state, STATE_STYLES.get(run.state, ""))
    )
    if run.host:
        title.append(f" on {run.host}", style="dim")
    if run.since is not None:
        began = time.strftime("%d %b %H:%M", time.localtime(run.since))
        title.append(f"  since {began}", style="dim")
    if run.attempt > 1:
        title.append(f"  attempt {run.attempt}", style="dim")
    if run.took is not None:
        title.append(f"  {in_words(run.took)} trained", style="dim")
    if run.silent is not None and run.silent > 5:
        title.append(f"  silent for {in_words(run.silent)}", style="dim")
    return title


def _facts(run: RunView) -> Iterator[Text]:
    if run.params:
        values = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in run.params.items()
        )
        yield Text("  ".join(values), style="cyan")
    if run.step is not None:
        planned = f" of {run.planned_steps:,}" if run.planned_steps else ""
        line = Text(f"step {run.step:,}{planned}")
        for name, value in (("loss", run.loss), ("began at", run.first_loss), ("lowest", run.lowest_loss)):
            if value is not None:
                line.append(f"  {name} {short_number(value)}")
        yield line
    if run.best is not None or run.newest is not None:
        at = f" at step {run.best_step:,}" if run.best_step is not None else ""
        best, newest = (metric_value(run.metric, value) for value in (run.best, run.newest))
        yield Text(f"{run.metric} best {best}{at}  newest {newest}")
    if run.potential_over_energy is not None:
        error = "" if run.energy_error is None else f"energy error {run.energy_error:.2g}  "
        bounces = "" if run.bounces is None else f"  {run.bounces:.0f} bounces"
        yield Text(f"{error}V/E {run.potential_over_energy:.2g}{bounces}")


def _loss_chart(run: RunView, width: int, height: int) -> Iterator[Text]:
    """The loss, with its highest and lowest value beside it."""
    finite = [loss for loss in run.losses if math.isfinite(loss)]
    ends = {0: max(finite), height - 1: min(finite)} if finite else {}
    each = max(1, (width - _AXIS) // len(run.losses))  # characters a point
    losses = [loss for loss in run.losses for _ in range(each)]
    for row, line in enumerate(chart(losses, width - _AXIS, height)):
        axis = short_number(ends[row]) if row in ends else ""
        yield Text.assemble((f"{axis:>{_AXIS - 1}} ", "dim"), (line, "cyan"))
