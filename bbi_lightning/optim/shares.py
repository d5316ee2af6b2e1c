"""The parameters that take part in a step, sorted into lists that one kernel call can update."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from bbi_lightning.optim import dynamics
from bbi_lightning.optim.dynamics import Coefficients, Run
from bbi_lightning.optim.scalars import Scalar


@dataclass
class Share:
    """Parameters of one group, device and dtype, with their momenta.

    runs is None where the fused CPU kernel does not apply (other devices, tensors with gaps in memory).
    """

    group: dict[str, Any]
    params: list[Tensor]
    momenta: list[Tensor]
    runs: list[Run] | None
    _strides: list[tuple[int, ...]] | None = None

    @property
    def lr(self) -> Scalar:
        """Δt of the group: a float, or a tensor if the user keeps it on the device."""
        lr = self.group["lr"]
        return lr if isinstance(lr, Tensor) and lr.device.type != "cpu" else float(lr)

    @property
    def weight_decay(self) -> float:
        """λ of the group."""
        return float(self.group["weight_decay"])

    @property
    def dimension(self) -> int:
        """How many coordinates these are."""
        return sum(p.numel() for p in self.params)

    def gradients(self) -> list[Tensor]:
        """Return the gradients, dense and laid out like the parameters; a missing one is zero."""
        if self._strides is None:
            self._strides = [p.stride() for p in self.params]
        grads = [p.grad for p in self.params]
        for i, (grad, strides) in enumerate(zip(grads, self._strides, strict=True)):
            if (
                grad is None
                or grad.is_sparse
                or grad.stride() != strides
                or grad.dtype != self.params[i].dtype
            ):
                grads[i] = _prepared(self.params[i])
        return grads  # type: ignore[return-value]  # no None is left

    def kick_and_drift(self, grads: list[Tensor], c: Coefficients) -> float:
        """Kick and move with known coefficients; return Σ m²."""
        if self.runs is not None:
            return dynamics.kick_and_drift(self.runs, grads, c)
        norm_sq = self.kick(grads, c, on_device=False)
        self.drift(c, on_device=False)
        return float(norm_sq)

    def kick(self, grads: list[Tensor], c: Coefficients, on_device: bool) -> Scalar:
        """Kick only; return Σ m², as a tensor if ``on_device``."""
        if self.runs is not None and not on_device:
            return dynamics.kick(self.runs, grads, c)
        dynamics.kick_listwise(self.params, grads, self.momenta, c)
        measure = dynamics.squared_norm_on_device if on_device else dynamics.squared_norm
        return measure(self.momenta)

    def drift(self, c: Coefficients, on_device: bool) -> None:
        """Move only."""
        if self.runs is not None and not on_device:
            dynamics.drift(self.runs, c)
        else:
            dynamics.drift_listwise(self.params, self.momenta, c)


def _prepared(p: Tensor) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p)
    grad = p.grad.to_dense() if p.grad.layout != torch.strided else p.grad
    return torch.empty_like(p).copy_(grad)


def is_stale(shares: Sequence[Share], idle: Sequence[Tensor]) -> bool:
    """Return whether a parameter joined (got its first gradient) or left (was frozen) since the division."""
    if any(p.grad is not None and p.requires_grad for p in idle):
        return True
    return any(not p.requires_grad for share in shares for p in share.params)


def divide(
    groups: Sequence[dict[str, Any]], state: MutableMapping[Tensor, Any]
) -> tuple[list[Share], list[Tensor], bool]:
    """Return the shares of all parameters in motion, the idle ones, and whether any lost its momentum.

    Idle are those frozen, which lose it, and those never given a gradient: a parameter joins at its first
    gradient, with momentum zero.
    """
    shares: list[Share] = []
    idle: list[Tensor] = []
    lost = False
    for group in groups:
        moving = []
        for p in group["params"]:
            if p.requires_grad and (p.grad is not None or "momentum" in state.get(p, ())):
                moving.append(p)
            else:
                idle.append(p)
                lost |= state.pop(p, None) is not None
        shares += _shares_of(group, moving, state)
    return shares, idle, lost


def _shares_of(
    group: dict[str, Any], params: Sequence[Tensor], state: MutableMapping[Tensor, Any]
) -> Iterator[Share]:
    def kind(p: Tensor) -> tuple[str, str, bool]:
        return str(p.device), str(p.dtype), _is_fusable(p)

    for (_, _, fusable), members in groupby(sorted(params, key=kind), key=kind):
        own = list(members)
        momenta = dynamics.lay_out(own) if fusable else [torch.zeros_like(p) for p in own]
        for p, momentum in zip(own, momenta, strict=True):
            if "momentum" in state[p]:
                momentum.copy_(state[p]["momentum"])
            state[p]["momentum"] = momentum
        yield Share(group, own, momenta, dynamics.plan_runs(own, momenta) if fusable else None)


def _is_fusable(p: Tensor) -> bool:
    return p.device.type == "cpu" and p.dtype in dynamics.FUSED_DTYPES and dynamics.is_dense(p)
