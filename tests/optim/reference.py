"""The published rules written plainly, on one float64 vector: what the optimizers are held against.

Nothing of bbi_lightning is imported here. Sources: arXiv:2201.11137 (Born-Infeld, bounces), 2306.00352
(separable, chaos element), 2501.18419 (q = 1), the talk "BI for AI" (mass ∝ 1/loss, log-inflation branch
cut); with the corrections V > E ⇒ at rest, one norm and one clock over all parameters, and the global u·g.

Notation: v is V = F - floor, e the energy, p the momentum π, g = ∇F, dt = Δt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Vector = NDArray[np.float64]
LossAndGradient = Callable[[Vector, int], tuple[float, Vector]]
"""(θ, number of the step) → (F, ∇F)."""


class Rule(Protocol):
    def rest_energy(self, v: float) -> float: ...

    def momentum_sq(self, v: float, e: float) -> float:
        """|π|² on the energy shell; negative where V > E."""

    def kick_and_drift(self, v: float, e: float, p: Vector, g: Vector, dt: float) -> tuple[Vector, Vector]:
        """(kicked π, Δθ)."""


class BornInfeld:
    def rest_energy(self, v: float) -> float:
        return v

    def momentum_sq(self, v: float, e: float) -> float:
        return e**2 / v - v

    def kick_and_drift(self, v: float, e: float, p: Vector, g: Vector, dt: float) -> tuple[Vector, Vector]:
        e = max(e, v)
        ratio = min(v / e, 1)  # above the energy shell the particle rests
        p = p - dt * 0.5 * (ratio + 1 / ratio) * g
        return p, dt * ratio * p


class MassOverLoss:
    def rest_energy(self, v: float) -> float:
        return v

    def momentum_sq(self, v: float, e: float) -> float:
        return e / v - 1

    def kick_and_drift(self, v: float, e: float, p: Vector, g: Vector, dt: float) -> tuple[Vector, Vector]:
        p = p - dt * (1 + max(e / v - 1, 0)) * g
        return p, dt * 2 * v * p


@dataclass
class Separable:
    eta: float
    s: float

    def rest_energy(self, v: float) -> float:
        return (math.log(self.s) if self.s > 0 else 0.0) + self.eta * math.log(v)

    def momentum_sq(self, v: float, e: float) -> float:
        return math.exp(e - self.eta * math.log(v)) - self.s

    def kick_and_drift(self, v: float, e: float, p: Vector, g: Vector, dt: float) -> tuple[Vector, Vector]:
        p = p - dt * self.eta * g / v
        return p, dt * 2 * p / (self.s + p @ p)


@dataclass
class Q1:
    eta: float

    def rest_energy(self, v: float) -> float:
        return 0.0

    def momentum_sq(self, v: float, e: float) -> float:
        return 1.0

    def kick_and_drift(self, v: float, e: float, p: Vector, g: Vector, dt: float) -> tuple[Vector, Vector]:
        n = p.size
        u = p - dt * self.eta * n / (2 * (n - 1)) * (g - p * (p @ g)) / v
        return u, dt * u


class LogBranch:
    """In terms of x = v²/V: π²/V = x/(1-x)² and H = V (1/(1-x) + ½ log(1-x))."""

    def rest_energy(self, v: float) -> float:
        return v

    def momentum_sq(self, v: float, e: float) -> float:
        one_minus_x = self._one_minus_x_on_shell(v, e)
        return v * (1 - one_minus_x) / one_minus_x**2

    def kick_and_drift(self, v: float, e: float, p: Vector, g: Vector, dt: float) -> tuple[Vector, Vector]:
        one_minus_x = self._one_minus_x_on_shell(v, e)
        x = 1 - one_minus_x
        p = p - dt * (1 + 0.5 * math.log(one_minus_x) + 0.5 * x / one_minus_x) * g

        k = p @ p / v
        x = (1 + 2 * k - math.sqrt(1 + 4 * k)) / (2 * k) if k > 1e-4 else k - 2 * k**2 + 5 * k**3 - 14 * k**4
        return p, dt * p * (1 - x)

    def _one_minus_x_on_shell(self, v: float, e: float) -> float:
        if v >= e:
            return 1.0

        def excess(y: float) -> float:
            return 1 / y + 0.5 * math.log(y) - e / v

        return brentq(excess, 1e-18, 1.0, xtol=1e-17, rtol=1e-15, maxiter=1000)


@dataclass
class Particle:
    """One particle under a rule. ``normals()`` gives the next vector of normal numbers."""

    rule: Rule
    lr: float | Sequence[float]
    floor: float = 0.0
    extra_energy: float = 0.0
    patience: int | None = None
    bounce_every: int = 1
    n_bounces: int = 0
    nu: float = 0.0
    normals: Callable[[], Vector] | None = None
    bounced_at: list[int] = field(default_factory=list)

    def trajectory(self, theta: Vector, loss_and_gradient: LossAndGradient, steps: int) -> Vector:
        """θ after 0, 1, …, ``steps`` steps: shape (steps + 1, n)."""
        positions = [theta]
        energy: float | None = None
        p = np.zeros_like(theta)
        best, since_best, since_fixed, fixed = math.inf, 0, 0, 0
        for k in range(steps):
            loss, g = loss_and_gradient(theta, k)
            v = loss - self.floor
            dt = self.lr if isinstance(self.lr, float) else self.lr[k]
            if energy is None:
                energy = self.rule.rest_energy(v + self.extra_energy)
                p = -g / np.linalg.norm(g)

            p = p * math.sqrt(max(self.rule.momentum_sq(v, energy), 0)) / (np.linalg.norm(p) or 1.0)
            p, shift = self.rule.kick_and_drift(v, energy, p, g, dt)
            theta = theta + shift
            positions.append(theta)

            if self.nu > 0:
                direction = p / np.linalg.norm(p) + self.nu * self.normals()
                p = np.linalg.norm(p) * direction / np.linalg.norm(direction)

            since_best, since_fixed = since_best + 1, since_fixed + 1
            if v < best:
                best, since_best = v, 0
            fixed_due = fixed < self.n_bounces and since_fixed >= self.bounce_every
            if fixed_due:
                fixed, since_fixed = fixed + 1, 0
            if fixed_due or (self.patience is not None and since_best >= self.patience):
                since_best = 0
                direction = self.normals()
                p = np.linalg.norm(p) * direction / np.linalg.norm(direction)
                self.bounced_at.append(k)
        return np.array(positions)
