"""Wide residual networks for small images.

S. Zagoruyko, N. Komodakis, "Wide residual networks", BMVC 2016 (arXiv:1605.07146), table 1: blocks of
two 3x3 convolutions, normalisation and ReLU before each, dropout between them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bbi_lightning.models.arguments import check_dropout, check_smallest_side, check_task


class WideResNet(nn.Module):
    """WRN-depth-widen_factor; WRN-28-10 has 36,479,194 parameters at 10 classes.

    Args:
        image_shape: (channels, height, width), at least 4x4 pixels.
        num_classes: number of logits.
        depth: convolutions from input to output, 6 n + 4 with n >= 1 blocks a stage.
        widen_factor: the three stages have 16, 32 and 64 times as many channels, >= 1.
        dropout: probability to drop a unit inside a block, in [0, 1); the paper uses 0.3 on CIFAR.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_task(image_shape, num_classes)
        check_smallest_side(image_shape, 4, "a wide ResNet")
        check_dropout(dropout)
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth} is not 6 n + 4: pass 10, 16, 22, 28, 34, 40 …")
        if widen_factor < 1:
            raise ValueError(f"widen_factor={widen_factor} is below 1: pass a positive integer")

        widths = [width * widen_factor for width in (16, 32, 64)]
        self.stem = nn.Conv2d(image_shape[0], 16, kernel_size=3, padding=1, bias=False)
        blocks, inputs = [], 16
        for stage, width in enumerate(widths):
            for number in range((depth - 4) // 6):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(_Block(inputs, width, stride, dropout))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (batch, num_classes)."""
        features = F.relu(self.norm(self.blocks(self.stem(images))))
        return self.classifier(features.mean(dim=(2, 3)))


class _Block(nn.Module):
    """x + conv(dropout(relu(norm(conv(relu(norm(x))))))), with a 1x1 convolution of relu(norm(x)) for x
    where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = F.relu(self.norm1(x))
        identity = x if self.shortcut is None else self.shortcut(active)
        out = F.relu(self.norm2(self.conv1(active)))
        return identity + self.conv2(self.dropout(out))
