"""That all ranks hold the same parameters and momenta, checked by a hash now and then.

Ranks that have drifted apart still train, and average gradients of different models: nothing else would tell.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

_BLOCK = 2**16
"""Words that are hashed together; more are hashed block by block."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class RanksDivergedError(Exception):
    """Two ranks do not hold the same numbers, so what they train together has no meaning any more."""


class RankGuard(Callback):
    """Compares parameters, momenta and the optimizers' numbers of all ranks every k-th optimizer step.

    Buffers are not compared: the statistics of BatchNorm differ from rank to rank. Of a sharded model only
    what every rank holds as a whole is. A comparison reads everything once and waits for the device.

    Args:
        every: k, optimizer steps, ≥ 1.

    Raises:
        ValueError: `every` is below 1.
        RanksDivergedError: out of the hooks of all ranks alike; names the first rank and tensor that differ.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every={every} is too small: give 1 or more optimizer steps")
        self.every = every
        self._checked_step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Compare if it is time."""
        step = trainer.global_step
        if trainer.world_size > 1 and step % self.every == 0 and step != self._checked_step:
            self._checked_step = step
            state = dict(replicated_state(pl_module, trainer.optimizers))
            check_ranks(state, step, trainer.strategy.root_device)


def check_ranks(state: Mapping[str, Tensor], step: int, device: torch.device) -> None:
    """Raise unless all ranks hold the same tensors; every rank must call it.

    Args:
        state: by name, with the same names on all ranks.
        step: optimizer steps taken, for the message.
        device: where collectives take place.

    Raises:
        RanksDivergedError: they do not.
    """
    digests = torch.stack([digest(tensor).to(device) for tensor in state.values()])
    total = digest(digests)
    # of equal numbers the largest is the smallest, and ~x turns the order round
    extremes = torch.stack((total, ~total))
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    largest, smallest = extremes.tolist()
    if largest == ~smallest:
        return
    everybodys = [torch.empty_like(digests) for _ in range(dist.get_world_size())]
    dist.all_gather(everybodys, digests)
    rank, tensor = (torch.stack(everybodys) != everybodys[0]).nonzero()[0].tolist()
    raise RanksDivergedError(
        f"after optimizer step {step:,} rank {rank} and rank 0 do not hold the same {list(state)[tensor]}: "
        "something in the training step or a callback depends on the rank, or a device computes wrongly; "
        "resume from a checkpoint of before"
    )


def replicated_state(module: torch.nn.Module, optimizers: list[Optimizer]) -> Iterator[tuple[str, Tensor]]:
    """Name and value of everything that every rank must hold alike."""
    names: dict[Tensor, str] = {}
    for name, parameter in module.named_parameters():
        names[parameter] = name
        yield from _replicated(name, parameter)
    for index, optimizer in enumerate(optimizers):
        whose = "" if len(optimizers) == 1 else f"optimizer {index}: "
        for name, value in _optimizer_state(optimizer, names):
            yield whose + name, value


def _optimizer_state(optimizer: Optimizer, names: Mapping[Tensor, str]) -> Iterator[tuple[str, Tensor]]:
    state = optimizer.state_dict()  # brings what is still on its way from a device up to date
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entries in state["state"].items():
        name = names.get(own[number], f"parameter {number}")
        for key, value in entries.items():
            yield from _replicated(f"{key} of {name}", value)
    for number, group in enumerate(state["param_groups"]):
        for key in sorted(group.keys() - {"params"}):
            yield from _replicated(f"{key} of parameter group {number}", group[key])


def _replicated(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, DTensor):
        if all(placement.is_replicate() for placement in value.placements):
            yield name, value.to_local()
    elif isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _replicated(f"{key} ({name})", value[key])
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _replicated(f"{index} of {name}", entry)
    elif isinstance(value, bool | int | float):
        yield name, torch.tensor(value, dtype=torch.float64)


@torch.no_grad()
def digest(tensor: Tensor) -> Tensor:
    """A hash of a tensor's bits: a 0-dim int64 tensor on the tensor's device, which nobody has waited for.

    Each 8-, 16-, 32- or 64-bit word is multiplied with an odd number of its place, and the products are added
    modulo 2⁶⁴, in whatever order the device likes. Equal tensors have equal digests; two that differ have
    equal ones as good as never.

    Example:
        >>> bool(digest(torch.tensor([1.0, 2.0])) == digest(torch.tensor([2.0, 1.0])))
        False
    """
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    if flat.dtype == torch.bool:
        flat = flat.to(torch.uint8)
    words = flat.view(_WORDS[flat.element_size()])
    factors = _factors(words.device)
    sums = [(block.long() * factors[: len(block)]).sum() for block in words.split(_BLOCK)]
    if len(sums) == 1:
        return sums[0] + factors[0] * len(words)
    return digest(torch.stack(sums)) + factors[0] * len(words)


@functools.lru_cache(maxsize=8)
def _factors(device: torch.device) -> Tensor:
    """Fixed odd 64-bit numbers."""
    drawn = torch.randint(-(2**63), 2**63 - 1, (_BLOCK,), generator=torch.Generator().manual_seed(0))
    return (drawn | 1).to(device)
