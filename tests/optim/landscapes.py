"""Losses with known behaviour, and the loop that walks in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from bbi_lightning.optim import ECD
from bbi_lightning.optim.draws import Normals, Place

Loss = Callable[[Tensor, int], Tensor]
"""(θ as one vector, number of the step) → F."""

SHAPES = ((3,), (2, 2), ())
"""Several tensors, a matrix and a scalar among them: 8 numbers."""


def wavy(theta: Tensor, k: int = 0) -> Tensor:
    """A bowl with ripples and a coupling: several minima, F > 0.1."""
    stiffness = torch.linspace(0.3, 1.2, theta.numel(), dtype=theta.dtype)
    ripples = (1 - torch.cos(2 * theta + 0.5)).sum()
    return 0.5 * (stiffness * theta.square()).sum() + 0.2 * ripples + 0.1 * theta.sum().square() + 0.1


def noisy(theta: Tensor, k: int) -> Tensor:
    """Mini-batches of ``wavy``: every step another centre and another scale, so that V > E now and then."""
    generator = torch.Generator().manual_seed(1000 + k)
    shift = 0.05 * torch.randn(theta.numel(), generator=generator, dtype=torch.float64)
    log_factor = 0.3 * torch.randn((), generator=generator, dtype=torch.float64)
    return float(log_factor.exp()) * wavy(theta + shift.to(theta.dtype))


def quadratic(theta: Tensor, k: int = 0) -> Tensor:
    """½|θ|²."""
    return 0.5 * theta.square().sum()


def parameters(
    shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes
    ]


def flatten(params: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.reshape(-1) for p in params])


def copies(params: Sequence[Tensor]) -> list[Parameter]:
    return [Parameter(p.detach().clone()) for p in params]


def walk(
    optimizer: ECD, params: Sequence[Tensor], loss_of: Loss, steps: int, *, start: int = 0
) -> list[Tensor]:
    """Take the steps number ``start``, start + 1, …; return θ after each as one vector."""
    positions = []
    for k in range(start, start + steps):
        optimizer.zero_grad()
        loss = loss_of(flatten(params), k)
        loss.backward()
        optimizer.step(loss=loss)
        positions.append(flatten(params).detach().clone())
    return positions


def momentum(optimizer: ECD) -> Tensor:
    """π as one vector, in float64: the stored momenta times their common scale."""
    stored = [
        optimizer.state[p]["momentum"].double() for group in optimizer.param_groups for p in group["params"]
    ]
    return flatten(stored) * float(optimizer._motion.state.scale)


def normals(shapes: Sequence[tuple[int, ...]], seed: int, dtype: torch.dtype = torch.float64):
    """The draws that an optimizer with this seed makes for tensors of these shapes, one after the other.

    All coordinates in a row, one generator for each block of ``BLOCK``.
    """
    coordinates = sum(math.prod(shape) for shape in shapes)
    draws = 0

    def draw() -> Tensor:
        nonlocal draws
        draws += 1
        one = Normals(seed, draws, coordinates)
        z = torch.zeros(coordinates, dtype=dtype)
        return one.of(z, Place.whole(0, z))

    return draw
