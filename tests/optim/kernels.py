"""What a step asks of torch, seen below the Python functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SYNCHRONISING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select")
"""Operations that make the host wait for the device."""


class Recorded(TorchDispatchMode):
    """Notes the name of every operation; views and profiling marks are left out, as they do no work."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith("_record_function"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def operations(act: Callable[[], object]) -> list[str]:
    with Recorded() as recorded:
        act()
    return recorded.names


def synchronisations(act: Callable[[], object]) -> list[str]:
    return [name for name in operations(act) if name in SYNCHRONISING]


def resnet_sized(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """62 tensors with gradients, as many as a CIFAR ResNet-18 has, but small."""
    params = [torch.nn.Parameter(torch.ones(1 + i % 9, dtype=dtype)) for i in range(62)]
    for p in params:
        p.grad = torch.full_like(p, 0.1)
    return params
