"""Energy-conserving descent as a torch optimizer: parameters, loss, state_dict. The physics is in motion.py.

A step at θ with loss F and gradient g (V = F - F₀ is the potential, E the conserved energy):
    shell   |π|² is set to what H(V, |π|²) = E demands: rounding and mini-batch noise cannot heat the motion
    kick    π ← π - Δt (∂H/∂V) g
    drift   θ ← θ + Δt (2 ∂H/∂|π|²) π
    bounce  if due: π ← |π| · (isotropic random direction); chaos element: π turns by a small random angle

Members differ in their Hamiltonian (hamiltonians.py) and their bounce rule (bounces.py), nothing else.

What happens in situations the formulas leave open:
    V > E (mini-batch noise)     the particle is at rest there: the old momentum is dropped, the kick starts
                                 a new one, and the coefficients are those of a particle at rest
    F ≤ F₀ after the start       nothing moves (the speed limit is zero there); counted as ``at_floor``
    F < F₀ at the first step     ValueError: the floor is no lower bound
    F is NaN or infinite         nothing moves; counted as ``skipped``
    a gradient is None           it is zero: the parameter coasts; if it never had one, or is frozen, it rests
    first gradient is zero       the direction is random; at rest (ΔE = 0) the particle stays at rest
    sparse gradient              made dense: momenta are dense anyway
    a parameter is sharded       (a DTensor, as fully_shard makes it) its parts move as the whole would: sums
                                 run over all of them, and random directions do not depend on the cut
Weight decay is an L2 term of F, in loss and gradient alike, hence conserved with it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bbi_lightning.optim import dynamics
from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.diagnostics import summarise
from bbi_lightning.optim.hamiltonians import Hamiltonian
from bbi_lightning.optim.motion import Motion, copy_to_host
from bbi_lightning.optim.scalars import Floats, Scalar
from bbi_lightning.optim.sharding import Sharding, whole
from bbi_lightning.optim.shares import Share, divide, is_stale, totals
from bbi_lightning.optim.state import KEY, State

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class ECD(Optimizer):
    """The common shell. Use a member (``BBI``, ``ECDSep``, …), or pass a Hamiltonian of your own.

    Args:
        params: parameters or groups; a group may set ``lr`` and ``weight_decay``.
        lr: Δt > 0, the time step. Obeys every scheduler.
        hamiltonian: H(V, |π|²), see hamiltonians.py.
        bounce_rule: when to turn, see bounces.py.
        floor: F₀, a lower bound of the loss (unit of the loss).
        extra_energy: ΔE ≥ 0 (unit of the loss): E is that of a particle at rest where V = V₀ + ΔE.
        weight_decay: λ ≥ 0; adds ½λ|θ|² to F.
        conserve: project on the energy shell at every step. Without it energy drifts by O(Δt²) a step.
        seed: of bounces and chaos element; give every rank the same.

    Raises:
        ValueError: an argument out of range; a first loss below ``floor``.
        TypeError: a step without a loss, complex parameters.
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        hamiltonian: Hamiltonian,
        bounce_rule: BounceRule,
        floor: float = 0.0,
        extra_energy: float = 0.0,
        weight_decay: float = 0.0,
        conserve: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0 <= float(lr) < math.inf:
            raise ValueError(f"lr={lr} must be finite and not negative: it is the time step Δt.")
        if not math.isfinite(floor):
            raise ValueError(f"floor={floor} must be finite: pass a lower bound of the loss.")
        if not 0 <= extra_energy < math.inf:
            raise ValueError(
                f"extra_energy={extra_energy} must be finite and not negative: it adds to the first loss."
            )
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay={weight_decay} must be finite and not negative.")
        self.floor = floor
        state = State(member=zlib.crc32(type(hamiltonian).__name__.encode()), seed=seed)
        self._motion = Motion(hamiltonian, bounce_rule, extra_energy, conserve, state)
        self._shares: list[Share] | None = None
        self._idle: list[Tensor] = []
        self._handed_over: Tensor | float | None = None
        self._pending: Callable[[], list[float]] | None = None
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.param_groups[0][KEY] = self._motion.state.to_tensors()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; they start at rest and share the energy. Raises as the constructor does."""
        self._settle()
        for name in ("lr", "weight_decay"):
            value = param_group.get(name, self.defaults[name])
            if not 0 <= float(value) < math.inf:
                raise ValueError(f"{name}={value} of a parameter group must be finite and not negative.")
        super().add_param_group(param_group)
        if any(torch.is_complex(p) for p in self.param_groups[-1]["params"]):
            raise TypeError(
                "A complex parameter has no energy-conserving step here: pass torch.view_as_real(p)."
            )
        for p in self.param_groups[-1]["params"]:
            Sharding.of(p)  # raises for placements that cannot be moved
        self._shares = None

    def hand_over(self, loss: Tensor | float) -> None:
        """Give the next step its loss: the mean over ranks and micro-batches. It wins over the closure's."""
        self._handed_over = loss

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Tensor | float | None = None) -> Any:
        """Take one step; the loss comes from ``hand_over``, else from ``loss``, else from the closure.

        Args:
            closure: clears the gradients, computes the loss, calls backward and returns the loss.
            loss: F at the current parameters, whose gradients are in place; a number or a 0-dim tensor.

        Returns:
            What the closure returned, or ``loss``.

        Raises:
            TypeError: no loss was given.
            RuntimeError: no parameter has a gradient.
        """
        returned: Any = loss
        if closure is not None:
            with torch.enable_grad():
                returned = closure()
        value = self._handed_over if self._handed_over is not None else loss if loss is not None else returned
        self._handed_over = None
        shares = self._current_shares()
        if value is not None:
            self._advance(shares, value)
        elif any(
            float(group["lr"]) != 0 for group in self.param_groups
        ):  # torch.distributed.checkpoint sets 0
            raise TypeError(
                f"{type(self).__name__} needs the value of the loss: call step(closure), step(loss=F) "
                "after your own backward, or hand_over(loss) before step()."
            )
        return returned

    def _current_shares(self) -> list[Share]:
        if self._shares is None or is_stale(self._shares, self._idle):
            self._settle()
            self._shares, self._idle, lost = divide(self.param_groups, self.state)
            if lost and self._motion.state.started:
                self._motion.remeasure(self._shares)
        if not self._shares:
            raise RuntimeError("No parameter has a gradient: call loss.backward() before step().")
        return self._shares

    def _scalars_stay_on(self, shares: list[Share]) -> torch.device | None:
        """Return the accelerator on which the step's scalars stay, or None to compute them as floats."""
        devices = {share.params[0].device for share in shares}
        device = next(iter(devices))
        return device if len(devices) == 1 and device.type != "cpu" else None

    def _advance(self, shares: list[Share], loss: Tensor | float) -> None:
        motion, device = self._motion, self._scalars_stay_on(shares)
        potential = self._potential(shares, loss, device)
        grads = [share.gradients() for share in shares]
        if not motion.state.started:
            first = float(potential)
            if first < 0:
                raise ValueError(
                    f"floor={self.floor} is above the loss {first + self.floor:.6g}: "
                    "pass a lower bound of the loss."
                )
            if not Floats.is_usable(first):
                motion.skip(shares, first)
                return
            motion.start(shares, grads, first)
        if device is not None:
            self._settle()
            motion.move(shares, grads, potential, on_device=True)
            self._pending = copy_to_host([potential, motion.state.momentum_sq])
        elif Floats.is_usable(potential):
            motion.move(shares, grads, potential, on_device=False)
            motion.settle(shares, potential, motion.state.momentum_sq)
        else:
            motion.skip(shares, potential)

    def _potential(self, shares: list[Share], loss: Tensor | float, device: torch.device | None) -> Scalar:
        """Return V = F - F₀ + ½ Σ λ|θ|² as a float, or as a 0-dim float64 tensor on the device."""
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                raise ValueError(
                    f"The loss must be one number, got shape {tuple(loss.shape)}: take its mean."
                )
            loss = whole(loss.detach()).reshape(())
        potential: Scalar = float(loss) - self.floor if device is None else None
        measure: Callable[[list[Tensor]], Scalar] = dynamics.squared_norm
        if device is not None:
            potential = torch.as_tensor(loss, dtype=torch.float64).to(device) - self.floor
            measure = dynamics.squared_norm_on_device
        decaying = [share for share in shares if share.weight_decay]
        if decaying:
            penalties = [0.5 * share.weight_decay * measure(share.params) for share in decaying]
            potential = potential + totals(decaying, penalties)[0]
        return potential

    def _settle(self) -> None:
        """Finish the last step's bookkeeping if its numbers were still on their way from the device."""
        if self._pending is not None and self._shares is not None:
            (potential, momentum_sq), self._pending = self._pending(), None
            self._motion.settle(self._shares, potential, momentum_sq)

    def diagnostics(self) -> dict[str, float]:
        """Return what an observer may want to know of the last step, see ``diagnostics.summarise``.

        Costs nothing unless called; on an accelerator a call waits for the device.
        """
        self._settle()
        motion = self._motion
        return summarise(motion.record, motion.state, motion.hamiltonian)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step needs: momenta, and the numbers of state.py in the first group."""
        self._settle()
        self.param_groups[0][KEY] = self._motion.state.to_tensors()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue as if never stopped, bit for bit. Raises ValueError if the state is not of this member."""
        if not state_dict["param_groups"] or KEY not in state_dict["param_groups"][0]:
            raise ValueError(
                f"This state holds no energy, so {type(self).__name__} cannot continue from it: "
                "it was saved by another kind of optimizer."
            )
        if int(state_dict["param_groups"][0][KEY]["member"]) != self._motion.state.member:
            raise ValueError(
                f"{type(self).__name__} cannot continue from the state of another member of the family, "
                "whose energy means something else: build the optimizer that saved it."
            )
        super().load_state_dict(state_dict)
        self._motion.state = State.from_tensors(self.param_groups[0][KEY])
        self._motion.record = None
        self._shares, self._pending, self._handed_over = None, None, None

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle with the motion; views into tensors are remade at the next step."""
        self._settle()
        own = {"floor": self.floor, "_motion": self._motion, "_shares": None, "_idle": []}
        return {**super().__getstate__(), **own, "_handed_over": None, "_pending": None}
