"""The pictures of a comparison, one colour and one marker an arm in all of them.

Every function takes a comparison and returns a `Picture`, or None where the runs cannot give one yet.
Accuracies are drawn as error rates on a logarithmic axis, where 98 % and 99 % are as far apart as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bbi_lightning.comparison.curves import band, thin
from bbi_lightning.comparison.figures.drawing import (
    Look,
    draw_row,
    height,
    height_label,
    legend,
    log_axis,
    looks,
    name_rows,
    padded,
    point_style,
    zero_height,
)
from bbi_lightning.comparison.figures.svg import INK, PAPER, drawing_style, new_figure, to_markup
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.sweep_data import Arm, Axis, Run

_WIDTH = 5.0  # inches: one column of the page, and the whole of a phone's
_SMALL = (2.9, 2.35)
_MANY_BOUNCES = 60  # beyond it a line for each would hide the curve


@dataclass(frozen=True)
class Picture:
    """A figure of the page: `key` is unique, `description` is for those who do not see it."""

    key: str
    title: str
    caption: str
    description: str
    markup: str


def outcomes(c: Comparison) -> Picture | None:
    """Test metric of every replicate, with mean and interval."""
    rows = [
        (r.arm, np.array([run.final(c.test.name) for run in r.finished]), r.mean) for r in c.results if r.mean
    ]
    unit = f" ({c.test.unit})" if c.test.unit else ""
    return _rows_picture(
        c,
        "outcomes",
        f"{c.test.label.capitalize()} of the replicates",
        "Every replicate is a point. Below the points: their mean and its 95 % interval.",
        rows,
        c.test.label + unit,
    )


def differences(c: Comparison) -> Picture | None:
    """Paired difference of every arm to the baseline, with interval and zero line."""
    by_seed = {run.seed: run.final(c.test.name) for run in c.result(c.baseline.name).finished}
    rows = []
    for r in c.contestants:
        if r.versus is not None:
            pairs = [run for run in r.finished if run.seed in by_seed]
            values = np.array([run.final(c.test.name) - by_seed[run.seed] for run in pairs])
            rows.append((r.arm, values, r.versus.difference))
    side = "right" if c.test.sign > 0 else "left"
    unit = " (percentage points)" if c.test.is_share else ""
    return _rows_picture(
        c,
        "differences",
        f"Difference to {c.baseline.label}, seed by seed",
        "Every pair of replicates with one seed is a point. Below the points: the mean difference and its "
        f"95 % interval. Better is to the {side}; an interval across the line at zero shows no difference.",
        rows,
        f"{c.test.label} minus that of {c.baseline.label}{unit}",
        zero=True,
    )


def _rows_picture(
    c: Comparison,
    key: str,
    title: str,
    caption: str,
    rows: Sequence[tuple[Arm, NDArray[np.float64], Estimate]],
    label: str,
    *,
    zero: bool = False,
) -> Picture | None:
    if not rows:
        return None
    look_of, scale = looks(c.sweep.arms), c.test.scale
    with drawing_style():
        figure = new_figure(_WIDTH, 0.75 + 0.62 * len(rows))
        axes = figure.add_subplot()
        if zero:
            axes.axvline(0, color=INK, linewidth=1.1)
        for y, (arm, values, e) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            scaled = replace(e, value=e.value * scale, low=e.low * scale, high=e.high * scale)
            draw_row(axes, y, look_of[arm.name], scale * values[np.isfinite(values)], scaled)
        name_rows(axes, [arm.label for arm, _, _ in rows])
        axes.set_xlabel(label)
        told = "; ".join(
            f"{arm.label} {c.test.number(e.value, signed=zero)}, "
            f"95 % interval {c.test.interval(e, signed=zero)}"
            for arm, _, e in rows
        )
        return _picture(figure, key, title, caption, f"{label}: {told}.")


def training_loss(c: Comparison) -> Picture | None:
    """Training loss of the replicates against steps."""
    return _curves(c, "loss", "Training loss", "train/loss", "training loss", None)


def validation_curve(c: Comparison) -> Picture | None:
    """The validation metric of the replicates against steps, an accuracy as its error rate."""
    title = "Validation error" if c.validation.is_share else c.validation.label.capitalize()
    return _curves(c, "validation", title, c.validation.name, height_label(c.validation), c.validation)


def _curves(
    c: Comparison, key: str, title: str, name: str, label: str, metric: Metric | None
) -> Picture | None:
    curves = {r.arm: [run.curve(name) for run in r.replicates] for r in c.results}
    bands = [(arm, b) for arm, own in curves.items() if (b := band(own)).step.size > 1]
    if not bands:
        return None
    look_of = looks(c.sweep.arms)
    lowest = zero_height(np.concatenate([height(x.value, metric) for own in curves.values() for x in own]))
    with drawing_style():
        figure = new_figure(_WIDTH, 3.3)
        axes = figure.add_subplot()
        for arm, b in bands:
            low, median, high = (np.maximum(height(v, metric), lowest) for v in (b.low, b.median, b.high))
            _banded_line(axes, look_of[arm.name], b.step, median, low, high, arm.label)
        log_axis(axes, "y")
        axes.margins(x=0.01)
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel(label)
        legend(axes)
        ends = "; ".join(f"{arm.label} ends at {height(b.median, metric)[-1]:.3g}" for arm, b in bands)
        return _picture(
            figure,
            key,
            title,
            "Median over the replicates; the band is the middle half of them. " + _zero_note(metric),
            f"{label} against optimizer steps, median over the replicates: {ends}.",
        )


def tuning(c: Comparison) -> Picture | None:
    """Expected validation metric of the best of k trials."""
    curves = [(r.arm, r.tuning) for r in c.results if r.tuning is not None and r.tuning.k.size > 1]
    if not curves:
        return None
    look_of, metric = looks(c.sweep.arms), c.validation
    # a mean over subsets may lie below the smallest error that a single trial can have
    lowest = zero_height(np.concatenate([height(r.values, metric) for r in c.results])) / 5
    with drawing_style():
        figure = new_figure(_WIDTH, 3.3)
        axes = figure.add_subplot()
        for arm, t in curves:
            value, low, high = (np.maximum(height(v, metric), lowest) for v in (t.value, t.low, t.high))
            _banded_line(axes, look_of[arm.name], t.k, value, low, high, arm.label, points=True)
        log_axis(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trials spent on tuning, k")
        axes.set_ylabel(f"best {height_label(metric)} of k")
        legend(axes)
        ends = "; ".join(
            f"{arm.label} {metric.text(t.value[0])} for one, {metric.text(t.value[-1])} for {t.k.size}"
            for arm, t in curves
        )
        return _picture(
            figure,
            "tuning",
            "Best after k trials",
            "Mean over all subsets of k of the trials. The band is a 95 % bootstrap interval; it stops at "
            "half of the trials, beyond which they are too few to give one. A diverged or failed trial "
            f"counts as the worst value seen in any arm ({metric.text(c.penalty)}). " + _zero_note(metric),
            f"Expected best {metric.label} after k trials: {ends}.",
        )


def _zero_note(metric: Metric | None) -> str:
    return "Zero error is drawn at the lower edge." if metric is not None and metric.is_share else ""


def _banded_line(
    axes: Axes,
    look: Look,
    x: NDArray[np.int64],
    middle: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    label: str,
    *,
    points: bool = False,
) -> None:
    axes.fill_between(x, low, high, color=look.colour, alpha=0.14, linewidth=0)
    marks: dict[str, Any] = (
        {"marker": look.marker, "markersize": 4, "markevery": max(1, x.size // 16)} if points else {}
    )
    axes.plot(x, middle, color=look.colour, linestyle=look.dash, label=label, **marks)


def sensitivities(c: Comparison) -> list[Picture]:
    """One picture an arm: the validation metric of every search trial against its learning rate."""
    heights = np.concatenate([height(r.values, c.validation) for r in c.results])
    heights = heights[np.isfinite(heights)]
    if not heights.size:
        return []
    lowest = zero_height(heights)
    drawn = np.maximum(heights, lowest)
    limits = (drawn.min() / 1.4, drawn.max() * 1.9)
    axes_of = ((r, learning_rate(r.arm)) for r in c.results if r.trials)
    return [_sensitivity(c, r, axis, lowest, limits) for r, axis in axes_of if axis is not None]


def learning_rate(arm: Arm) -> Axis | None:
    """The axis of a sensitivity picture: the learning rate, else the first logarithmic or numeric one."""
    numeric = [axis for axis in arm.space if not axis.choices]
    return min(numeric, key=lambda axis: (not axis.key.endswith("lr"), not axis.log), default=None)


def _sensitivity(
    c: Comparison, r: ArmResult, axis: Axis, lowest: float, limits: tuple[float, float]
) -> Picture:
    look = looks(c.sweep.arms)[r.arm.name]
    y = np.maximum(height(r.values, c.validation), lowest)
    x = np.array([float(run.params.get(axis.key, math.nan)) for run in r.trials])
    diverged = np.array([run.state == "diverged" for run in r.trials], dtype=bool)
    best = np.array([run is r.best for run in r.trials], dtype=bool)
    name = "learning rate" if axis.key.endswith("lr") else axis.key
    with drawing_style():
        figure = new_figure(*_SMALL)
        axes = figure.add_subplot()
        axes.scatter(x[~best], y[~best], s=22, marker=look.marker, **point_style(look))
        axes.scatter(x[best], y[best], s=190, marker="*", color=look.colour, edgecolor=PAPER, linewidths=0.9)
        edge: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": INK, "linewidths": 1.3}
        axes.scatter(x[diverged], np.full(diverged.sum(), 0.96), s=28, marker="x", **edge)
        axes.set_ylim(*limits)
        axes.set_xlim(*padded(axis))
        log_axis(axes, "y")
        if axis.log:
            log_axis(axes, "x")
        axes.set_xlabel(name)
        axes.set_ylabel(height_label(c.validation))
        axes.set_title(r.arm.label, color=look.colour)
        chosen = f"the best at {r.best.params.get(axis.key)}" if r.best else "none finished"
        return _picture(
            figure,
            f"sensitivity-{r.arm.name}",
            r.arm.label,
            "",
            f"{height_label(c.validation)} of {len(r.trials)} trials of {r.arm.label}, {name} {axis.low:g} "
            f"to {axis.high:g}: {chosen}, {diverged.sum()} diverged.",
        )


def telemetry(c: Comparison) -> Picture | None:
    """Energy of the middle replicate by test metric, of BBI or else of the first arm that logs it."""
    for r in sorted(c.results, key=lambda r: r.arm.name != "bbi"):
        ranked = sorted(r.finished, key=lambda run: run.final(c.test.name))
        run = ranked[(len(ranked) - 1) // 2] if ranked else None
        if run is not None and run.curve("energy/potential_over_energy").step.size > 1:
            return _telemetry(r.arm, looks(c.sweep.arms)[r.arm.name], run)
    return None


def _telemetry(arm: Arm, look: Look, run: Run) -> Picture:
    bounces = run.curve("energy/bounces")
    jumps = bounces.step[1:][np.diff(bounces.value) > 0]
    total = int(np.nansum(np.clip(np.diff(bounces.value, prepend=0), 0, None)))
    with drawing_style():
        figure = new_figure(_WIDTH, 4.8)
        panels = figure.subplots(3, 1, sharex=True)
        _energy_panel(panels[0], run, "energy/potential_over_energy", "V / E", look, jumps)
        _energy_panel(panels[1], run, "energy/energy_error", "energy error", look, jumps)
        _energy_panel(panels[2], run, "energy/speed_over_limit", "speed / limit", look, jumps)
        panels[2].axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        panels[2].set_xlabel("optimizer steps")
        figure.align_ylabels()
        bounced = f"triangles mark the {total} bounces" if total else "no bounce took place"
        return _picture(
            figure,
            "telemetry",
            f"Energy of a {arm.label} run",
            f"The replicate with the middle test result, seed {run.seed}; {bounced}.",
            f"V over E, relative energy error, speed over its limit in {run.name}; {bounced}.",
        )


def _energy_panel(
    axes: Axes, run: Run, metric: str, label: str, look: Look, jumps: NDArray[np.int64]
) -> None:
    curve = thin(run.curve(metric))
    value = np.abs(curve.value)
    axes.plot(curve.step, np.maximum(value, zero_height(value)), color=look.colour, linewidth=1.2)
    log_axis(axes, "y")
    if jumps.size:  # matplotlib cannot lay out a figure with an empty line outside the axes
        top: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "linestyle": "none"}
        axes.plot(jumps, np.ones(jumps.size), marker="v", markersize=5, color=INK, **top)
    for step in jumps if jumps.size <= _MANY_BOUNCES else ():
        axes.axvline(step, color=INK, linewidth=0.8, alpha=0.35)
    axes.set_ylabel(label)
    axes.margins(x=0.01)


def _picture(figure: Figure, key: str, title: str, caption: str, description: str) -> Picture:
    return Picture(key, title, caption, description, to_markup(figure, key, description))
