"""What the next step needs besides the momenta: a dozen numbers, global over parameters and groups.

They live in the first parameter group as 0-dim tensors when saved: there dtypes and bits survive
``load_state_dict`` (which casts per-parameter state to the parameter's dtype) and
torch.distributed.checkpoint (which drops extra top-level keys).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from bbi_lightning.optim.bounces import Clock
from bbi_lightning.optim.scalars import Scalar

KEY = "ecd"
"""The entry of the first parameter group that holds the saved numbers."""


@dataclass
class State:
    """The numbers.

    energy: E (NaN before the first step). rest_potential: V₀ + ΔE, where a particle of energy E would rest.
    member: checksum of the Hamiltonian's name, since E means something else for each.
    scale: π = scale · (stored momenta). momentum_sq: Σ (stored momenta)². seed, draws: random numbers.
    at_floor, skipped: steps not taken because F ≤ F₀, or because F was not finite.
    """

    member: int = 0
    energy: float = float("nan")
    rest_potential: float = float("nan")
    scale: Scalar = 1.0
    momentum_sq: Scalar = 0.0
    steps: int = 0
    seed: int = 0
    draws: int = 0
    at_floor: int = 0
    skipped: int = 0
    clock: Clock = field(default_factory=Clock)

    @property
    def started(self) -> bool:
        """Whether the energy is known."""
        return self.energy == self.energy

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the numbers as 0-dim float64 and int64 tensors (synchronises on an accelerator)."""
        numbers = {**asdict(self), **asdict(self.clock)}
        del numbers["clock"]
        integers = {f.name for f in (*fields(State), *fields(Clock)) if f.type == "int"}
        return {
            name: torch.tensor(int(x), dtype=torch.int64)
            if name in integers
            else torch.tensor(float(x), dtype=torch.float64)
            for name, x in numbers.items()
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> State:
        """Rebuild the numbers, bit for bit."""
        numbers: dict[str, Any] = {name: tensor.item() for name, tensor in tensors.items()}
        clock = Clock(**{f.name: numbers.pop(f.name) for f in fields(Clock)})
        return cls(**numbers, clock=clock)
