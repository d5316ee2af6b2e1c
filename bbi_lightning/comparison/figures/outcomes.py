"""What the replicates came out at, and how far from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbi_lightning.comparison.figures.drawing import draw_row, long_label, looks, name_rows
from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.figures.style import INK, Style
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.sweep_data import Arm, Run

Row = tuple[Arm, NDArray[np.float64], Estimate, Sequence[Run]]


def outcomes(c: Comparison) -> Picture | None:
    """Test metric of every replicate, with mean and interval."""
    rows = [
        (r.arm, np.array([run.final(c.test.name) for run in r.finished]), r.mean, r.finished)
        for r in c.results
        if r.mean
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
    by_seed = {(run.study, run.seed): run.final(c.test.name) for run in c.result(c.baseline.name).finished}
    rows: list[Row] = []
    for r in c.contestants:
        if r.versus is not None:  # of several studies each pair is drawn, though their mean is what counts
            pairs = [run for run in r.finished if (run.study, run.seed) in by_seed]
            values = np.array([run.final(c.test.name) - by_seed[run.study, run.seed] for run in pairs])
            rows.append((r.arm, values, r.versus.difference, pairs))
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
    c: Comparison, key: str, title: str, caption: str, rows: Sequence[Row], label: str, *, zero: bool = False
) -> Picture | None:
    if not rows:
        return None
    look_of, scale = looks(c.sweep.arms), c.test.scale

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(0.75 + 0.62 * len(rows))
            axes = figure.add_subplot()
            if zero:
                axes.axvline(0, color=INK, linewidth=1.1)
            for y, (arm, values, e, _) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
                scaled = replace(e, value=e.value * scale, low=e.low * scale, high=e.high * scale)
                draw_row(axes, style, y, look_of[arm.name], scale * values[np.isfinite(values)], scaled)
            name_rows(axes, [arm.label for arm, _, _, _ in rows])
            long_label(axes, label)
        return figure

    told = "; ".join(
        f"{arm.label} {c.test.number(e.value, signed=zero)}, 95 % interval {c.test.interval(e, signed=zero)}"
        for arm, _, e, _ in rows
    )
    data = [
        {"arm": arm.name, "study": run.study, "seed": run.seed, "value": value}
        | {"mean": e.value, "low": e.low, "high": e.high}
        for arm, values, e, runs in rows
        for run, value in zip(runs, values.tolist(), strict=True)
    ]
    return Picture(key, "outcomes", title, caption, f"{label}: {told}.", draw, data)
