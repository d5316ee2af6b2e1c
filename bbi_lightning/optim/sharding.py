"""Parameters of which each process holds a part: torch's DTensors, as ``fully_shard`` makes them.

The optimizer works on the parts that are here. Of the others it needs sums over all coordinates (norms,
inner products), which are added up over the processes in float64, alike to the last bit on each of them; and
where its own part lies, so that random draws are those of the whole (draws.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from bbi_lightning.optim.draws import Place
from bbi_lightning.optim.scalars import Scalar

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement


def as_distributed(tensor: Tensor | None) -> DTensor | None:
    """Return the tensor if it is distributed, else None; without importing what most programs do not use."""
    module: Any = sys.modules.get("torch.distributed.tensor")
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None


def here(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor: a part, or all of it."""
    distributed = as_distributed(tensor)
    return tensor if distributed is None else distributed.to_local()


def whole(number: Tensor) -> Tensor:
    """Return a number that may be distributed, such as a loss summed in parts, as an ordinary tensor."""
    distributed = as_distributed(number)
    return number if distributed is None else distributed.full_tensor()


@dataclass(frozen=True)
class Sharding:
    """How a parameter is spread over processes: one placement for each dimension of the mesh."""

    mesh: DeviceMesh
    placements: tuple[Placement, ...]

    @classmethod
    def of(cls, parameter: Tensor) -> Sharding | None:
        """Return how a parameter is spread, or None for an ordinary one.

        Raises:
            TypeError: it is spread in a way that does not say which numbers a process holds.
        """
        distributed = as_distributed(parameter)
        if distributed is None:
            return None
        placements = tuple(distributed.placements)
        plain: Any = sys.modules["torch.distributed.tensor"].Shard  # derived ones interleave
        if not all(type(p) is plain or p.is_replicate() for p in placements):
            raise TypeError(
                f"A parameter placed as {placements} cannot be moved, since no process holds numbers of its "
                "own there: redistribute it to Shard or Replicate."
            )
        return cls(distributed.device_mesh, placements)

    @property
    def splits(self) -> bool:
        """Whether any other process holds numbers that this one has not."""
        return any(p.is_shard() and self.mesh.size(d) > 1 for d, p in enumerate(self.placements))

    def place(self, parameter: Tensor, first: int) -> Place:
        """Return where this process's part of a parameter lies; ``first`` numbers its first coordinate.

        Raises:
            TypeError: the part is not the box that its placements say.
        """
        start, size = [0] * parameter.dim(), list(parameter.shape)
        coordinate = self.mesh.get_coordinate()
        assert coordinate is not None
        for dim, placement in enumerate(self.placements):
            if placement.is_shard():
                cut: int = placement.dim  # type: ignore[attr-defined]
                chunk = -(-size[cut] // self.mesh.size(dim))
                offset = min(chunk * coordinate[dim], size[cut])
                start[cut] += offset
                size[cut] = min(chunk, size[cut] - offset)
        found = tuple(here(parameter).shape)
        if tuple(size) != found:
            raise TypeError(
                f"A parameter of shape {tuple(parameter.shape)} placed as {self.placements} has a part of "
                f"shape {found} here, where {tuple(size)} is usual: shard it with fully_shard."
            )
        return Place(first, tuple(parameter.shape), tuple(start), tuple(size))

    def wrap(self, part: Tensor, parameter: Tensor) -> Tensor:
        """Return a distributed tensor like the parameter, of which this process holds ``part``."""
        from torch.distributed.tensor import DTensor

        return DTensor.from_local(
            part,
            self.mesh,
            self.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )

    def gradient(self, parameter: Tensor) -> Tensor | None:
        """Return this process's part of a parameter's gradient."""
        gradient = as_distributed(parameter.grad)
        if gradient is not None and tuple(gradient.placements) != self.placements:
            gradient = gradient.redistribute(self.mesh, self.placements)
        return None if gradient is None else gradient.to_local()

    def add_up(self, numbers: Sequence[Scalar]) -> list[Scalar]:
        """Return sums over processes: floats of floats, 0-dim float64 tensors (without waiting) of tensors.

        One collective a dimension of the mesh. Replicas count once, and only the first of them: so all
        processes are given the same bits, whatever order each group adds in.
        """
        on_device = any(isinstance(x, Tensor) for x in numbers)
        device = torch.device(self.mesh.device_type)
        if device.type == "cuda":
            device = torch.device("cuda", torch.cuda.current_device())
        total = torch.stack([torch.as_tensor(x, dtype=torch.float64, device=device) for x in numbers])
        coordinate = self.mesh.get_coordinate()
        assert coordinate is not None
        if any(coordinate[d] for d, placement in enumerate(self.placements) if placement.is_replicate()):
            total.zero_()
        for dim in reversed(range(self.mesh.ndim)):
            if self.mesh.size(dim) > 1:
                dist.all_reduce(total, group=self.mesh.get_group(dim))
        return list(total.unbind()) if on_device else total.tolist()
