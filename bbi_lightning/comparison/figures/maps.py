"""Two searched parameters at once: the validation metric over the learning rate and one more key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Affine2D
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from bbi_lightning.comparison.figures.drawing import (
    PADDING,
    height_label,
    log_axis,
    name_panel,
    padded,
    short,
    write_value,
)
from bbi_lightning.comparison.figures.picture import Picture, key_of
from bbi_lightning.comparison.figures.sensitivity import Trials, drawn_trials, learning_rate
from bbi_lightning.comparison.figures.style import INK, Style
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.statistics import Importance
from bbi_lightning.comparison.sweep_data import Axis

_MOST = 3  # maps of an arm
_SHADES = 6
_ALPHA = (0.04, 0.8)
_READING = (
    "Maps: the stronger the shade, the better; it is interpolated between trials, and there is none beyond "
    "them. Every trial is a point; a star is the best of a search, crosses diverged."
)
_WORST = 0.15  # share of all trials that share the palest shade


def maps(c: Comparison, importance: Mapping[str, Importance]) -> list[Picture]:
    """The validation metric over the learning rate and another searched key, small pictures.

    Of an arm with many keys those are drawn that matter most, where the importances can be trusted.

    Args:
        c: the comparison.
        importance: of each arm's keys, as far as known.
    """
    pictures: list[Picture] = []
    for t in drawn_trials(c):
        first = learning_rate(t.result.arm)
        others = [axis for axis in t.result.arm.space if axis is not first]
        known = importance.get(t.result.arm.name)
        if known is not None and known.trustworthy:
            weight = dict(zip(known.names, known.main + known.pairs.sum(axis=1), strict=True))
            others.sort(key=lambda axis: -weight.get(axis.key, 0.0))
        if first is not None:
            drawn = [m for axis in others[:_MOST] if (m := _map(c, t, first, axis)) is not None]
            pictures += drawn
    return [replace(pictures[0], caption=_READING), *pictures[1:]] if pictures else []


def _map(c: Comparison, t: Trials, first: Axis, second: Axis) -> Picture | None:
    x = t.place(first)
    y = t.choices(second) if second.choices else t.place(second)
    both = np.isfinite(x) & np.isfinite(y)
    if np.count_nonzero(both & np.isfinite(t.y)) < 2:
        return None
    r, names = t.result, (short(first.key), short(second.key))

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(2.35, width="small")
            axes = figure.add_subplot()
            axes.grid(visible=False)
            _scales(axes, first, second)
            shades = _Shades(c, t)
            if not second.choices:
                _surface(axes, t, shades, _unit(first, x), _unit(second, y))
            spread = _apart(y, both) if second.choices else y
            _trials(axes, style, t, shades, x, spread, both)
            shades.bar(figure, axes, height_label(c.validation))
            axes.set_xlabel(names[0])
            axes.set_ylabel(names[1])
            name_panel(axes, r.arm.label)
        return figure

    data = [
        {"arm": r.arm.name, "study": run.study, "trial": run.number}
        | {first.key: run.params[first.key], second.key: run.params[second.key]}
        | {c.validation.name: value, "state": run.state, "chosen": bool(chosen)}
        for run, value, chosen, there in zip(r.trials, r.values, t.chosen, both, strict=True)
        if there
    ]
    chosen = f"the best at {_at(r.best.params, first, second)}" if r.best else "none finished"
    lost = int((t.diverged & both).sum())
    return Picture(
        key_of("map", r.arm.name, second.key.removeprefix("optim.")),
        "sensitivity",
        f"{r.arm.label}: {names[0]} and {names[1]}",
        "",
        f"{height_label(c.validation)} of {len(data)} trials of {r.arm.label} over {' and '.join(names)}: "
        f"{chosen}, {lost} diverged.",
        draw,
        data,
        small=True,
        reading=_READING,
    )


def _at(params: Mapping[str, Any], *axes: Axis) -> str:
    def write(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return " and ".join(f"{short(axis.key)} {write(params.get(axis.key))}" for axis in axes)


class _Shades:
    """Shades of an arm's own colour, the darkest where the metric is best; the same steps for all arms."""

    def __init__(self, c: Comparison, t: Trials) -> None:
        self.logarithmic = math.isfinite(t.lowest)
        self.low_is_good = c.validation.is_share or c.validation.sign < 0
        # the worst trials would take all shades, and the question is about the good ones
        ends = (1 - _WORST, 1) if not self.low_is_good else (0, 1 - _WORST)
        low, high = map(float, np.quantile(self.scaled(t.every), ends))
        self.levels = np.linspace(low, high if high > low else low + 1, _SHADES + 1)
        alphas = np.linspace(*(_ALPHA[::-1] if self.low_is_good else _ALPHA), _SHADES)
        self.colours = [to_rgba(t.look.colour, float(alpha)) for alpha in alphas]
        self.norm = BoundaryNorm(self.levels.tolist(), _SHADES)

    def scaled(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights as they are interpolated."""
        return np.log10(y) if self.logarithmic else y

    def bar(self, figure: Figure, axes: Axes, label: str) -> None:
        """The legend of the shades."""
        shown = ScalarMappable(norm=self.norm, cmap=ListedColormap(self.colours))
        bar = figure.colorbar(shown, ax=axes, aspect=24, pad=0.02, ticks=self.levels[::2].tolist())
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize="small")
        bar.minorticks_off()
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: self._written(v)))
        bar.set_label(label, size="small")

    def _written(self, v: float) -> str:
        value = 10**v if self.logarithmic else v
        beyond = "≥" if self.low_is_good and v >= self.levels[-2] else ""
        beyond = "≤" if not self.low_is_good and v <= self.levels[1] else beyond
        return beyond + write_value(value)


def _scales(axes: Axes, first: Axis, second: Axis) -> None:
    for which, axis in (("x", first), ("y", second)):
        if axis.choices:
            axes.set_yticks(range(len(axis.choices)), [str(choice) for choice in axis.choices])
            axes.set_ylim(-0.5, len(axis.choices) - 0.5)
            continue
        (axes.set_xlim if which == "x" else axes.set_ylim)(*padded(axis))
        if axis.log:
            log_axis(axes, which)


def _unit(axis: Axis, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in [0, 1] of an interval, on its own scale."""
    if axis.log:
        return np.asarray(np.log(value / axis.low) / math.log(axis.high / axis.low))
    return (value - axis.low) / (axis.high - axis.low)


def _surface(axes: Axes, t: Trials, shades: _Shades, u: NDArray[np.float64], v: NDArray[np.float64]) -> None:
    """Linear interpolation inside the triangles between trials, and nowhere else: not beyond the outermost
    ones, not where a corner diverged."""
    usable = np.isfinite(u) & np.isfinite(v) & (np.isfinite(t.y) | t.diverged)
    u, v, lost, y = u[usable], v[usable], t.diverged[usable], t.y[usable]
    if usable.sum() < 4:
        return
    try:
        triangles = Triangulation(u, v)
    except (RuntimeError, ValueError):  # all on one line
        return
    triangles.set_mask(lost[triangles.triangles].any(axis=1))
    if triangles.mask is not None and triangles.mask.all():
        return
    z = shades.scaled(np.where(lost, np.nanmax(np.where(lost, np.nan, y)), y))
    margin = PADDING / (1 + 2 * PADDING)  # limits are padded: places are linear in the axes' own frame
    frame = Affine2D().scale(1 / (1 + 2 * PADDING)).translate(margin, margin) + axes.transAxes
    axes.tricontourf(
        triangles, np.clip(z, shades.levels[0], shades.levels[-1]), levels=shades.levels,
        colors=shades.colours, transform=frame, antialiased=True,
    )  # fmt: skip


def _apart(y: NDArray[np.float64], both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Places of choices, moved a little so that trials do not hide each other."""
    order = np.cumsum(both) * 0.618
    return y + 0.5 * (order % 1 - 0.5)


def _trials(
    axes: Axes,
    style: Style,
    t: Trials,
    shades: _Shades,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    both: NDArray[np.bool_],
) -> None:
    known, lost = both & np.isfinite(t.y), both & t.diverged
    place = shades.norm(shades.scaled(t.y[known])).clip(0, _SHADES - 1)
    faces = [shades.colours[int(i)] for i in place]
    edge: dict[str, Any] = {"edgecolors": INK, "linewidths": 0.6 * style.size}
    axes.scatter(x[known], y[known], s=20 * style.scale, c=faces, marker="o", **edge)
    axes.scatter(x[lost], y[lost], s=24 * style.scale, marker="x", color=INK, linewidths=1.2 * style.size)
    best = t.chosen & both
    axes.scatter(x[best], y[best], s=150 * style.scale, marker="*", color=INK, zorder=3)
