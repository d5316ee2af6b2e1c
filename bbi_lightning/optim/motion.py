"""The motion: shell, kick, drift, bounce, once for the whole family. Owns the state, knows no Optimizer.

Notation: V potential, E energy, π = scale · m with m the stored momenta, Δt the group's lr. The direction of
π is in the tensors, its length in the float64 ``scale``: putting π on the shell costs no pass over memory,
and lengths beyond float32 (|π| = E/√V → ∞ as V → 0) are no problem.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbi_lightning.optim import bounces, dynamics
from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.diagnostics import Record
from bbi_lightning.optim.draws import Normals
from bbi_lightning.optim.dynamics import Coefficients
from bbi_lightning.optim.hamiltonians import Hamiltonian
from bbi_lightning.optim.scalars import Floats, Scalar, Tensors
from bbi_lightning.optim.shares import Share, totals
from bbi_lightning.optim.state import State

LENGTH_RANGE = 1e8
"""The stored Σ m² is kept within this factor of 1, so that no m comes near the largest float16."""
LARGEST_POWER = 14
"""2^14 is a float16; what needs more than one such factor gets it in the steps that follow."""
TINY = 1e-300

Gradients = Sequence[list[Tensor]]
"""One list per share."""


@dataclass
class Motion:
    """One particle in the landscape: its law (hamiltonian, bounce_rule, conserve) and its state."""

    hamiltonian: Hamiltonian
    bounce_rule: BounceRule
    extra_energy: float
    conserve: bool
    state: State
    record: Record | None = None
    _last_record: Record | None = None

    def start(self, shares: Sequence[Share], grads: Gradients, potential: float) -> None:
        """Fix the energy and the first direction, -g (random if g = 0), with |π|² on the shell."""
        state, hamiltonian = self.state, self._hamiltonian(shares)
        state.rest_potential = potential + self.extra_energy
        state.energy = hamiltonian.energy_at_rest(state.rest_potential)
        for share, gs in zip(shares, grads, strict=True):
            share.kick(gs, Coefficients(1.0, -1.0, 0.0, share.weight_decay), on_device=False)
        momenta = _momenta(shares)
        self.remeasure(shares)
        if state.momentum_sq == 0:
            state.momentum_sq, _ = self._redraw(shares, dynamics.inner)
        self._keep_in_range(shares, state.momentum_sq)
        unit, fraction = hamiltonian.shell(potential, state.energy, Floats)
        state.scale = unit * math.sqrt(fraction) / math.sqrt(state.momentum_sq)
        if fraction == 0:
            torch._foreach_zero_(momenta)
            state.scale, state.momentum_sq = unit, 0.0

    def move(self, shares: Sequence[Share], grads: Gradients, potential: Scalar, on_device: bool) -> None:
        """Take one step. Where V is not usable nothing moves (on the device), or it must not be called."""
        xp: Any = Tensors if on_device else Floats
        state, hamiltonian = self.state, self._hamiltonian(shares)
        if on_device:
            state.scale = torch.as_tensor(state.scale, dtype=torch.float64, device=potential.device)
            state.momentum_sq = torch.as_tensor(
                state.momentum_sq, dtype=torch.float64, device=potential.device
            )
        usable = xp.is_usable(potential)
        v = xp.where(usable, potential, 1.0)
        before = state.scale * state.scale * state.momentum_sq
        energy, kick, scale, keep = self._project(hamiltonian, v, before, xp)
        rate = _Rate(usable, keep, xp.where(usable, kick / scale, 0.0), xp)
        if hamiltonian.tangential:
            rate.turn = rate.kick * self._radial(shares, grads, on_device)
        state.scale = xp.where(usable, scale, state.scale)
        if not on_device and keep == 0.0:
            torch._foreach_zero_(_momenta(shares))
            rate.keep = 1.0

        if on_device or hamiltonian.drift_follows_kick:
            kicked = [s.kick(gs, rate.of(s), on_device) for s, gs in zip(shares, grads, strict=True)]
            (state.momentum_sq,) = totals(shares, kicked)
            kicked_sq = state.scale * state.scale * state.momentum_sq
            rate.drift = xp.where(usable, hamiltonian.drift(v, energy, kicked_sq, xp) * scale, 0.0)
            for share in shares:
                share.drift(rate.of(share), on_device)
        else:
            rate.drift = hamiltonian.drift(v, energy, None, xp) * scale
            moved = [s.kick_and_drift(gs, rate.of(s)) for s, gs in zip(shares, grads, strict=True)]
            (state.momentum_sq,) = totals(shares, moved)

        turned = self._perturb(shares, xp.number(usable), xp) if self.bounce_rule.nu > 0 else None
        self._last_record = self.record
        self.record = Record(v, energy, before, rate.drift, state.momentum_sq, turned)

    def settle(self, shares: Sequence[Share], potential: float, momentum_sq: float) -> None:
        """Finish a step on the host: count it, and bounce if it is due.

        A bounce changes neither θ nor |π|, so doing it just before the next step is the same as just after
        this one; on an accelerator V and Σ m² have reached the host by then and nothing waits for them.
        """
        state = self.state
        if not Floats.is_usable(potential):
            self.record = self._last_record
            self._count_unusable(potential)
            return
        state.steps += 1
        lost = momentum_sq == 0 and potential < state.rest_potential  # zero gradient after V ≥ E
        if self.bounce_rule.tick(state.clock, potential) or lost:
            self._bounce(shares, momentum_sq)
        else:
            self._keep_in_range(shares, momentum_sq)

    def skip(self, shares: Sequence[Share], potential: float) -> None:
        """Take no step because V is not usable."""
        if self.bounce_rule.nu > 0:
            self.state.draws += 1  # the draw that the step would have made: every path makes the same
        self._count_unusable(potential)

    def remeasure(self, shares: Sequence[Share]) -> None:
        """Sum Σ m² anew, after parameters left."""
        (self.state.momentum_sq,) = totals(shares, [dynamics.squared_norm(s.momenta) for s in shares])

    def _project(
        self, hamiltonian: Hamiltonian, v: Scalar, momentum_sq: Scalar, xp: Any
    ) -> tuple[Scalar, ...]:
        """Return (energy, ∂H/∂V, scale, keep): π = scale · m is on the shell; keep = 0 drops the momentum.

        Then the kick alone makes the new one; with ∂H/∂V as scale, m stays within the range of its dtype.
        """
        state = self.state
        if not self.conserve:
            energy = hamiltonian.energy(v, momentum_sq, xp)
            return energy, hamiltonian.kick(v, energy, xp), state.scale, 1.0
        unit, fraction = hamiltonian.shell(v, state.energy, xp)
        moving = (fraction > 0) & (state.momentum_sq > 0)
        length = xp.sqrt(xp.maximum(state.momentum_sq, TINY))
        kick = hamiltonian.kick(v, state.energy, xp)
        scale = xp.where(moving, unit * xp.sqrt(fraction) / length, kick)
        return state.energy, kick, scale, xp.number(moving)

    def _radial(self, shares: Sequence[Share], grads: Gradients, on_device: bool) -> Scalar:
        """Return (m·g)/|m|², the part of the gradient along the momentum."""
        inner = dynamics.inner_on_device if on_device else dynamics.inner
        products: list[Scalar] = []
        for share, gs in zip(shares, grads, strict=True):
            products.append(inner(share.momenta, gs))
            if share.weight_decay:
                products[-1] = products[-1] + share.weight_decay * inner(share.momenta, share.params)
        (total,) = totals(shares, products)
        return total / self.state.momentum_sq

    def _perturb(self, shares: Sequence[Share], active: Scalar, xp: Any) -> Scalar:
        """Chaos element: π ← |π| (π̂ + νz)/|π̂ + νz|. Returns the cosine of the turn."""
        state = self.state
        inner = dynamics.inner_on_device if xp is Tensors else dynamics.inner
        moving = state.momentum_sq > 0
        old = xp.where(moving, state.momentum_sq, 1.0)
        amount = self.bounce_rule.nu * xp.sqrt(old) * active * xp.number(moving)
        normals = self._next_normals(shares)
        sums = [bounces.perturb(share.drawn(normals), amount, inner) for share in shares]
        norm_sq, overlap = totals(shares, *zip(*sums, strict=True))
        new = xp.where(moving, xp.maximum(norm_sq, TINY), 1.0)
        state.scale = state.scale * xp.sqrt(old / new)
        state.momentum_sq = norm_sq
        return (old + amount * overlap) / (xp.sqrt(old) * xp.sqrt(new))

    def _bounce(self, shares: Sequence[Share], momentum_sq: float) -> None:
        """Bounce: π ← |π| · (isotropic random direction)."""
        state = self.state
        on_device = isinstance(state.momentum_sq, Tensor)
        xp: Any = Tensors if on_device else Floats
        new, overlap = self._redraw(shares, dynamics.inner_on_device if on_device else dynamics.inner)
        cosine = overlap / (math.sqrt(momentum_sq) * xp.sqrt(new)) if momentum_sq > 0 else 0.0
        if momentum_sq > 0:
            state.scale = state.scale * (math.sqrt(momentum_sq) / xp.sqrt(new))
        state.momentum_sq = new
        if self.record is not None:
            self.record.turn_cosine = cosine
        expected = float(sum(share.dimension for share in shares))  # of Σ z², which may still be on a device
        self._keep_in_range(shares, expected)

    def _redraw(self, shares: Sequence[Share], inner: bounces.Inner) -> tuple[Scalar, Scalar]:
        """Give the momenta a random direction; return (Σ new², Σ old·new)."""
        normals = self._next_normals(shares)
        sums = [bounces.redraw(share.drawn(normals), inner) for share in shares]
        norm_sq, overlap = totals(shares, *zip(*sums, strict=True))
        return norm_sq, overlap

    def _keep_in_range(self, shares: Sequence[Share], momentum_sq: float) -> None:
        """Bring the stored momenta back near length 1 by a power of two, which is exact in every dtype."""
        if (
            momentum_sq == 0
            or not math.isfinite(momentum_sq)
            or 1 / LENGTH_RANGE < momentum_sq < LENGTH_RANGE
        ):
            return
        power = max(-LARGEST_POWER, min(round(0.5 * math.log2(momentum_sq)), LARGEST_POWER))
        torch._foreach_mul_(_momenta(shares), 2.0**-power)
        self.state.scale = self.state.scale * 2.0**power
        self.state.momentum_sq = self.state.momentum_sq * 4.0**-power

    def _count_unusable(self, potential: float) -> None:
        state = self.state
        if math.isfinite(potential):
            state.at_floor += 1
            first, what = state.at_floor == 1, "a loss at or below the floor stops the motion"
        else:
            state.skipped += 1
            first, what = state.skipped == 1, "a loss that is not finite was skipped"
        if first:
            warnings.warn(
                f"F - floor = {potential:.3g}: {what} (said once; see diagnostics()).", stacklevel=5
            )

    def _next_normals(self, shares: Sequence[Share]) -> Normals:
        self.state.draws += 1
        return Normals(self.state.seed, self.state.draws, sum(share.dimension for share in shares))

    def _hamiltonian(self, shares: Sequence[Share]) -> Hamiltonian:
        return self.hamiltonian.for_dimension(sum(share.dimension for share in shares))


@dataclass
class _Rate:
    """Coefficients per unit of Δt, from which each share takes its own."""

    usable: Scalar
    keep: Scalar
    kick: Scalar
    xp: Any
    drift: Scalar = 0.0
    turn: Scalar | None = None

    def of(self, share: Share) -> Coefficients:
        keep = self.keep if self.turn is None else self.keep * (1.0 + share.lr * self.turn)
        keep = self.xp.where(self.usable, keep, 1.0)
        return Coefficients(keep, -share.lr * self.kick, share.lr * self.drift, share.weight_decay)


def _momenta(shares: Sequence[Share]) -> list[Tensor]:
    return [m for share in shares for m in share.momenta]


def copy_to_host(numbers: Sequence[Tensor]) -> Callable[[], list[float]]:
    """Start an asynchronous copy of device numbers; the returned function gives them, waiting if it must."""
    stacked = torch.stack(list(numbers))
    if stacked.device.type != "cuda":
        return stacked.tolist
    host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
    host.copy_(stacked, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return list(host.tolist())

    return read
