"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels that need no download.

The set is the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI
Machine Learning Repository, 1998), as `sklearn.datasets.load_digits` ships it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from bbi_lightning.data.image_data_module import ResidentDataModule
from bbi_lightning.data.resident import ImageSet

_TEST_SAMPLES = 360


class DigitsDataModule(ResidentDataModule):
    """Digits 0-9 in 8x8 pixels: by default 1,157 train, 280 validation and 360 test samples.

    Both splits are stratified. The test set is scikit-learn's `train_test_split` with `random_state=0`,
    whatever the arguments: none may move a sample from test to training. With `augment`, images
    move by up to one pixel each way; they are never mirrored.

    Example:
        >>> data = DigitsDataModule(batch_size=64)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([64, 1, 8, 8]), torch.Size([64]))
    """

    image_shape = (1, 8, 8)
    num_classes = 10
    mean: ClassVar[tuple[float, ...]] = (0.3054,)
    std: ClassVar[tuple[float, ...]] = (0.3761,)
    full_range: ClassVar[int] = 16
    crop_padding: ClassVar[int] = 1

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        val_size: int | float = 280,
        seed: int = 0,
        split_seed: int = 0,
        augment: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
            split_seed=split_seed,
            augment=augment,
        )

    def read_train(self) -> ImageSet:
        """Return the 1,437 samples that are not test samples."""
        return _subset(0)

    def read_test(self) -> ImageSet:
        """Return the 360 test samples."""
        return _subset(1)


def _subset(part: int) -> ImageSet:
    """Read the digits outside (0) or inside (1) the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    ids = train_test_split(
        np.arange(len(digits.target)), test_size=_TEST_SAMPLES, stratify=digits.target, random_state=0
    )[part]
    images = torch.from_numpy(digits.images[ids]).to(torch.uint8).unsqueeze(1)
    return ImageSet(images, torch.from_numpy(digits.target[ids]).long())
