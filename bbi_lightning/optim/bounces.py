"""When and how a trajectory is turned: the part of the dynamics that makes it mix.

A bounce keeps |π| and θ and gives π a new isotropic direction; the chaos element turns π a little at
every step. Neither touches the energy.

References: arXiv:2201.11137, section 2.3 (bounces after T₁ steps without progress, and N_b bounces T₀
steps apart); arXiv:2306.00352, section 3 (chaos element ν).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbi_lightning.optim.scalars import Scalar

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


def generator_for(device: torch.device, seed: int, draws: int) -> torch.Generator:
    """Return the generator of one draw: a pure function of (seed, number of the draw), alike on every rank.

    Nothing but the number of draws needs saving, and a resumed run draws what the stopped one would have.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(_mix(_mix(seed) ^ draws))
    return generator


def _mix(x: int) -> int:
    """Scramble 64 bits (the finalizer of SplitMix64), so that neighbouring seeds give unrelated streams."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


def redraw(momenta: Sequence[Tensor], generator: torch.Generator, inner: Inner) -> tuple[Scalar, Scalar]:
    """Replace the momenta by an isotropic direction (normal draws, in place).

    Returns (Σ new², Σ old·new); the caller keeps |π| by adjusting the momenta's common scale.
    """
    norm_sq, overlap = 0.0, 0.0
    for momentum in momenta:
        z = torch.empty_like(momentum).normal_(generator=generator)
        overlap += inner([momentum], [z])
        norm_sq += inner([z], [z])
        momentum.copy_(z)
    return norm_sq, overlap


def perturb(
    momenta: Sequence[Tensor], amount: Scalar, generator: torch.Generator, inner: Inner
) -> tuple[Scalar, Scalar]:
    """Add ``amount`` · z with normal z to the momenta, in place. Returns (Σ new², Σ old·z)."""
    norm_sq, overlap = 0.0, 0.0
    for momentum in momenta:
        z = torch.empty_like(momentum).normal_(generator=generator)
        overlap += inner([momentum], [z])
        if isinstance(amount, float):
            momentum.add_(z, alpha=amount)
        else:
            momentum.add_(z.mul_(amount))
        norm_sq += inner([momentum], [momentum])
    return norm_sq, overlap
