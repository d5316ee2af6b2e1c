"""How many trials are nearly as good as the best: what a careless choice of parameters costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbi_lightning.comparison.figures.drawing import Look, legend, log_axis, looks
from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.figures.style import Style
from bbi_lightning.comparison.results import NEAR_BEST, Comparison

Gaps = Mapping[str, NDArray[np.float64]]


def near_the_best(c: Comparison) -> Picture | None:
    """Share of the trials within a distance of the best: of the arm's own, and of the best of all arms."""
    gaps = {"its own best": _gaps(c, own=True), "the best of all arms": _gaps(c, own=False)}
    every = np.concatenate([gap for both in gaps.values() for gap in both.values()] or [np.array([])])
    every = every[np.isfinite(every) & (every > 1e-9)]
    if not every.size:
        return None
    ends, look_of = (float(every.min()) / 2, float(every.max()) * 1.3), looks(c.sweep.arms)
    unit = "percentage points" if c.validation.is_share else "% of it"

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(3.3, width="wide")
            panels = figure.subplots(1, 2, sharey=True)
            for axes, (title, own) in zip(panels, gaps.items(), strict=True):
                for arm in c.sweep.arms:
                    if arm.name in own:
                        _line(axes, look_of[arm.name], arm.label, own[arm.name], ends)
                axes.set_xlim(*ends)
                log_axis(axes, "x")
                axes.set_title(f"… of {title}", fontweight="normal")
            panels[0].set_ylim(0, 104)
            panels[0].set_ylabel("trials (%)")
            size = mpl.rcParams["axes.labelsize"]
            figure.supxlabel(f"{c.validation.label} within … ({unit})", fontsize=size)
            legend(panels[0])
        return figure

    data = [
        {"arm": name, "best": title, f"distance ({unit})": float(x), "share": (rank + 1) / gap.size}
        for title, own in gaps.items()
        for name, gap in own.items()
        for rank, x in enumerate(np.sort(gap))
        if math.isfinite(x)
    ]
    return Picture(
        "near-the-best",
        "tuning",
        "How forgiving the search is",
        "Share of an arm's trials whose validation metric is within a distance of the best: of its own best "
        "(left), of the best trial of any arm (right). Higher is more forgiving. A diverged or failed trial "
        "is never within.",
        _told(c, gaps["the best of all arms"]),
        draw,
        data,
    )


def _gaps(c: Comparison, *, own: bool) -> dict[str, NDArray[np.float64]]:
    """How far each arm's trials are from a best one, NaN for those without a value: percentage points of a
    share, per cent of the best of anything else."""
    values = {r.arm.name: c.validation.sign * np.array(r.values) for r in c.results}
    values = {name: v for name, v in values.items() if np.isfinite(v).any()}
    overall = max((float(np.nanmax(v)) for v in values.values()), default=math.nan)
    found = {}
    for name, v in values.items():
        best = float(np.nanmax(v)) if own else overall
        scale = 1.0 if c.validation.is_share else abs(best) or math.nan
        found[name] = 100 * (best - v) / scale
    return found


def _line(axes: Axes, look: Look, label: str, gap: NDArray[np.float64], ends: tuple[float, float]) -> None:
    """The share as a step function from one end to the other."""
    x = np.sort(gap[np.isfinite(gap)])
    share = 100 * np.arange(1, x.size + 1) / gap.size
    inside = x > ends[0]
    start = float(share[~inside][-1]) if (~inside).any() else 0.0
    last = float(share[-1]) if share.size else 0.0
    axes.plot(
        np.r_[ends[0], x[inside], ends[1]],
        np.r_[start, share[inside], last],
        drawstyle="steps-post",
        color=look.colour,
        linestyle=look.dash,
        label=label,
    )


def _told(c: Comparison, gaps: Gaps) -> str:
    near = "1 point" if c.validation.is_share else "1 %"
    shares = "; ".join(
        f"{arm.label} {100 * float(np.mean(gaps[arm.name] <= 100 * NEAR_BEST * (1 + 1e-9))):.0f} %"
        for arm in c.sweep.arms
        if arm.name in gaps
    )
    return f"Trials within {near} of the best of all arms: {shares}."
