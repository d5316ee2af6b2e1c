"""What an observer may want to know of the last step. Nothing here is needed by the next one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bbi_lightning.optim.hamiltonians import Hamiltonian
from bbi_lightning.optim.scalars import Floats, Scalar
from bbi_lightning.optim.state import State


@dataclass
class Record:
    """Scalars the step computed anyway (floats, or tensors on the device), kept until the next step.

    potential: V. energy: E used. momentum_sq_before: |π|² before the shell. drift_rate: |dθ/dt| per unit of
    stored momentum. kicked_sq: Σ m² after kick (and chaos element). turn_cosine: cos of the last turn.
    """

    potential: Scalar
    energy: Scalar
    momentum_sq_before: Scalar
    drift_rate: Scalar
    kicked_sq: Scalar
    turn_cosine: Scalar | None


def summarise(record: Record | None, state: State, hamiltonian: Hamiltonian) -> dict[str, float]:
    """Return the diagnostics of the last step as floats; NaN where no step has been taken.

    energy: E (a logarithm for ECDSep; 0 for ECDq1). potential: V = F - F₀ of the last step.
    energy_error: (H - E)/E just before the shell restored it, i.e. what one step (and the change of
        mini-batch) did to the energy; H - E where H is a logarithm.
    potential_over_energy: V over the V at which a particle of this energy rests (V/E for BBI), in (0, 1]
        unless noise lifts V above.
    momentum_sq: |π|². speed_over_limit: |Δθ|/Δt over the continuum's speed on the shell; 1 as Δt → 0.
    bounces: so far. turn_cosine: of the last step's bounce or chaos turn, NaN if none.
    at_floor, skipped: steps not taken.
    """
    counts = {
        "bounces": float(state.clock.bounces),
        "at_floor": float(state.at_floor),
        "skipped": float(state.skipped),
    }
    if record is None:
        names = ("energy", "potential", "energy_error", "potential_over_energy", "momentum_sq")
        unknown = dict.fromkeys((*names, "speed_over_limit", "turn_cosine"), math.nan)
        return {**unknown, **counts}
    potential, before = float(record.potential), float(record.momentum_sq_before)
    speed = float(record.drift_rate) * math.sqrt(float(record.kicked_sq))
    limit = hamiltonian.speed_limit(potential, state.energy, Floats)
    return {
        "energy": state.energy,
        "potential": potential,
        "energy_error": hamiltonian.energy_error(potential, before, state.energy),
        "potential_over_energy": potential / state.rest_potential,
        "momentum_sq": float(state.scale) * float(state.scale) * float(state.momentum_sq),
        "speed_over_limit": speed / limit if limit > 0 else math.nan,
        "turn_cosine": math.nan if record.turn_cosine is None else float(record.turn_cosine),
        **counts,
    }
