"""A small convolutional network whose defaults suit 8x8 digits and still make sense on 32x32 images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bbi_lightning.models.arguments import check_dropout, check_sizes, check_task


class CNN(nn.Module):
    """Convolutions, each with batch normalisation and ReLU, 2x2 max pooling between them, a linear layer.

    Pooling is left out where less than 2x2 pixels remain.

    Args:
        image_shape: (channels, height, width).
        num_classes: number of logits.
        channels: outputs of each convolution, from the input on.
        kernel_size: side of all kernels, odd, >= 1.
        batch_norm: normalise after each convolution; without it the convolutions have biases.
        dropout: probability to drop an input of the linear layer, in [0, 1).

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> CNN(image_shape=(1, 8, 8), num_classes=10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int] = (16, 32, 64),
        kernel_size: int = 3,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_task(image_shape, num_classes)
        check_dropout(dropout)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} is not odd: pass 1, 3, 5 …")

        inputs, height, width = image_shape
        layers: list[nn.Module] = []
        for number, outputs in enumerate(check_sizes("channels", channels)):
            if number > 0 and min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            layers.append(
                nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=not batch_norm)
            )
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU())
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs * height * width, num_classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (batch, num_classes)."""
        return self.classifier(self.features(images))
