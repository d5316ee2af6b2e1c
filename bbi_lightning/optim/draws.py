"""Random directions that do not depend on how the parameters are cut into tensors, groups or processes.

The coordinates of all parameters in motion are numbered through, group by group, and a draw gives each of
them a normal number: block k of ``BLOCK`` coordinates comes from a generator of its own, which is a pure
function of (seed, number of the draw, k). So a process that holds a part of a parameter draws just the
blocks that the part touches and finds the numbers that a single process would have found; nothing but the
count of draws needs saving; and a parameter cut in two gets the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCK = 1 << 17
"""Coordinates drawn at once: half a MiB stays in a cache, and seeding costs a hundredth of the drawing."""
BATCH_ON_DEVICE = 1 << 24
"""Elements that one kernel call serves on an accelerator, where a call costs more than the memory."""


@dataclass(frozen=True)
class Place:
    """Which coordinates a tensor holds: a parameter, or the box of it that one process has.

    first: number of the parameter's first coordinate. shape: of the whole parameter. start, size: of the box,
    one entry a dimension.
    """

    first: int
    shape: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def whole(cls, first: int, tensor: Tensor) -> Place:
        """Return the place of a parameter that is all here."""
        shape = tuple(tensor.shape)
        return cls(first, shape, (0,) * len(shape), shape)

    def cut(self, whole: Tensor) -> Tensor:
        """Return the box as a view of a tensor of the parameter's shape."""
        for dim, (start, size) in enumerate(zip(self.start, self.size, strict=True)):
            whole = whole.narrow(dim, start, size)
        return whole

    @cached_property
    def interval(self) -> tuple[int, int] | None:
        """The box's coordinates as [begin, end), or None if they do not follow one another."""
        if self.size[1:] != self.shape[1:]:
            return None
        row = math.prod(self.shape[1:])
        begin = self.first + (self.start[0] * row if self.shape else 0)
        return begin, begin + math.prod(self.size)


class Normals:
    """One draw: a normal number for each of ``coordinates`` coordinates. Asked in order it draws them once.

    Numbers are float64 for float64 tensors (from other generators than the rest), else float32, rounded.

    Args:
        seed: of the optimizer; the same on every process.
        draw: number of the draw, ≥ 1.
        coordinates: how many there are over all processes.
    """

    def __init__(self, seed: int, draw: int, coordinates: int) -> None:
        self._key = _mix(_mix(seed) ^ draw)
        self._coordinates = coordinates
        self._generators: dict[torch.device, torch.Generator] = {}
        self._newest: tuple[object, Tensor] = None, torch.empty(0)

    def of(self, tensor: Tensor, place: Place) -> Tensor:
        """Return the numbers of a tensor's coordinates, of its shape, dtype and device."""
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        if place.interval is not None:
            z = self._between(*place.interval, dtype, tensor.device)
            z = z if len(place.size) == 1 else z.view(place.size)
        else:
            end = place.first + math.prod(place.shape)
            z = place.cut(self._between(place.first, end, dtype, tensor.device).view(place.shape))
        return z if z.dtype == tensor.dtype else z.to(tensor.dtype)

    def _between(self, begin: int, end: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The numbers of the coordinates [begin, end); not to be changed."""
        if begin == end:
            return torch.empty(0, dtype=dtype, device=device)
        first, last = begin // BLOCK, (end - 1) // BLOCK
        if first == last:
            return self._block(first, dtype, device)[begin - first * BLOCK : end - first * BLOCK]
        z = torch.empty(end - begin, dtype=dtype, device=device)
        for block in range(first, last + 1):
            start, stop = self._bounds(block)
            if begin <= start and stop <= end:
                self._fill(block, z[start - begin : stop - begin])
            else:
                low, high = max(begin, start), min(end, stop)
                part = self._block(block, dtype, device)[low - start : high - start]
                z[low - begin : high - begin] = part
        return z

    def _block(self, block: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A whole block; the newest is kept, since small tensors share it."""
        key, newest = self._newest
        if key != (block, dtype, device):
            start, stop = self._bounds(block)
            newest = self._fill(block, torch.empty(stop - start, dtype=dtype, device=device))
            self._newest = (block, dtype, device), newest
        return newest

    def _bounds(self, block: int) -> tuple[int, int]:
        return block * BLOCK, min((block + 1) * BLOCK, self._coordinates)

    def _fill(self, block: int, out: Tensor) -> Tensor:
        if out.device not in self._generators:
            self._generators[out.device] = torch.Generator(device=out.device)
        generator = self._generators[out.device]
        generator.manual_seed(_mix(self._key ^ (2 * block + (out.dtype == torch.float64))))
        return out.normal_(generator=generator)


def _mix(x: int) -> int:
    """Scramble 64 bits (the finalizer of SplitMix64), so that neighbouring seeds give unrelated streams."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


def drawn(
    tensors: Sequence[Tensor], places: Sequence[Place], normals: Normals
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield the tensors with their normal numbers, in batches that one kernel call can serve.

    A batch has about ``BLOCK`` elements on a CPU, where it should stay in the cache, and more elsewhere.
    """
    limit = BLOCK if tensors[0].device.type == "cpu" else BATCH_ON_DEVICE
    batch: list[Tensor] = []
    numbers: list[Tensor] = []
    elements = 0
    for tensor, place in zip(tensors, places, strict=True):
        batch.append(tensor)
        numbers.append(normals.of(tensor, place))
        elements += tensor.numel()
        if elements >= limit:
            yield batch, numbers
            batch, numbers, elements = [], [], 0
    if batch:
        yield batch, numbers
