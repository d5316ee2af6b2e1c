"""How many steps, and how much time, a target takes: 1 − Kaplan–Meier, with ticks where runs gave up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbi_lightning.comparison.curves import Axis
from bbi_lightning.comparison.figures.drawing import (
    Look,
    counted_axis,
    legend,
    long_label,
    looks,
    write_value,
)
from bbi_lightning.comparison.figures.picture import AXES, Picture
from bbi_lightning.comparison.figures.style import Style
from bbi_lightning.comparison.matching import Reaching, reaching
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.statistics import Survival

_MOST_BANDS = 4  # these bands are wide: more of them on each other hide everything


def times_to_target(c: Comparison) -> list[Picture]:
    """Share of the replicates that have reached what the baseline ends with, against each axis.

    Two targets: the validation metric, and the training loss.
    """
    pictures = []
    for key, metric in (("target", c.validation), ("target-loss", Metric("train/loss", "minimize"))):
        if key != "target" and metric.name == c.validation.name:
            continue
        known = [(axis, reaching(c, metric.name, metric.direction, cast("Axis", axis))) for axis in AXES]
        whole = next((len(k.arms) for _, k in known if k is not None), 0)
        pictures += [_picture(c, key, metric, k) for _, k in known if k is not None and len(k.arms) == whole]
    return pictures


def _picture(c: Comparison, key: str, metric: Metric, known: Reaching) -> Picture:
    look_of, target = looks(c.sweep.arms), _written(metric, known.target)
    better = "at least" if metric.sign > 0 else "at most"
    interval = "; band: 95 % interval" if len(known.arms) <= _MOST_BANDS else ""

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(3.3)
            axes = figure.add_subplot()
            end = max(float(s.time[-1]) for s in known.survival)
            for arm, s in zip(known.arms, known.survival, strict=True):
                look = look_of[arm.name]
                if len(known.arms) <= _MOST_BANDS:
                    _band(axes, look, s, end)
                _steps(axes, style, look, s, arm.label, end)
            axes.set_ylim(-2, 104)
            axes.set_xlim(0, end * 1.02)
            counted_axis(axes)
            long_label(axes, f"{AXES[known.axis]} to {metric.label} {target}")
            axes.set_ylabel("replicates there (%)")
            legend(axes)
        return figure

    told = "; ".join(
        f"{arm.label} {_median(s, known.axis)}, {s.n - s.censored} of {s.n} there"
        for arm, s in zip(known.arms, known.survival, strict=True)
    )
    return Picture(
        key if known.axis == "step" else f"{key}-{known.axis}",
        "curves",
        "Time to the baseline's validation result" if key == "target" else "Time to the baseline's loss",
        f"Share of the replicates that have had a {metric.label} of {better} {target} once, the median that "
        f"{c.baseline.label} ends with (1 minus Kaplan–Meier{interval}). A tick is a run that "
        "ended before it got there.",
        f"{AXES[known.axis]} to a {metric.label} of {target}, median: {told}.",
        draw,
        _rows(known),
        group=key,
        axis=known.axis,
    )


def _steps(axes: Axes, style: Style, look: Look, s: Survival, label: str, end: float) -> None:
    x = np.append(s.time, end)
    share = 100 * (1 - np.append(s.survival, s.survival[-1]))
    axes.plot(x, share, drawstyle="steps-post", color=look.colour, linestyle=look.dash, label=label)
    gone = s.censored_at > 0
    if gone.any():
        size = 7 * style.size
        axes.plot(s.time[gone], share[:-1][gone], "|", color=look.colour, markersize=size, label="_")


def _band(axes: Axes, look: Look, s: Survival, end: float) -> None:
    """The interval, from the first passage on: before it there is nothing that arms could differ in."""
    x = np.append(s.time, end)
    low, high = (100 * (1 - np.append(y, y[-1])) for y in (s.high, s.low))
    begun = np.append(s.survival, s.survival[-1]) < 1
    axes.fill_between(x, low, high, where=begun, step="post", color=look.colour, alpha=0.12, linewidth=0)


def _written(metric: Metric, target: float) -> str:
    return metric.text(target) if metric.is_share else write_value(target, 3)


def _median(s: Survival, axis: str) -> str:
    if not math.isfinite(s.median.value):
        return "not reached by half"
    return write_value(s.median.value, 3) + (" s" if axis == "time" else "")


def _rows(known: Reaching) -> Sequence[dict[str, object]]:
    return [
        {"arm": arm.name, "target": known.target, known.axis: float(at), "reached": bool(there)}
        for arm, durations, reached in zip(known.arms, known.durations, known.reached, strict=True)
        for at, there in zip(durations, reached, strict=True)
    ]
