"""What is peculiar to energy-conserving optimizers: energy has to be kept, and the particle has to move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.audit.fairness import setting
from bbi_lightning.comparison.audit.finding import Finding
from bbi_lightning.comparison.provenance import configurations
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.verdict import count

LARGE_ENERGY_ERROR = 0.5  # median of |H − E|/E; with mini-batches BBI has 0.1 to 0.2, ECDSep up to 0.4
AT_REST = 0.999  # V/E from which on next to no energy is left for motion
_STALLED = 0.01  # of a run's steps


def energy_error(c: Comparison) -> Iterator[Finding]:
    """A typical step changes the energy by much of itself before it is restored."""
    for r in c.results:
        typical = [
            float(np.median(np.abs(error)))
            for run in r.finished
            if (error := _finite(run.curve("energy/energy_error").value)).size
        ]
        if typical and (error_of_arm := float(np.median(typical))) > LARGE_ENERGY_ERROR:
            yield Finding(
                "warning",
                "energy-error",
                f"{r.arm.label}: half of the steps change the energy by more than {100 * error_of_arm:.0f} % "
                "before it is restored: the path is not that of the dynamics it is named after.",
                f"Search lower learning rates (sweep.arms.{r.arm.name}.space.optim.lr), or larger batches.",
                arm=r.arm.name,
                evidence={"median": error_of_arm},
            )


def stalled(c: Comparison) -> Iterator[Finding]:
    """V ≤ 0, where nothing moves; no energy left for motion; steps without a finite loss."""
    for r in c.results:
        stops = _counted(r, "energy/at_floor")
        if stops:
            long = max(stops) > _STALLED
            yield Finding(
                "warning" if long else "note",
                "at-floor",
                f"{count(len(stops), 'replicate')} of {r.arm.label} met the floor (V ≤ 0), where nothing "
                f"moves, in up to {100 * max(stops):.2g} % of the steps.",
                f"Lower optim.floor in sweep.arms.{r.arm.name}.overrides." if long else "",
                arm=r.arm.name,
                evidence={"runs": len(stops), "share": max(stops)},
            )
        resting = sum(_rests(run.curve("energy/potential_over_energy").value) for run in r.finished)
        if resting:
            yield Finding(
                "warning",
                "at-rest",
                f"{count(resting, 'replicate')} of {r.arm.label} ended at rest: V takes all of the energy.",
                "Search lower learning rates, or more optim.extra_energy.",
                arm=r.arm.name,
                evidence={"runs": resting},
            )
        skipped = _counted(r, "energy/skipped")
        if skipped:
            yield Finding(
                "note",
                "skipped-steps",
                f"{count(len(skipped), 'replicate')} of {r.arm.label} skipped steps whose loss was not "
                f"finite, up to {100 * max(skipped):.2g} %.",
                "Look at their loss curves.",
                arm=r.arm.name,
                evidence={"runs": len(skipped), "share": max(skipped)},
            )


def clipped(c: Comparison) -> Iterator[Finding]:
    """Gradient clipping changes the dynamics of an energy-conserving arm."""
    values = setting(configurations(c), "trainer.gradient_clip_val")
    clipping = {
        r.arm.label: value
        for r in c.results
        if (value := values.get(r.arm.label, "none")) not in ("none", "null", "–", "0")
        and any(run.curve("energy/energy").value.size for run in r.finished[:1])
    }
    if clipping:
        yield Finding(
            "warning",
            "clipping",
            f"Gradients are clipped (trainer.gradient_clip_val={next(iter(clipping.values()))}), which "
            f"changes the dynamics of {', '.join(clipping)}: the energy is not conserved where it clips.",
            "Compare without clipping too (trainer.gradient_clip_val=null in the sweep's base).",
            evidence=dict(clipping),
        )


def _counted(r: ArmResult, metric: str) -> list[float]:
    """Of every finished replicate with such steps, their share of all steps."""
    shares = []
    for run in r.finished:
        curve = run.curve(metric)
        steps = _finite(curve.value)
        if steps.size and steps.max() > 0:
            shares.append(float(steps.max()) / max(1, int(curve.step[-1])))
    return shares


def _rests(ratio: NDArray[np.float64]) -> bool:
    last = _finite(ratio)[-4:]
    return last.size == 4 and float(last.min()) >= AT_REST


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


CHECKS = (energy_error, stalled, clipped)
