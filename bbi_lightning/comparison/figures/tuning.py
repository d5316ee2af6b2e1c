"""What a number of trials buys."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bbi_lightning.comparison.figures.drawing import (
    banded_line,
    height,
    height_label,
    legend,
    looks,
    value_axis,
    zero_height,
    zero_note,
)
from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.figures.style import Style
from bbi_lightning.comparison.results import Comparison


def tuning(c: Comparison) -> Picture | None:
    """Expected validation metric of the best of k trials."""
    curves = [(r.arm, r.tuning) for r in c.results if r.tuning is not None and r.tuning.k.size > 1]
    if not curves:
        return None
    look_of, metric = looks(c.sweep.arms), c.validation
    # a mean over subsets may lie below the smallest error that a single trial can have
    lowest = zero_height(np.concatenate([height(r.values, metric) for r in c.results])) / 5

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(3.3)
            axes = figure.add_subplot()
            for arm, t in curves:
                value, low, high = (np.maximum(height(v, metric), lowest) for v in (t.value, t.low, t.high))
                banded_line(
                    axes, look_of[arm.name], t.k, value, low, high, arm.label, points=True, crowd=len(curves)
                )
            value_axis(axes, "y", lowest)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("trials spent on tuning, k")
            axes.set_ylabel(f"best {height_label(metric)} of k")
            legend(axes)
        return figure

    ends = "; ".join(
        f"{arm.label} {metric.text(t.value[0])} for one, {metric.text(t.value[-1])} for {t.k.size}"
        for arm, t in curves
    )
    caption = (
        "Mean over all subsets of k of the trials. The band is a 95 % bootstrap interval; it stops at "
        "half of the trials, beyond which they are too few to give one. A diverged or failed trial "
        f"counts as the worst value seen in any arm ({metric.text(c.penalty)}). {zero_note(metric)}"
    )
    data = [
        {"arm": arm.name, "k": k, "best": best, "low": low, "high": high}
        for arm, t in curves
        for k, best, low, high in zip(
            t.k.tolist(), t.value.tolist(), t.low.tolist(), t.high.tolist(), strict=True
        )
    ]
    return Picture(
        "tuning",
        "tuning",
        "Best after k trials",
        caption.strip(),
        f"Expected best {metric.label} after k trials: {ends}.",
        draw,
        data,
    )
