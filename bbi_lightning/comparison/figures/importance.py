"""Which searched parameters mattered: shares of variance by functional ANOVA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbi_lightning.comparison.figures.drawing import Look, height, looks, name_rows, short, zero_height
from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.figures.style import INK, Style
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import Importance, functional_anova
from bbi_lightning.comparison.sweep_data import Axis, Run

_FEWEST = 12  # trials that a forest needs
_PAIRS = 2  # the largest interactions that are shown
_LEAST_PAIR = 0.02


def importances(c: Comparison) -> dict[str, Importance]:
    """Importance of the searched keys of every arm that has two of them and twelve trials.

    The metric is the one of the pictures: the logarithm of the error rate or loss where it has no sign. A
    trial that diverged, failed or was pruned counts as the worst value of any arm. A key that a trial did not
    search (it depends on another) stands in the middle of its range there.
    """
    return {r.arm.name: known for r in c.results if (known := _importance(c, r)) is not None}


def _importance(c: Comparison, r: ArmResult) -> Importance | None:
    over = [run.state in ("finished", "diverged", "pruned", "failed") for run in r.trials]
    trials = [run for run, done in zip(r.trials, over, strict=True) if done]
    space = [axis for axis in r.arm.space if len(axis.choices) != 1]
    if len(trials) < _FEWEST or len(space) < 2 or not math.isfinite(c.penalty):
        return None
    values = np.array([v for v, done in zip(r.values, over, strict=True) if done])
    values = _target(np.where(np.isfinite(values), values, c.penalty), c)
    if np.ptp(values) <= 0:
        return None
    return functional_anova(
        np.array([[_place(axis, run) for axis in space] for run in trials]),
        values,
        [axis.key for axis in space],
        levels=[len(axis.choices) for axis in space],
    )


def _target(values: NDArray[np.float64], c: Comparison) -> NDArray[np.float64]:
    metric: Metric = c.validation
    lowest = zero_height(np.concatenate([height(r.values, metric) for r in c.results]))
    drawn = height(values, metric)
    return np.log(np.maximum(drawn, lowest)) if math.isfinite(lowest) else drawn


def _place(axis: Axis, run: Run) -> float:
    """A trial's place on an axis: in [0, 1] of an interval on its own scale, the index of a choice."""
    value: Any = run.params.get(axis.key)
    if axis.choices:
        places = [repr(choice) for choice in axis.choices]
        return float(places.index(repr(value))) if repr(value) in places else 0.0
    if not isinstance(value, (int, float)) or not axis.high > axis.low:
        return 0.5
    low, high, x = (math.log(v) if axis.log else v for v in (axis.low, axis.high, value))
    return min(1.0, max(0.0, (x - low) / (high - low)))


@dataclass(frozen=True)
class _Bar:
    label: str
    look: Look
    share: float
    low: float = math.nan
    high: float = math.nan


def importance(c: Comparison, known: Mapping[str, Importance]) -> Picture | None:
    """Shares of the variance that each searched key explains, alone and in pairs; None if none can be told.

    Args:
        c: the comparison.
        known: `importances(c)`.
    """
    told = [r for r in c.results if r.arm.name in known and known[r.arm.name].trustworthy]
    bars = [bar for r in told for bar in _bars(c, r, known[r.arm.name])]
    if not bars:
        return None

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(0.75 + 0.3 * len(bars))
            axes = figure.add_subplot()
            for y, bar in zip(range(len(bars) - 1, -1, -1), bars, strict=True):
                pair = "×" in bar.label
                axes.barh(y, bar.share, height=0.62, color=bar.look.colour, alpha=0.35 if pair else 0.75)
                if math.isfinite(bar.low):
                    axes.plot([bar.low, bar.high], [y, y], color=INK, linewidth=1.2 * style.size)
            name_rows(axes, [bar.label for bar in bars])
            axes.set_xlim(0, 100)
            axes.set_xlabel("share of the variance over the space (%)")
        return figure

    others = ", ".join(
        f"{r.arm.label} (R² = {f'{k.r2:.2f}'.replace('-', '−')})"
        for r in c.results
        if (k := known.get(r.arm.name)) is not None and not k.trustworthy
    )
    data = [
        {"arm": r.arm.name, "key": name, "share": share, "low": low, "high": high}
        | {"r2": k.r2, "trials": k.n, "trusted": k.trustworthy}
        for r in c.results
        if (k := known.get(r.arm.name)) is not None
        for name, share, low, high in [
            *zip(k.names, k.main.tolist(), k.low.tolist(), k.high.tolist(), strict=True),
            *((f"{a} x {b}", share, math.nan, math.nan) for a, b, share in _pairs(k)),
        ]
    ]
    return Picture(
        "importance",
        "sensitivity",
        "Which parameters mattered",
        "How much of the variation of the validation metric over the searched space a key explains alone, "
        "and a pair beyond its two keys (pale), by a forest fitted to the trials (functional ANOVA). Lines: "
        "the middle 90 % over resampled trials. A forest that cannot predict trials it has not seen has no "
        f"shares{': ' + others if others else ''}.",
        f"Shares of variance: {'; '.join(f'{bar.label} {bar.share:.0f} %' for bar in bars)}.",
        draw,
        data,
    )


def _pairs(k: Importance) -> list[tuple[str, str, float]]:
    """Pairs of keys and their share, largest first."""
    d = len(k.names)
    pairs = [(k.names[i], k.names[j], float(k.pairs[i, j])) for i in range(d) for j in range(i + 1, d)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _bars(c: Comparison, r: ArmResult, k: Importance) -> list[_Bar]:
    look = looks(c.sweep.arms)[r.arm.name]
    order = np.argsort(-k.main, kind="stable")
    mains = [
        _Bar(
            f"{r.arm.label}: {short(k.names[i])}",
            look,
            100 * float(k.main[i]),
            100 * float(k.low[i]),
            100 * float(k.high[i]),
        )
        for i in order
    ]
    pairs = [
        _Bar(f"{r.arm.label}: {short(a)} × {short(b)}", look, 100 * share)
        for a, b, share in _pairs(k)[:_PAIRS]
        if share >= _LEAST_PAIR
    ]
    return mains + pairs
