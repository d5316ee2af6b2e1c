"""How long a trajectory stays at which loss, in a quadratic bowl: measured, and by the invariant measures.

Notation as in bbi_lightning/optim: V = F - F₀ potential, E energy, Δt = lr, n dimension, x = V/E.
"""

from __future__ import annotations

import numpy as np
import torch
from drawing.trajectories import Builder, lorentz_sq

from bbi_lightning.optim import ECD


def reside(build: Builder, n: int, start_loss: float, steps: int, tensors: int = 1) -> np.ndarray:
    """Return F = ½|θ|² at every step in n dimensions from a random direction; θ may be split into tensors."""
    direction = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta = direction * (2 * start_loss) ** 0.5 / direction.norm()
    params = [torch.nn.Parameter(part.clone()) for part in theta.split(n // tensors)]
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer = build(list(params))
    assert isinstance(optimizer, ECD)
    losses = np.empty(steps)
    with torch.no_grad():
        for step in range(steps):
            losses[step] = sum(0.5 * float(torch.dot(p, p)) for p in params)
            for p in params:
                p.grad.copy_(p)  # type: ignore[union-attr]  # set above
            optimizer.step(loss=losses[step])
    return losses


def reside_projected_by_tensor(n: int, eta: float, dt: float, nu: float, steps: int) -> np.ndarray:
    """Return F = ½|θ|² along ECDq1's motion with u·g summed over each of two tensors apart (F₀ = -1)."""
    random = np.random.default_rng(0)
    theta = random.normal(size=n)
    theta *= 2**0.5 / np.linalg.norm(theta)
    u = -theta / np.linalg.norm(theta)
    k, losses = eta * n / (2 * (n - 1)), np.empty(steps)
    for step in range(steps):
        losses[step] = 0.5 * theta @ theta
        own = (u * theta).reshape(2, -1).sum(axis=1).repeat(n // 2)
        u = u - dt * k * (theta - u * own) / (losses[step] + 1)
        u /= np.linalg.norm(u)
        theta = theta + dt * u
        u = u + nu * random.normal(size=n)
        u /= np.linalg.norm(u)
    return losses


def log_measure(member: str, x: np.ndarray, n: int, eta: float = 1.0) -> np.ndarray:
    """Return log ρ(θ), up to a constant, where V = xE: |π|ⁿ⁻² over the drift, on the shell."""
    if member == "BBI":
        return -np.log(x) + (n - 2) / 2 * np.log(1 / x - x)
    if member == "LogECD":
        w = lorentz_sq(1 / x)
        return np.log(w) + (n - 2) / 2 * np.log(x * w * (w - 1))
    if member == "ECDSep":
        return -eta * np.log(x) + (n - 2) / 2 * np.log(x**-eta - 1)
    raise ValueError(f"member={member!r} is unknown: use BBI, LogECD or ECDSep.")


def residence(member: str, edges: np.ndarray, n: int, gap: float, eta: float = 1.0) -> np.ndarray:
    """Return the share of time with V/E between neighbouring edges in V = ½|θ|² + gap·E, n dimensions."""
    x = np.linspace(gap, 1, 400_002)[1:-1]
    log_density = (n / 2 - 1) * np.log(x - gap) + log_measure(member, x, n, eta)
    density = np.exp(log_density - log_density.max())
    shares, _ = np.histogram(x, edges, weights=density)
    return shares / density.sum()
