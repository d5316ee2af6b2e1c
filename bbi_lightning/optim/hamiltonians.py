"""The Hamiltonians of the family: what distinguishes one energy-conserving optimizer from another.

Notation (code: paper, unit):
    potential: V = F - F₀ > 0, units of the loss      momentum_sq: |π|², over all parameters
    energy: E = H(V, |π|²), conserved                 xp: ``Floats`` or ``Tensors`` (scalars.py)

Every member states five functions. With g = ∇F and Δt the learning rate, the equations of motion are
    dπ/dt = -(∂H/∂V) g                 ``kick``   = ∂H/∂V
    dθ/dt = 2 (∂H/∂|π|²) π             ``drift``  = 2 ∂H/∂|π|²
and the energy shell is |π|² = unit² · fraction (``shell``), factored so that neither overflows as V → 0
(there ``unit`` grows while ``fraction`` → 1) nor loses digits as V → E (there ``fraction`` → 0).

References: G. B. De Luca, E. Silverstein, arXiv:2201.11137 (Born-Infeld; eqs. of section 2);
G. B. De Luca, A. Gatti, E. Silverstein, arXiv:2306.00352 (separable, ECDSep); arXiv:2501.18419 (q = 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from bbi_lightning.optim.scalars import Floats, Namespace, Scalar

LARGEST_DEPTH = 200.0
"""The logarithm of the largest depth that ``Isokinetic`` uses; the smallest is as far below 1."""


class Hamiltonian(ABC):
    """H(V, |π|²) and its derivatives; stateless."""

    drift_follows_kick = False
    """True if the drift depends on the kicked |π|², which costs a second pass over memory."""

    tangential = False
    """True if only the part of the gradient orthogonal to the momentum kicks it (isokinetic motion)."""

    def for_dimension(self, n: int) -> Hamiltonian:
        """Return the Hamiltonian of n coordinates; most do not depend on n."""
        return self

    @abstractmethod
    def energy(self, potential: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return H(V, |π|²)."""

    def energy_at_rest(self, potential: float) -> float:
        """Return the energy of a particle at rest at V: the starting energy is that of V₀ + ΔE."""
        return float(self.energy(potential, 0.0, Floats))

    @abstractmethod
    def shell(self, potential: Scalar, energy: Scalar, xp: Namespace) -> tuple[Scalar, Scalar]:
        """Return (unit, fraction) with |π|² = unit² · fraction on the shell; fraction is 0 where V ≥ E."""

    @abstractmethod
    def kick(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """Return ∂H/∂V on the shell."""

    @abstractmethod
    def drift(self, potential: Scalar, energy: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return 2 ∂H/∂|π|² (at the kicked |π|² if ``drift_follows_kick``)."""

    @abstractmethod
    def speed_limit(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """Return |dθ/dt| on the shell (unit: parameter per unit of Δt)."""

    def energy_error(self, potential: float, momentum_sq: float, energy: float) -> float:
        """Return how far H(V, |π|²) is from E, relative to E."""
        return (float(self.energy(potential, momentum_sq, Floats)) - energy) / energy


@dataclass(frozen=True)
class BornInfeld(Hamiltonian):
    """H = √(V(V + π²)), from L = -V √(1 - v²/V): a relativistic particle whose speed of light is √V."""

    def energy(self, potential: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return √(V(V + π²))."""
        return xp.sqrt(potential * (potential + momentum_sq))

    def shell(self, potential: Scalar, energy: Scalar, xp: Namespace) -> tuple[Scalar, Scalar]:
        """|π|² = E²/V - V = (E/√V)² · ((E - V)/E)(1 + V/E)."""
        gap = (energy - potential) / energy  # not 1 - V/E, which loses digits near V = E
        return energy / xp.sqrt(potential), xp.maximum(gap * (1.0 + potential / energy), 0.0)

    def kick(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """½(V/E + E/V); 1 above the shell, where the particle rests."""
        ratio = xp.maximum(energy / potential, 1.0)
        return 0.5 * (ratio + 1.0 / ratio)

    def drift(self, potential: Scalar, energy: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """V/E; 1 above the shell."""
        return 1.0 / xp.maximum(energy / potential, 1.0)

    def speed_limit(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """√(V(1 - V²/E²))."""
        return xp.sqrt(potential * self.shell(potential, energy, xp)[1])


@dataclass(frozen=True)
class MassOverLoss(Hamiltonian):
    """H = Vπ² + V: two derivatives, a mass that grows as 1/V."""

    def energy(self, potential: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return V(1 + π²)."""
        return potential * (1.0 + momentum_sq)

    def shell(self, potential: Scalar, energy: Scalar, xp: Namespace) -> tuple[Scalar, Scalar]:
        """|π|² = E/V - 1 = (E/V) · (E - V)/E."""
        return xp.sqrt(energy / potential), xp.maximum((energy - potential) / energy, 0.0)

    def kick(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """1 + π², which is E/V on the shell."""
        return xp.maximum(energy / potential, 1.0)

    def drift(self, potential: Scalar, energy: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """2V."""
        return 2.0 * potential

    def speed_limit(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """2√(V(E - V))."""
        return 2.0 * xp.sqrt(potential * xp.maximum(energy - potential, 0.0))


@dataclass(frozen=True)
class LogSeparable(Hamiltonian):
    """H = log(s + π²) + η log V: kinetic and potential terms separate (ECDSep).

    ``s`` = 1 gives a speed limit of 1, ``s`` = 0 a scale-free kinetic term (then |π| = 1 at rest energy).
    Everything is computed from log V, so that η = 5 neither overflows nor underflows.
    """

    eta: float = 1.0
    s: float = 1.0

    drift_follows_kick = True

    def energy(self, potential: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return log(s + π²) + η log V."""
        return xp.log(self.s + momentum_sq) + self.eta * xp.log(potential)

    def energy_at_rest(self, potential: float) -> float:
        """Return log(s) + η log V; with s = 0, where nothing rests, that of |π| = 1."""
        return (math.log(self.s) if self.s > 0 else 0.0) + self.eta * math.log(potential)

    def shell(self, potential: Scalar, energy: Scalar, xp: Namespace) -> tuple[Scalar, Scalar]:
        """|π|² = e^E/V^η - s = (e^E/V^η) · (1 - s V^η/e^E)."""
        log_unit_sq = energy - self.eta * xp.log(potential)
        unit = xp.exp(0.5 * log_unit_sq)
        if self.s == 0:
            return unit, potential / potential
        return unit, xp.maximum(-xp.expm1(math.log(self.s) - log_unit_sq), 0.0)

    def kick(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """η/V."""
        return self.eta / potential

    def drift(self, potential: Scalar, energy: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """2/(s + π²), at the kicked momentum."""
        return 2.0 / (self.s + momentum_sq)

    def speed_limit(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """2|π|/(s + π²), at most 1/√s."""
        _, fraction = self.shell(potential, energy, xp)
        return 2.0 * xp.sqrt(fraction) * xp.exp(0.5 * (self.eta * xp.log(potential) - energy))

    def energy_error(self, potential: float, momentum_sq: float, energy: float) -> float:
        """Return H - E: H is a logarithm, so this is the relative error of e^H."""
        return float(self.energy(potential, momentum_sq, Floats)) - energy


@dataclass(frozen=True)
class LogBranch(Hamiltonian):
    """L = -V - (V/2) log(1 - v²/V): the speed limit √V comes from a logarithmic branch cut.

    With w = 1/(1 - v²/V) ≥ 1, the square of the Lorentz factor: π = w v, π² = V w(w - 1) and
    H = V (w - ½ log w). On the shell w solves w - ½ log w = E/V.
    """

    drift_follows_kick = True

    def energy(self, potential: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return V(w - ½ log w)."""
        w = self._lorentz_sq(momentum_sq / potential, xp)
        return potential * (w - 0.5 * xp.log(w))

    def shell(self, potential: Scalar, energy: Scalar, xp: Namespace) -> tuple[Scalar, Scalar]:
        """|π|² = V w(w - 1) = (√V w)² · (1 - 1/w)."""
        w = self._lorentz_sq_on_shell(potential, energy, xp)
        return xp.sqrt(potential) * w, xp.maximum(1.0 - 1.0 / w, 0.0)

    def kick(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """½(1 + w - log w)."""
        w = self._lorentz_sq_on_shell(potential, energy, xp)
        return 0.5 * (1.0 + w - xp.log(w))

    def drift(self, potential: Scalar, energy: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """1/w, at the kicked momentum: the speed √V √(1 - 1/w) never reaches √V."""
        return 1.0 / self._lorentz_sq(momentum_sq / potential, xp)

    def speed_limit(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """√(V(1 - 1/w))."""
        return xp.sqrt(potential * self.shell(potential, energy, xp)[1])

    @staticmethod
    def _lorentz_sq(k: Scalar, xp: Namespace) -> Scalar:
        """Solve w(w - 1) = k = π²/V for w ≥ 1."""
        return 0.5 * (1.0 + xp.sqrt(1.0 + 4.0 * k))

    @staticmethod
    def _lorentz_sq_on_shell(potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """Solve w - ½ log w = E/V for w ≥ 1 by Newton's method, which from above converges monotonically."""
        target = xp.maximum(energy / potential, 1.0)
        w = target + xp.log(target)
        for _ in range(5):
            w = xp.maximum(w - (w - 0.5 * xp.log(w) - target) / (1.0 - 0.5 / w), 1.0)
        return w


@dataclass(frozen=True)
class Isokinetic(Hamiltonian):
    """H = |π| + U with U = -V^(-k), k = ηn/(2(n - 1)), at E = 0: motion at unit speed (ECD_q1).

    The direction u = π/|π| obeys du/dt = -(k/V)(g - u(u·g)), dθ/dt = u.
    """

    eta: float = 1.0
    n: int = 2

    tangential = True

    @property
    def k(self) -> float:
        """The exponent ηn/(2(n - 1))."""
        return self.eta * self.n / (2.0 * (self.n - 1))

    def for_dimension(self, n: int) -> Hamiltonian:
        """Return the member for n coordinates. Raises ValueError for n = 1: the exponent is infinite."""
        if n < 2:
            raise ValueError(f"ECDq1 needs at least 2 parameters to turn a direction, got {n}: use ECDSep.")
        return replace(self, n=n)

    def energy(self, potential: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """Return |π| - V^(-k)."""
        return xp.sqrt(momentum_sq) - self._depth(potential, xp)

    def energy_at_rest(self, potential: float) -> float:
        """Return 0: nothing rests, and the measure (F - F₀)^(-ηn/2) holds at E = 0."""
        return 0.0

    def shell(self, potential: Scalar, energy: Scalar, xp: Namespace) -> tuple[Scalar, Scalar]:
        """|π| = V^(-k)."""
        depth = self._depth(potential, xp)
        return depth, depth / depth

    def kick(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """k V^(-k-1)."""
        return self.k * self._depth(potential, xp) / potential

    def drift(self, potential: Scalar, energy: Scalar, momentum_sq: Scalar, xp: Namespace) -> Scalar:
        """1/|π| on the shell."""
        return 1.0 / self._depth(potential, xp)

    def speed_limit(self, potential: Scalar, energy: Scalar, xp: Namespace) -> Scalar:
        """1."""
        return potential / potential

    def energy_error(self, potential: float, momentum_sq: float, energy: float) -> float:
        """Return 0: the unit vector carries no energy that could be lost."""
        return 0.0

    def _depth(self, potential: Scalar, xp: Namespace) -> Any:
        """V^(-k), within a range that products of three do not leave: its size cancels from the motion."""
        exponent = xp.maximum(-self.k * xp.log(potential), -LARGEST_DEPTH)
        return xp.exp(-xp.maximum(-exponent, -LARGEST_DEPTH))
