"""Vision transformers: torchvision's, in the sizes S and B.

A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021 (B); H. Touvron et al., "Training
data-efficient image transformers", ICML 2021 (S). Parameters have torchvision's names.
"""

from __future__ import annotations

import math

from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from bbi_lightning.models.arguments import check_dropout, check_task

_LARGE_IMAGE = 128  # from here on the published patch size is the default
_PUBLISHED_PATCH = 16
_FEWEST_PATCHES = 7  # a side, for smaller images


class _ViT(VisionTransformer):
    """torchvision's encoder for any image size and number of input channels.

    Args:
        hidden: width of the tokens.
        heads: attention heads.
        image_shape: (channels, height, width), height = width.
        num_classes: number of logits.
        patch_size: side of a patch in pixels, a divisor of the image's; None: `default_patch_size`.
        dropout: probability to drop a unit, in [0, 1).
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        patch_size: int | None,
        dropout: float,
    ) -> None:
        check_task(image_shape, num_classes)
        check_dropout(dropout)
        channels, height, width = image_shape
        if height != width:
            raise ValueError(
                f"image_shape={tuple(image_shape)} is not square: a vision transformer here needs "
                "height = width, so crop or resize the images"
            )
        patch = default_patch_size(height) if patch_size is None else patch_size
        if patch < 1 or height % patch:
            raise ValueError(
                f"patch_size={patch} does not divide the image's side {height}: pass a divisor, "
                "or null for the default"
            )
        super().__init__(
            image_size=height,
            patch_size=patch,
            num_layers=12,
            num_heads=heads,
            hidden_dim=hidden,
            mlp_dim=4 * hidden,
            dropout=dropout,
            num_classes=num_classes,
        )
        if channels != 3:
            self._replace_patch_embedding(channels, hidden, patch)

    def _replace_patch_embedding(self, channels: int, hidden: int, patch: int) -> None:
        """Take another number of channels; initialised as torchvision initialises its own."""
        embedding = nn.Conv2d(channels, hidden, kernel_size=patch, stride=patch)
        nn.init.trunc_normal_(embedding.weight, std=math.sqrt(1 / (channels * patch * patch)))
        if embedding.bias is not None:
            nn.init.zeros_(embedding.bias)
        self.conv_proj = embedding


def default_patch_size(side: int) -> int:
    """Return the patch for an image side: 16 pixels where that divides a side of 128 or more.

    Otherwise the largest divisor that leaves at least 7 patches a side: 4 for 28 and 32, 8 for 64.
    """
    if side >= _LARGE_IMAGE and side % _PUBLISHED_PATCH == 0:
        return _PUBLISHED_PATCH
    divisors = [size for size in range(1, side + 1) if side % size == 0 and side // size >= _FEWEST_PATCHES]
    return max(divisors, default=1)


class ViTS(_ViT):
    """ViT-S: 12 layers, width 384, 6 heads; 22,050,664 parameters at 224x224, patch 16, 1000 classes.

    The last layer starts at zero, as torchvision and the paper have it: in the first step only it moves.

    Args:
        image_shape: (channels, height, width), height = width.
        num_classes: number of logits.
        patch_size: side of a patch in pixels, a divisor of the image's; None: 16 for large images, else
            the largest divisor that leaves 7 patches a side.
        dropout: probability to drop a unit, in [0, 1).

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        patch_size: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            384,
            6,
            image_shape=image_shape,
            num_classes=num_classes,
            patch_size=patch_size,
            dropout=dropout,
        )


class ViTB(_ViT):
    """ViT-B: 12 layers, width 768, 12 heads; 86,567,656 parameters at 224x224, patch 16, 1000 classes.

    The last layer starts at zero, as torchvision and the paper have it: in the first step only it moves.

    Args:
        image_shape: (channels, height, width), height = width.
        num_classes: number of logits.
        patch_size: side of a patch in pixels, a divisor of the image's; None: 16 for large images, else
            the largest divisor that leaves 7 patches a side.
        dropout: probability to drop a unit, in [0, 1).

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        patch_size: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            768,
            12,
            image_shape=image_shape,
            num_classes=num_classes,
            patch_size=patch_size,
            dropout=dropout,
        )
