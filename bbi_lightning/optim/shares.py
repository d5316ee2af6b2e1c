"""The parameters that take part in a step, sorted into lists that one kernel call can update."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from bbi_lightning.optim import dynamics
from bbi_lightning.optim.bounces import Batches
from bbi_lightning.optim.draws import Normals, Place, drawn
from bbi_lightning.optim.dynamics import Coefficients, Run
from bbi_lightning.optim.scalars import Scalar
from bbi_lightning.optim.sharding import Sharding, as_distributed, here


@dataclass
class Share:
    """Parameters of one group, device, dtype and sharding, with their momenta.

    owners: the parameters. params: what this process holds of each (the parameter itself if not sharded).
    momenta: laid out like params. places: which coordinates these are. dimension: how many there are, over
    all processes. runs: None where the fused CPU kernel does not apply (other devices, gaps in memory).
    """

    group: dict[str, Any]
    owners: list[Tensor]
    params: list[Tensor]
    momenta: list[Tensor]
    places: list[Place]
    dimension: int
    runs: list[Run] | None
    sharding: Sharding | None = None
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
    def is_split(self) -> bool:
        """Whether sums over these parameters need the other processes."""
        return self.sharding is not None and self.sharding.splits

    def gradients(self) -> list[Tensor]:
        """Return the gradients, dense and laid out like ``params``; a missing one is zero."""
        if self._strides is None:
            self._strides = [p.stride() for p in self.params]
        grads = [p.grad if self.sharding is None else self.sharding.gradient(p) for p in self.owners]
        for i, (grad, strides) in enumerate(zip(grads, self._strides, strict=True)):
            if (
                grad is None
                or grad.is_sparse
                or grad.stride() != strides
                or grad.dtype != self.params[i].dtype
            ):
                grads[i] = _prepared(self.params[i], grad)
        return grads  # type: ignore[return-value]  # no None is left

    def drawn(self, normals: Normals) -> Batches:
        """Return the momenta with their normal numbers of a draw."""
        return drawn(self.momenta, self.places, normals)

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


def _prepared(p: Tensor, grad: Tensor | None) -> Tensor:
    if grad is None:
        return torch.zeros_like(p)
    grad = grad.to_dense() if grad.layout != torch.strided else grad
    return torch.empty_like(p).copy_(grad)


def totals(shares: Sequence[Share], *columns: Sequence[Scalar]) -> list[Scalar]:
    """Return the sum of each column, which has a number for each share, over shares and over processes.

    Shares that are spread alike need one collective together.
    """
    if not any(share.is_split for share in shares):
        return [sum(column) for column in columns]
    sums: list[Scalar] = [0.0] * len(columns)
    spread: dict[Sharding, list[Scalar]] = {}
    for share, row in zip(shares, zip(*columns, strict=True), strict=True):
        if share.sharding is not None and share.is_split:
            before = spread.get(share.sharding, [0.0] * len(columns))
            spread[share.sharding] = [a + x for a, x in zip(before, row, strict=True)]
        else:
            sums = [a + x for a, x in zip(sums, row, strict=True)]
    for sharding in sorted(spread, key=str):  # the same order on all processes
        sums = [a + x for a, x in zip(sums, sharding.add_up(spread[sharding]), strict=True)]
    return sums


def is_stale(shares: Sequence[Share], idle: Sequence[Tensor]) -> bool:
    """Return whether a parameter joined (got its first gradient) or left (was frozen) since the division.

    Or whether a sharded one was given other memory, as loading weights may do.
    """
    if any(p.grad is not None and p.requires_grad for p in idle):
        return True
    if any(not p.requires_grad for share in shares for p in share.owners):
        return True
    return any(
        here(owner).data_ptr() != part.data_ptr()
        for share in shares
        if share.sharding is not None
        for owner, part in zip(share.owners, share.params, strict=True)
    )


def divide(
    groups: Sequence[dict[str, Any]], state: MutableMapping[Tensor, Any]
) -> tuple[list[Share], list[Tensor], bool]:
    """Return the shares of all parameters in motion, the idle ones, and whether any lost its momentum.

    Idle are those frozen, which lose it, and those never given a gradient: a parameter joins at its first
    gradient, with momentum zero. Coordinates are numbered through in the order of the groups.
    """
    shares: list[Share] = []
    idle: list[Tensor] = []
    lost, coordinates = False, 0
    for group in groups:
        moving = []
        for p in group["params"]:
            if p.requires_grad and (p.grad is not None or "momentum" in state.get(p, ())):
                moving.append(_Moving.of(p, coordinates))
                coordinates += p.numel()
            else:
                idle.append(p)
                lost |= state.pop(p, None) is not None
        shares += _shares_of(group, moving, state)
    return shares, idle, lost


@dataclass(frozen=True)
class _Moving:
    """A parameter in motion: the part that is here, and its place among all coordinates."""

    owner: Tensor
    part: Tensor
    place: Place
    sharding: Sharding | None

    @classmethod
    def of(cls, p: Tensor, first: int) -> _Moving:
        sharding = Sharding.of(p)
        if sharding is None:
            return cls(p, p, Place.whole(first, p), None)
        return cls(p, here(p).detach(), sharding.place(p, first), sharding)

    @property
    def is_fusable(self) -> bool:
        p = self.part
        return p.device.type == "cpu" and p.dtype in dynamics.FUSED_DTYPES and dynamics.is_dense(p)

    @property
    def kind(self) -> tuple[str, str, bool, str]:
        return str(self.part.device), str(self.part.dtype), self.is_fusable, str(self.sharding)

    def restore(self, momentum: Tensor, state: MutableMapping[Tensor, Any]) -> None:
        """Fill a momentum with the saved one, if there is one, and make it the one that is saved next."""
        saved = state[self.owner].get("momentum")
        if saved is not None:
            whole = self.sharding is not None and as_distributed(saved) is None
            momentum.copy_(self.place.cut(saved) if whole else here(saved))
        wrapped = momentum if self.sharding is None else self.sharding.wrap(momentum, self.owner)
        state[self.owner]["momentum"] = wrapped


def _shares_of(
    group: dict[str, Any], moving: Sequence[_Moving], state: MutableMapping[Tensor, Any]
) -> Iterator[Share]:
    def kind(one: _Moving) -> tuple[str, str, bool, str]:
        return one.kind

    for (_, _, fusable, _), members in groupby(sorted(moving, key=kind), key=kind):
        own = list(members)
        parts = [one.part for one in own]
        momenta = dynamics.lay_out(parts) if fusable else [torch.zeros_like(p) for p in parts]
        for one, momentum in zip(own, momenta, strict=True):
            one.restore(momentum, state)
        yield Share(
            group,
            [one.owner for one in own],
            parts,
            momenta,
            [one.place for one in own],
            sum(one.owner.numel() for one in own),
            dynamics.plan_runs(parts, momenta) if fusable else None,
            own[0].sharding,
        )
