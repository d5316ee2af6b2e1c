"""What an energy-conserving optimizer does with its energy: the loss with its bounces, V/E, error, speed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbi_lightning.comparison.curves import thin
from bbi_lightning.comparison.figures.drawing import (
    Look,
    counted_axis,
    log_axis,
    looks,
    write_value,
    zero_height,
)
from bbi_lightning.comparison.figures.picture import Picture, key_of
from bbi_lightning.comparison.figures.style import INK, Style
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.sweep_data import Curve
from bbi_lightning.comparison.telemetry import Telemetry, energy_summary, read_telemetry

_MANY_BOUNCES = 60  # beyond it a line for each would hide the curve
_POINTS = 300


def telemetry(c: Comparison) -> Picture | None:
    """Energy of the middle replicate by test metric, of BBI or else of the first arm that logs it."""
    return next(iter(telemetries(c)), None)


def telemetries(c: Comparison) -> list[Picture]:
    """Energy of the middle replicate by test metric of every arm that logs it, BBI first."""
    pictures = []
    for r in sorted(c.results, key=lambda r: r.arm.name != "bbi"):
        ranked = sorted(r.finished, key=lambda run: run.final(c.test.name))
        known = read_telemetry(ranked[(len(ranked) - 1) // 2]) if ranked else None
        if known is not None:
            pictures.append(_telemetry(r, looks(c.sweep.arms)[r.arm.name], known))
    return pictures


def _telemetry(r: ArmResult, look: Look, t: Telemetry) -> Picture:
    curves = {
        "training loss": t.loss,
        "V / E": t.potential_over_energy,
        "energy error": t.energy_error,
        "speed / limit": t.speed_over_limit,
    }
    shown = {label: curve for label, curve in curves.items() if np.isfinite(curve.value).any()}

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(0.55 + 1.4 * len(shown))
            panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
            for place, (axes, (label, curve)) in enumerate(zip(panels, shown.items(), strict=True)):
                _panel(axes, style, look, label, curve, t.bounces, first=place == 0)
            counted_axis(panels[-1])
            panels[-1].set_xlabel("optimizer steps")
            figure.align_ylabels()
        return figure

    bounced = f"triangles mark the {t.bounce_count} bounces" if t.bounce_count else "no bounce took place"
    sentences = [f"The replicate with the middle test result, seed {t.run.seed}; {bounced}."]
    summary = energy_summary(r.finished)
    if summary is not None:
        typical, largest = write_value(summary.typical_error), write_value(summary.largest_error)
        sentences.append(
            f"Over {summary.runs} replicates the energy error is {typical} typically and {largest} at most; "
            f"V/E goes down to {write_value(summary.least_ratio)}."
        )
        if summary.stalled:
            sentences.append(f"{summary.stalled} of them came to a standstill.")
    return Picture(
        "telemetry" if r.arm.name == "bbi" else key_of("telemetry", r.arm.name),
        "energy",
        f"Energy of one {r.arm.label} run",
        " ".join(sentences),
        f"{', '.join(shown)} of {t.run.name} against optimizer steps; {bounced}.",
        draw,
        _rows(shown),
    )


def _panel(
    axes: Axes, style: Style, look: Look, label: str, curve: Curve, jumps: NDArray[np.int64], *, first: bool
) -> None:
    curve = thin(curve, _POINTS)
    value = np.abs(curve.value)
    lowest = zero_height(value)
    axes.plot(curve.step, np.maximum(value, lowest), color=look.colour, linewidth=1.2 * style.size)
    log_axis(axes, "y")
    if label.startswith("speed"):
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for step in jumps if jumps.size <= _MANY_BOUNCES else ():
        axes.axvline(step, color=INK, linewidth=0.8, alpha=0.35)
    if first and jumps.size:  # on the curve itself: what a bounce does to the loss is what one wants to see
        known = np.isfinite(value)
        at = np.interp(jumps, curve.step[known], np.maximum(value[known], lowest))
        mark: dict[str, Any] = {"linestyle": "none", "markersize": 6 * style.size, "zorder": 3}
        axes.plot(jumps, at, marker="v", color=INK, **mark)
    axes.set_ylabel(label)
    axes.margins(x=0.01)


def _rows(shown: dict[str, Curve]) -> list[dict[str, object]]:
    return [
        {"quantity": label, "step": step, "value": value}
        for label, curve in shown.items()
        for step, value in zip(curve.step.tolist(), curve.value.tolist(), strict=True)
    ]
