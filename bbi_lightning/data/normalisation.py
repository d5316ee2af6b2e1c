"""From stored bytes to what a model sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Normalisation:
    """x -> (x / full_range - mean) / std for each channel, as one multiplication and one addition.

    Args:
        mean: of each channel, as a share of `full_range`.
        std: standard deviation of each channel, in the same unit.
        full_range: pixel value that stands for 1.
        device: where the pixels are.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], full_range: int, device: torch.device
    ) -> None:
        centre, width = torch.tensor(mean), torch.tensor(std)
        self._scale = (1 / (full_range * width)).view(-1, 1, 1).to(device)
        self._shift = (-centre / width).view(-1, 1, 1).to(device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 images of uint8 ones, shape (batch, channels, height, width)."""
        return pixels.float().mul_(self._scale).add_(self._shift)
