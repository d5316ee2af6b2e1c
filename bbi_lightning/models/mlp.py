"""A multilayer perceptron on flattened images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from bbi_lightning.models.arguments import check_dropout, check_sizes, check_task

Activation = Literal["relu", "gelu", "tanh", "silu"]
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


class MLP(nn.Module):
    """x -> W_L φ(… φ(W_1 x + b_1) …) + b_L, with dropout after each activation.

    Args:
        image_shape: (channels, height, width).
        num_classes: number of logits.
        widths: size of each hidden layer, from the input on.
        activation: φ: relu, gelu, tanh or silu.
        dropout: probability to drop a hidden unit, in [0, 1).

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> MLP(image_shape=(1, 8, 8), num_classes=10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (128, 128),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_task(image_shape, num_classes)
        check_dropout(dropout)
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown: pass one of {', '.join(_ACTIVATIONS)}")

        layers: list[nn.Module] = [nn.Flatten()]
        inputs = math.prod(image_shape)
        for width in check_sizes("widths", widths):
            layers += [nn.Linear(inputs, width), _ACTIVATIONS[activation]()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (batch, num_classes)."""
        return self.layers(images)
