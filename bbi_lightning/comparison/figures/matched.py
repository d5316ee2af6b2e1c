"""Generalisation at matched training loss: who is better where both fit the training data equally well."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bbi_lightning.comparison.figures.drawing import (
    banded_line,
    height,
    height_label,
    legend,
    log_axis,
    looks,
    value_axis,
    write_value,
    zero_height,
    zero_note,
)
from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.figures.style import Style
from bbi_lightning.comparison.matching import Matched, matched
from bbi_lightning.comparison.results import Comparison


def matched_loss(c: Comparison) -> Picture | None:
    """The validation metric where the training loss first reached each level."""
    known = matched(c)
    if known is None:
        return None
    look_of, metric = looks(c.sweep.arms), known.metric
    lowest = zero_height(np.concatenate([height(arm.low, metric) for arm in known.arms]))

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(3.3)
            axes = figure.add_subplot()
            for own in known.arms:
                look = look_of[own.arm.name]
                low, middle, high = (
                    np.maximum(height(v, metric), lowest) for v in (own.low, own.median, own.high)
                )
                banded_line(axes, look, known.levels, middle, low, high, own.arm.label, crowd=len(known.arms))
                end = np.maximum(height(own.final, metric), lowest)
                axes.plot(
                    own.final_loss, end, marker=look.marker, markersize=7 * style.size, color=look.colour
                )
            log_axis(axes, "x")
            value_axis(axes, "y", lowest)
            axes.invert_xaxis()
            axes.set_xlabel("training loss first reached")
            axes.set_ylabel(height_label(metric))
            legend(axes)
        return figure

    return Picture(
        "matched",
        "matched",
        f"{height_label(metric).removesuffix(' (%)').capitalize()} at the same training loss",
        "Where a run's smoothed training loss first reaches a value, its validation metric is read: at one "
        "place of the axis all arms fit the training data equally well. Median over the replicates, band: "
        f"the middle half; the marker is the end of training. {zero_note(metric)}".strip(),
        f"{height_label(metric)} at matched training loss: {_told(known)}.",
        draw,
        [
            {"arm": own.arm.name, "training loss": level, "median": m, "low": low, "high": high, "runs": runs}
            for own in known.arms
            for level, m, low, high, runs in zip(
                known.levels.tolist(), own.median.tolist(), own.low.tolist(), own.high.tolist(),
                own.runs.tolist(), strict=True,
            )
            if runs
        ],
    )  # fmt: skip


def _told(known: Matched) -> str:
    """The arms at the least training loss that all of them reached."""
    common = np.all([np.isfinite(own.median) for own in known.arms], axis=0)
    if not common.any():
        return "no training loss was reached by all arms"
    place = int(np.flatnonzero(common)[-1])
    arms = "; ".join(f"{own.arm.label} {known.metric.text(own.median[place])}" for own in known.arms)
    return f"at {write_value(known.levels[place])}, the least that all arms reached, {arms}"
