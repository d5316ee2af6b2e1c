"""How training went: metrics against steps, epochs, samples and seconds, one picture for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from bbi_lightning.comparison.curves import (
    Axis,
    Band,
    band,
    batch_sizes,
    thin_rows,
)
from bbi_lightning.comparison.figures.drawing import (
    banded_line,
    counted_axis,
    height,
    height_label,
    legend,
    looks,
    name_panel,
    panels,
    point_style,
    value_axis,
    write_value,
    zero_height,
    zero_note,
)
from bbi_lightning.comparison.figures.picture import AXES, Picture
from bbi_lightning.comparison.figures.style import Style
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.sweep_data import Arm, Run
from bbi_lightning.comparison.verdict import count

_POINTS = 150  # of a band: as many as a column can show
_THREAD = 100  # points of a single run's line


def progress(c: Comparison) -> list[Picture]:
    """Training loss and validation metric of the replicates, each against every axis that the logs have."""
    return [*_curves(c, "loss"), *_curves(c, "validation")]


def training_loss(c: Comparison) -> Picture | None:
    """Training loss of the replicates against steps."""
    return next(iter(_curves(c, "loss", ("step",))), None)


def validation_curve(c: Comparison) -> Picture | None:
    """The validation metric of the replicates against steps, an accuracy as its error rate."""
    return next(iter(_curves(c, "validation", ("step",))), None)


def _subject(c: Comparison, key: str) -> tuple[str, str, str, Metric | None]:
    """Title, name in the log, label and metric of "loss" or "validation"."""
    if key == "loss":
        return "Training loss", "train/loss", "training loss", None
    title = "Validation error" if c.validation.is_share else c.validation.label.capitalize()
    return title, c.validation.name, height_label(c.validation), c.validation


def _curves(c: Comparison, key: str, axes: Sequence[str] = tuple(AXES)) -> list[Picture]:
    _, name, _, metric = _subject(c, key)
    curves = {r.arm.name: [run.curve(name) for run in r.replicates] for r in c.results}
    values = [curve.value for own in curves.values() for curve in own]
    lowest = zero_height(height(np.concatenate(values), metric)) if values else 1.0
    batches = {r.arm.name: batch_sizes(r.replicates) for r in c.results} if "samples" in axes else {}
    pictures: list[Picture] = []
    shown = 0
    for axis in axes:
        bands = []
        for r in c.results:
            b = band(
                curves[r.arm.name], _POINTS, axis=cast("Axis", axis), batches=batches.get(r.arm.name, ())
            )
            if b.step.size > 1 and b.step[-1] > b.step[0]:
                bands.append((r.arm, b))
        # an axis on which an arm is missing that the others show would mislead
        if bands and len(bands) >= shown:
            shown = max(shown, len(bands))
            pictures.append(_bands(c, key, axis, bands, lowest))
    return pictures


def _bands(c: Comparison, key: str, axis: str, bands: Sequence[tuple[Arm, Band]], lowest: float) -> Picture:
    title, _, label, metric = _subject(c, key)
    look_of = looks(c.sweep.arms)

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(3.3)
            axes = figure.add_subplot()
            for arm, b in bands:
                low, median, high = (np.maximum(height(v, metric), lowest) for v in (b.low, b.median, b.high))
                banded_line(axes, look_of[arm.name], b.step, median, low, high, arm.label, crowd=len(bands))
            value_axis(axes, "y", lowest)
            axes.margins(x=0.01)
            counted_axis(axes)
            axes.set_xlabel(AXES[axis])
            axes.set_ylabel(label)
            legend(axes)
        return figure

    ends = "; ".join(
        f"{arm.label} ends at {write_value(float(height(b.median, metric)[-1]), 3)}" for arm, b in bands
    )
    caption = f"Median over the replicates; the band is the middle half of them. {zero_note(metric)}"
    lost = sum(r.count("replicate", "diverged") for r in c.results)
    if lost:
        caption += f" {count(lost, 'replicate')} that diverged took part until then."
    if axis == "time":
        caption += " Seconds on the machine that a run had; one that has ended counts with its last value."
    columns = ("median", "low", "high")
    data = [
        {"arm": arm.name, axis: float(x)} | dict(zip(columns, map(float, row), strict=True))
        for arm, b in bands
        for x, *row in zip(b.step, b.median, b.low, b.high, strict=True)
    ]
    return Picture(
        key if axis == "step" else f"{key}-{axis}",
        "curves",
        title,
        " ".join(caption.split()),
        f"{label} against {AXES[axis]}, median over the replicates: {ends}.",
        draw,
        data,
        group=key,
        axis=axis,
    )


def spread(c: Comparison) -> Picture | None:
    """The validation metric of every single replicate, a panel for each arm: what a median hides."""
    _, name, label, metric = _subject(c, "validation")
    every = [(r, [_line(run, name, metric) for run in r.replicates]) for r in c.results]
    every = [(r, [line for line in lines if len(line) > 1]) for r, lines in every]
    threads = [(r, lines) for r, lines in every if lines]
    if not threads:
        return None
    look_of = looks(c.sweep.arms)
    lowest = zero_height(np.concatenate([line[:, 1] for _, lines in threads for line in lines]))

    def draw(style: Style) -> Figure:
        with style.active():
            figure, grid = panels(style, len(threads))
            for axes, (r, lines) in zip(grid, threads, strict=True):
                look = look_of[r.arm.name]
                drawn = [np.maximum(line, [-math.inf, lowest]) for line in lines]
                width, area = 0.8 * style.scale, 12 * style.scale
                axes.add_collection(LineCollection(drawn, colors=look.colour, linewidths=width, alpha=0.55))
                ends = np.array([line[-1] for line in drawn])
                axes.scatter(ends[:, 0], ends[:, 1], s=area, marker=look.marker, **point_style(look))
                name_panel(axes, r.arm.label)
                axes.autoscale_view()
            value_axis(grid[0], "y", lowest)
            grid[0].yaxis.set_minor_locator(NullLocator())  # in twelve panels they cost a second
            counted_axis(grid[0])
            figure.supxlabel(AXES["step"], fontsize=mpl.rcParams["axes.labelsize"])
            figure.supylabel(label, fontsize=mpl.rcParams["axes.labelsize"])
        return figure

    told = "; ".join(
        f"{r.arm.label} {count(len(lines), 'run')}, ending between "
        f"{write_value(min(line[-1, 1] for line in lines), 3)} and "
        f"{write_value(max(line[-1, 1] for line in lines), 3)}"
        for r, lines in threads
    )
    return Picture(
        "spread",
        "curves",
        "Every replicate",
        f"One line a replicate; a point where it ends. {zero_note(metric)}".strip(),
        f"{label} of every replicate against optimizer steps: {told}.",
        draw,
    )


def _line(run: Run, name: str, metric: Metric | None) -> NDArray[np.float64]:
    """(n, 2): steps and heights of a run's finite values, thin enough to draw."""
    curve = run.curve(name)
    y = height(curve.value, metric)
    rows = thin_rows(y, _THREAD) if y.size > _THREAD else np.flatnonzero(np.isfinite(y))
    return np.column_stack([curve.step[rows], y[rows]])
