"""The convolutional network of the BBI paper's MNIST comparison.

G. B. De Luca, E. Silverstein, "Born-Infeld (BI) for AI: energy-conserving descent (ECD) for
optimization", ICML 2022, and its public code. Differences: as many outputs as there are classes (there
the ten classes share 120 outputs), and any image size.
"""

from __future__ import annotations

import torch
from torch import nn

from bbi_lightning.models.arguments import check_smallest_side, check_task


class MNISTCNN(nn.Module):
    """Two 5x5 convolutions of 16 and 32 channels, each with ReLU and 2x2 max pooling, then a linear layer.

    Args:
        image_shape: (channels, height, width), at least 4x4 pixels.
        num_classes: number of logits.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        check_task(image_shape, num_classes)
        check_smallest_side(image_shape, 4, "the MNIST CNN")
        channels, height, width = image_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(32 * (height // 4) * (width // 4), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (batch, num_classes)."""
        return self.classifier(self.features(images).flatten(1))
