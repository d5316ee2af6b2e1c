"""FSDP2 in Lightning: every process keeps a part of each parameter, its gradient and its momentum.

The whole of a block's parameters exists only while the block computes. The path is that of one process, to
rounding: gradients are means over the processes, and the optimizer family sums over all parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.precision import DoublePrecision, MixedPrecision, Precision
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from bbi_lightning.checkpoints import shard_files

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the parameters of a model, block by block, then what is left as one; a sharded one stays as it is.

    Blocks are the members of `nn.Sequential` and `nn.ModuleList` that are made of modules themselves.

    Args:
        model: with the same parameters on all processes; used by calling it.
        mesh: one dimension.
    """
    if isinstance(model, FSDPModule):
        return
    for block in reversed(_blocks(model)):  # what lies inside comes first
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.register_forward_pre_hook(_follow_the_first)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model, outer ones before those inside of them."""
    return [
        member
        for container in model.modules()
        if isinstance(container, nn.Sequential | nn.ModuleList)
        for member in container.children()
        if any(True for _ in member.children()) and any(True for _ in member.parameters())
    ]


def _follow_the_first(model: nn.Module, inputs: object) -> None:
    """Give all processes the buffers of the first, as DDP does: its are saved, and the others' lost."""
    if not model.training:
        return
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    for dtype in sorted({buffer.dtype for buffer in buffers}, key=str):
        own = [buffer for buffer in buffers if buffer.dtype == dtype]
        together = torch.cat([buffer.reshape(-1) for buffer in own])
        dist.broadcast(together, src=0)
        parts = together.split([buffer.numel() for buffer in own])
        torch._foreach_copy_(own, [part.view_as(b) for part, b in zip(parts, own, strict=True)])


def precision_plugin(precision: str, device: str) -> Precision | None:
    """Return Lightning's plugin for a precision that it refuses by name under FSDP2, though it works.

    Args:
        precision: Lightning's name.
        device: "cpu" or "cuda".

    Returns:
        None if Lightning takes the name.
    """
    if precision == "64-true":
        return DoublePrecision()
    return MixedPrecision("16-mixed", device) if precision == "16-mixed" else None


class ShardedStrategy(ModelParallelStrategy):
    """Pure FSDP2: all processes share each parameter; checkpoints in shards, read on any number of processes.

    The LightningModule shards its model in `configure_model`, with `shard(model, strategy.mesh)`.

    Args:
        timeout: after which a collective call that not all processes have joined is an error.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=10)) -> None:
        super().__init__(tensor_parallel_size=1, timeout=timeout)

    @property
    def mesh(self) -> DeviceMesh:
        """All processes in a row."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning restores the optimizers, as it does where nothing is sharded."""
        return True

    def setup_environment(self) -> None:
        """Form the group of processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's state, of which each process has its part."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state, of which each process has its part."""
        return getattr(optimizer, "_optimizer", optimizer).state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write into the folder `filepath` of rank zero, which exists; return when all processes have.

        Raises:
            OSError: one of them could not, on all of them alike.
        """
        shard_files.write(Path(self.broadcast(str(filepath))), checkpoint)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, in shards or whole, into this run's division; whatever is asked, only data."""
        folder = Path(self.broadcast(str(checkpoint_path)))
        places = _Places(self)
        if shard_files.is_sharded(folder):
            return shard_files.read(folder, places.empty)
        return places.cut(shard_files.read_whole(folder))

    def divided(self, optimizer_states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return whole states of the optimizers, of whose tensors only the parts of this process are left."""
        return _Places(self).cut_optimizers(optimizer_states)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Fill the module with what `load_checkpoint` has read."""
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Fill the optimizers with what `load_checkpoint` has read."""
        Strategy.load_optimizer_state_dict(self, checkpoint)


class _Places:
    """Where the tensors of a checkpoint belong in a run that is set up."""

    def __init__(self, strategy: Strategy) -> None:
        assert strategy.lightning_module is not None
        self.model: dict[str, Any] = strategy.lightning_module.state_dict()
        self.parameters: list[list[Tensor]] = [
            [p for group in optimizer.param_groups for p in group["params"]]
            for optimizer in strategy.optimizers
        ]

    def empty(self, key: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
        """An empty tensor, divided like the parameter it belongs to; None for an optimizer not there."""
        where = shard_files.optimizer_key(key)
        if where is not None and self._parameter(*where) is None:
            return None
        owner = self.model.get(shard_files.model_key(key)) if where is None else self._parameter(*where)
        if isinstance(owner, DTensor) and owner.shape == size:
            return torch.empty_like(owner, dtype=dtype)
        return torch.empty(size, dtype=dtype)

    def cut(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The same checkpoint, of whose tensors only the parts of this process are left."""
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: _like(self.model.get(name), x) for name, x in weights.items()}
        checkpoint["optimizer_states"] = self.cut_optimizers(checkpoint["optimizer_states"])
        return checkpoint

    def cut_optimizers(self, states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The same for the states of the optimizers."""
        return [
            {
                **state,
                "state": {
                    index: {name: _like(self._parameter(number, index), x) for name, x in values.items()}
                    for index, values in state["state"].items()
                },
            }
            for number, state in enumerate(states)
        ]

    def _parameter(self, number: int, index: int) -> Tensor | None:
        """A parameter of an optimizer; None where this run has not so many, as when it only tests."""
        try:
            return self.parameters[number][index]
        except IndexError:
            return None


def _like(owner: Any, value: Any) -> Any:
    """A whole tensor divided like its owner; anything else as it is."""
    if not isinstance(owner, DTensor) or not isinstance(value, Tensor) or value.shape != owner.shape:
        return value
    return distribute_tensor(value, owner.device_mesh, owner.placements, src_data_rank=None)
