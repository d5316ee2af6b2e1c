"""Runs of the real optimizers on small landscapes.

Notation as in bbi_lightning/optim: V = F - F₀ potential, E energy, Δt = lr, n dimension, x = V/E.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from bbi_lightning.optim import ECD

Objective = Callable[[Tensor], Tensor]
Builder = Callable[[list[Tensor]], Optimizer]

NEVER = {"patience": None, "n_bounces": 0}
"""No bounces."""


@dataclass(frozen=True)
class Trajectory:
    """positions: θ before every step and after the last, (steps + 1, n). losses: F there. bounces: where."""

    positions: np.ndarray
    losses: np.ndarray
    bounces: np.ndarray


def follow(
    build: Builder,
    objective: Objective,
    start: Sequence[float],
    steps: int,
) -> Trajectory:
    """Run an optimizer in float64 from ``start``; indices in ``bounces`` point into ``positions``."""
    theta = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = build([theta])
    positions, losses, bounces, seen = [theta.detach().clone()], [], [], 0.0
    for step in range(steps):
        optimizer.zero_grad()
        loss = objective(theta)
        loss.backward()
        losses.append(loss.item())
        if isinstance(optimizer, ECD):
            optimizer.step(loss=loss.detach())
            now = optimizer.diagnostics()["bounces"]
            if now > seen:
                bounces.append(step + 1)
            seen = now
        else:
            optimizer.step()
        positions.append(theta.detach().clone())
    losses.append(objective(theta).item())
    return Trajectory(torch.stack(positions).numpy(), np.array(losses), np.array(bounces, dtype=int))


def lorentz_sq(energy_over_potential: np.ndarray) -> np.ndarray:
    """Solve w - ½ log w = E/V for w ≥ 1 (LogECD)."""
    w = energy_over_potential + np.log(energy_over_potential)
    for _ in range(50):
        w = np.maximum(w - (w - 0.5 * np.log(w) - energy_over_potential) / (1 - 0.5 / w), 1 + 1e-15)
    return w
