"""Residual networks: torchvision's, for ImageNet, and the variant that is usual on CIFAR.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016. Parameters
have torchvision's names, so its checkpoints load.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from bbi_lightning.models.arguments import check_smallest_side, check_task


class _ResNet(TorchvisionResNet):
    """torchvision's ResNet for any number of input channels.

    Args:
        block: torchvision's residual block.
        layers: number of blocks of each of the four stages.
        image_shape: (channels, height, width).
        num_classes: number of logits.
        zero_init_residual: start every residual branch at zero (P. Goyal et al., arXiv:1706.02677).
    """

    def __init__(
        self,
        block: type[nn.Module],
        layers: list[int],
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        zero_init_residual: bool,
    ) -> None:
        check_task(image_shape, num_classes)
        super().__init__(block, layers, num_classes=num_classes, zero_init_residual=zero_init_residual)
        if image_shape[0] != 3:
            self._replace_stem(image_shape[0], kernel_size=7, stride=2, padding=3)

    def _replace_stem(self, channels: int, **geometry: Any) -> None:
        self.conv1 = nn.Conv2d(channels, 64, bias=False, **geometry)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")


class ResNet18(_ResNet):
    """ResNet-18 with the ImageNet stem (7x7, stride 2, then pooling): 11,689,512 parameters at 1000 classes.

    Args:
        image_shape: (channels, height, width); made for 224x224, works from 32x32 on.
        num_classes: number of logits.
        zero_init_residual: start every residual branch at zero.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self, *, image_shape: tuple[int, int, int], num_classes: int, zero_init_residual: bool = False
    ) -> None:
        check_task(image_shape, num_classes)
        check_smallest_side(image_shape, 32, "an ImageNet ResNet")
        super().__init__(
            BasicBlock,
            [2, 2, 2, 2],
            image_shape=image_shape,
            num_classes=num_classes,
            zero_init_residual=zero_init_residual,
        )


class ResNet50(_ResNet):
    """ResNet-50 with the ImageNet stem: 25,557,032 parameters at 1000 classes.

    Args:
        image_shape: (channels, height, width); made for 224x224, works from 32x32 on.
        num_classes: number of logits.
        zero_init_residual: start every residual branch at zero.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self, *, image_shape: tuple[int, int, int], num_classes: int, zero_init_residual: bool = False
    ) -> None:
        check_task(image_shape, num_classes)
        check_smallest_side(image_shape, 32, "an ImageNet ResNet")
        super().__init__(
            Bottleneck,
            [3, 4, 6, 3],
            image_shape=image_shape,
            num_classes=num_classes,
            zero_init_residual=zero_init_residual,
        )


class CIFARResNet18(_ResNet):
    """ResNet-18 for small images, 3x3 stem and no pooling after it: 11,173,962 parameters at 10 classes.

    Args:
        image_shape: (channels, height, width), at least 8x8 pixels.
        num_classes: number of logits.
        zero_init_residual: start every residual branch at zero.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self, *, image_shape: tuple[int, int, int], num_classes: int, zero_init_residual: bool = False
    ) -> None:
        check_task(image_shape, num_classes)
        check_smallest_side(image_shape, 8, "the CIFAR ResNet-18")
        super().__init__(
            BasicBlock,
            [2, 2, 2, 2],
            image_shape=image_shape,
            num_classes=num_classes,
            zero_init_residual=zero_init_residual,
        )
        self._replace_stem(image_shape[0], kernel_size=3, stride=1, padding=1)
        self.maxpool = nn.Identity()
