"""Which values of the searched parameters did well: every trial against its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbi_lightning.comparison.figures.drawing import (
    Look,
    height,
    height_label,
    log_axis,
    looks,
    name_panel,
    padded,
    point_style,
    short,
    value_axis,
    zero_height,
    zero_note,
)
from bbi_lightning.comparison.figures.picture import Picture, key_of
from bbi_lightning.comparison.figures.style import INK, PAPER, Style
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import rank_trials
from bbi_lightning.comparison.sweep_data import Arm, Axis

_READING = "Every trial is a point; a star is the best of a search, crosses at the upper edge diverged."


@dataclass(frozen=True)
class Trials:
    """An arm's trials as they are drawn: arrays of one length.

    `y` is the height of the validation metric (NaN without one), `diverged` whether the loss did, `chosen`
    whether the trial is the best of its study. Of all arms together are `lowest` (where zero is drawn),
    `limits` and `every` (the finite heights, drawn).
    """

    result: ArmResult
    look: Look
    y: NDArray[np.float64]
    diverged: NDArray[np.bool_]
    chosen: NDArray[np.bool_]
    lowest: float
    limits: tuple[float, float]
    every: NDArray[np.float64]

    def place(self, axis: Axis) -> NDArray[np.float64]:
        """The trials' values on a numeric axis; NaN where it was not searched."""
        return np.array([_number(run.params.get(axis.key)) for run in self.result.trials], dtype=np.float64)

    def choices(self, axis: Axis) -> NDArray[np.float64]:
        """The places of the trials' choices; NaN where it was not searched."""
        places = {repr(choice): float(place) for place, choice in enumerate(axis.choices)}
        return np.array(
            [places.get(repr(run.params.get(axis.key)), math.nan) for run in self.result.trials],
            dtype=np.float64,
        )


def drawn_trials(c: Comparison) -> list[Trials]:
    """The trials of every arm that has some, on common limits; none when no trial has a value."""
    heights = np.concatenate([height(r.values, c.validation) for r in c.results])
    heights = heights[np.isfinite(heights)]
    if not heights.size:
        return []
    lowest = zero_height(heights)
    drawn = np.maximum(heights, lowest)
    room = 0.12 * float(np.ptp(drawn)) or 1.0
    logarithmic = math.isfinite(lowest)
    limits = (
        (float(drawn.min() / 1.4), float(drawn.max() * 1.9))
        if logarithmic
        else (float(drawn.min() - room), float(drawn.max() + 1.5 * room))
    )
    look_of = looks(c.sweep.arms)
    return [
        Trials(
            result=r,
            look=look_of[r.arm.name],
            y=np.maximum(height(r.values, c.validation), lowest),
            diverged=np.array([run.state == "diverged" for run in r.trials], dtype=bool),
            chosen=_bests(c, r),
            lowest=lowest,
            limits=limits,
            every=drawn,
        )
        for r in c.results
        if r.trials
    ]


def _bests(c: Comparison, r: ArmResult) -> NDArray[np.bool_]:
    """Which trials are the best of their study."""
    o = c.sweep.objective
    ties = [run.final(o.tie_metric) for run in r.trials] if o.tie_metric else None
    ranking = rank_trials(r.values, o.direction, ties, o.tie_direction)
    best = {r.trials[place].study: place for place in reversed(ranking)}
    return np.isin(np.arange(len(r.trials)), list(best.values()))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def sensitivities(c: Comparison) -> list[Picture]:
    """Validation metric of every trial against its learning rate, a small picture for each arm."""
    return [
        _sensitivity(c, trials, axis)
        for trials in drawn_trials(c)
        if (axis := learning_rate(trials.result.arm)) is not None
    ]


def learning_rate(arm: Arm) -> Axis | None:
    """The axis of a sensitivity picture: the learning rate, else the first logarithmic or numeric one."""
    numeric = [axis for axis in arm.space if not axis.choices]

    def rank(axis: Axis) -> tuple[bool, bool, bool]:
        return axis.key.rpartition(".")[2] != "lr", not axis.key.endswith("lr"), not axis.log

    return min(numeric, key=rank, default=None)


def _sensitivity(c: Comparison, t: Trials, axis: Axis) -> Picture:
    r, name, x = t.result, short(axis.key), t.place(axis)

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(2.35, width="small")
            axes = figure.add_subplot()
            points(axes, style, t, x, t.y)
            edge: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": INK, "linewidths": 1.3}
            lost = t.diverged & np.isfinite(x)
            axes.scatter(x[lost], np.full(lost.sum(), 0.96), s=28 * style.scale, marker="x", **edge)
            axes.set_ylim(*t.limits)
            axes.set_xlim(*padded(axis))
            value_axis(axes, "y", t.lowest)
            if axis.log:
                log_axis(axes, "x")
            axes.set_xlabel(name)
            axes.set_ylabel(height_label(c.validation))
            name_panel(axes, r.arm.label)
        return figure

    best = r.best.params.get(axis.key) if r.best else None
    chosen = f"the best at {best:.4g}" if isinstance(best, (int, float)) else "none finished"
    data = [
        {"arm": r.arm.name, "study": run.study, "trial": run.number, axis.key: run.params.get(axis.key)}
        | {c.validation.name: value, "state": run.state, "chosen": bool(of_study)}
        for run, value, of_study in zip(r.trials, r.values, t.chosen, strict=True)
        if axis.key in run.params
    ]
    return Picture(
        key_of("sensitivity", r.arm.name),
        "sensitivity",
        r.arm.label,
        "",
        f"{height_label(c.validation)} of {len(data)} trials of {r.arm.label}, {name} {axis.low:g} "
        f"to {axis.high:g}: {chosen}, {t.diverged.sum()} diverged.",
        draw,
        data,
        small=True,
        reading=f"{_READING} {zero_note(c.validation)}".strip(),
    )


def points(axes: Axes, style: Style, t: Trials, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Trials with a value as points, the best of each study as a star."""
    plain, star = ~t.chosen & np.isfinite(t.y), t.chosen
    axes.scatter(x[plain], y[plain], s=22 * style.scale, marker=t.look.marker, **point_style(t.look))
    edge: dict[str, Any] = {"edgecolor": PAPER, "linewidths": 0.9 * style.size}
    axes.scatter(x[star], y[star], s=190 * style.scale, marker="*", color=t.look.colour, zorder=3, **edge)
