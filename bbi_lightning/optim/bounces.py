"""When and how a trajectory is turned: the part of the dynamics that makes it mix.

A bounce keeps |π| and θ and gives π a new isotropic direction; the chaos element turns π a little at
every step. Neither touches the energy.

References: arXiv:2201.11137, section 2.3 (bounces after T₁ steps without progress, and N_b bounces T₀
steps apart); arXiv:2306.00352, section 3 (chaos element ν).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbi_lightning.optim.scalars import Scalar

Batches = Iterable[tuple[list[Tensor], list[Tensor]]]
"""Momenta and their normal numbers, see ``draws.drawn``."""

Inner = Callable[[Sequence[Tensor], Sequence[Tensor]], Scalar]
"""Σ x·y over lists of tensors, as a float or as a 0-dim tensor on the device."""


@dataclass
class Clock:
    """What the bounce rules count; saved with the optimizer's state.

    best_potential: the lowest V so far. since_best: steps since it, or since the last bounce.
    since_fixed: steps since the last fixed bounce. fixed: fixed bounces so far. bounces: all of them.
    """

    best_potential: float = float("inf")
    since_best: int = 0
    since_fixed: int = 0
    fixed: int = 0
    bounces: int = 0


@dataclass(frozen=True)
class BounceRule:
    """Bounce after ``patience`` steps without progress, and ``n_bounces`` times every ``bounce_every`` steps.

    patience: T₁ ≥ 1, or None for never. bounce_every: T₀ ≥ 1. n_bounces: N_b ≥ 0. nu: chaos element ν ≥ 0;
    the angle per step is arccos(1/√(1 + ν²n)), so ν√n is what to quote.
    """

    patience: int | None = None
    bounce_every: int = 1000
    n_bounces: int = 0
    nu: float = 0.0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience} must be at least 1 step, or None to never bounce.")
        if self.bounce_every < 1:
            raise ValueError(f"bounce_every={self.bounce_every} must be at least 1 step.")
        if self.n_bounces < 0:
            raise ValueError(
                f"n_bounces={self.n_bounces} must not be negative: 0 switches fixed bounces off."
            )
        if not 0 <= self.nu < float("inf"):
            raise ValueError(
                f"nu={self.nu} must be finite and not negative: 0 switches the chaos element off."
            )

    def tick(self, clock: Clock, potential: float) -> bool:
        """Count one completed step at this V and say whether a bounce is due."""
        clock.since_fixed += 1
        clock.since_best += 1
        if potential < clock.best_potential:
            clock.best_potential = potential
            clock.since_best = 0
        if clock.fixed < self.n_bounces and clock.since_fixed >= self.bounce_every:
            clock.fixed += 1
            clock.since_fixed = 0
        elif self.patience is None or clock.since_best < self.patience:
            return False
        clock.since_best = 0
        clock.bounces += 1
        return True


def redraw(batches: Batches, inner: Inner) -> tuple[Scalar, Scalar]:
    """Replace the momenta by an isotropic direction, in place.

    Returns (Σ new², Σ old·new); the caller keeps |π| by adjusting the momenta's common scale.
    """
    norm_sq, overlap = 0.0, 0.0
    for momenta, z in batches:
        overlap = overlap + inner(momenta, z)
        norm_sq = norm_sq + inner(z, z)
        torch._foreach_copy_(momenta, z)
    return norm_sq, overlap


def perturb(batches: Batches, amount: Scalar, inner: Inner) -> tuple[Scalar, Scalar]:
    """Add ``amount`` · z with normal z to the momenta, in place. Returns (Σ new², Σ old·z)."""
    norm_sq, overlap = 0.0, 0.0
    for momenta, z in batches:
        overlap = overlap + inner(momenta, z)
        if isinstance(amount, float):
            torch._foreach_add_(momenta, z, alpha=amount)
        else:
            torch._foreach_add_(momenta, torch._foreach_mul(z, amount))
        norm_sq = norm_sq + inner(momenta, momenta)
    return norm_sq, overlap
