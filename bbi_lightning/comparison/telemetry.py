"""What an energy-conserving optimizer logs about itself: V/E, how well E is kept, bounces, speed.

    energy/potential_over_energy   V/E (for ECDSep: V over the V at which the particle rests), in (0, 1]
    energy/energy_error            relative error of the energy before it is restored
    energy/speed_over_limit        speed over what the Hamiltonian allows
    energy/bounces                 so far

An optimizer that is one of several of a run logs them as `energy/<index>/…`; the first is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.sweep_data import Curve, Run

Array = NDArray[np.float64]

LARGE_ERROR = 0.1  # relative: a step that the restoring of the energy has to correct by more is too long
STALLED = 1e-12  # V/E: the particle has no force left


@dataclass(frozen=True)
class Telemetry:
    """One run's curves, and where it bounced: steps (B,), each the first logged one after a bounce."""

    run: Run
    loss: Curve
    potential_over_energy: Curve
    energy_error: Curve
    speed_over_limit: Curve
    bounces: NDArray[np.int64]
    bounce_count: int


@dataclass(frozen=True)
class EnergySummary:
    """Energy over several runs; NaN where it was not logged.

    Attributes:
        runs: how many logged it.
        typical_error: median over the runs of the median |energy error|.
        largest_error: largest |energy error| of any.
        error_share: median share of the logged steps with an error above `LARGE_ERROR`.
        least_ratio: least V/E of any.
        stalled: runs whose last V/E is at or below `STALLED`, or that took less than half of their steps
            because the loss was at the floor.
        bounces: median number.
        skipped: most steps that a run had to skip.
    """

    runs: int
    typical_error: float
    largest_error: float
    error_share: float
    least_ratio: float
    stalled: int
    bounces: float
    skipped: int


def read_telemetry(run: Run) -> Telemetry | None:
    """A run's telemetry, None where it has none (two rows at least)."""
    prefix = _prefix(run)
    if prefix is None:
        return None
    bounces = run.curve(f"{prefix}bounces")
    counts = np.where(np.isfinite(bounces.value), bounces.value, 0.0)
    rises = np.diff(counts, prepend=0.0)
    return Telemetry(
        run=run,
        loss=run.curve("train/loss"),
        potential_over_energy=run.curve(f"{prefix}potential_over_energy"),
        energy_error=run.curve(f"{prefix}energy_error"),
        speed_over_limit=run.curve(f"{prefix}speed_over_limit"),
        bounces=bounces.step[rises > 0],
        bounce_count=int(np.clip(rises, 0, None).sum()),
    )


def _prefix(run: Run) -> str | None:
    for prefix in ("energy/", "energy/0/"):
        if run.curve(f"{prefix}potential_over_energy").step.size > 1:
            return prefix
    return None


def energy_summary(runs: Sequence[Run]) -> EnergySummary | None:
    """The energy of several runs in numbers, None where no run logged it."""
    known = [(run, prefix) for run in runs if (prefix := _prefix(run)) is not None]
    if not known:
        return None
    errors = [np.abs(_finite(run, f"{prefix}energy_error")) for run, prefix in known]
    ratios = [_finite(run, f"{prefix}potential_over_energy") for run, prefix in known]
    stalled = [
        (ratio.size > 0 and ratio[-1] <= STALLED) or _standing(run, prefix) > 0.5
        for ratio, (run, prefix) in zip(ratios, known, strict=True)
    ]
    logged = [error for error in errors if error.size]
    bounces = [b for run, prefix in known if math.isfinite(b := _last(run, f"{prefix}bounces"))]
    skipped = [s for run, prefix in known if math.isfinite(s := _last(run, f"{prefix}skipped"))]
    return EnergySummary(
        runs=len(known),
        typical_error=float(np.median([np.median(error) for error in logged])) if logged else math.nan,
        largest_error=max((float(error.max()) for error in logged), default=math.nan),
        error_share=float(np.median([np.mean(error > LARGE_ERROR) for error in logged]))
        if logged
        else math.nan,
        least_ratio=min((float(ratio.min()) for ratio in ratios if ratio.size), default=math.nan),
        stalled=sum(stalled),
        bounces=float(np.median(bounces)) if bounces else math.nan,
        skipped=int(max(skipped, default=0)),
    )


def _standing(run: Run, prefix: str) -> float:
    """Share of the steps that were not taken because the loss was at the floor."""
    curve = run.curve(f"{prefix}at_floor")
    return float(curve.value[-1] / max(1, curve.step[-1])) if curve.step.size else 0.0


def _finite(run: Run, metric: str) -> Array:
    value = run.curve(metric).value
    return value[np.isfinite(value)]


def _last(run: Run, metric: str) -> float:
    value = _finite(run, metric)
    return float(value[-1]) if value.size else math.nan
