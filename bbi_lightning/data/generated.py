"""Images made up from a rule that can be learned: for tests, and to measure throughput at any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch

from bbi_lightning.data.arguments import image_dimensions, positive_int
from bbi_lightning.data.image_data_module import ResidentDataModule
from bbi_lightning.data.order import generator
from bbi_lightning.data.resident import ImageSet

_CONTRAST = 32.0  # standard deviation of all pixels, of 255: four of them fit before a pixel saturates
_AT_ONCE = 2**24  # pixels drawn at a time, so that large sets need no large temporaries


class GeneratedDataModule(ResidentDataModule):
    """A random template for each class, plus noise, as uint8.

    x = 128 + 32 (template[y] + noise ε) / √(1 + noise²), with templates and ε standard normal in each
    pixel. The nearest template errs rarely while `noise` is well below √(number of pixels) / 4.

    Args (besides those of ImageDataModule):
        image_shape: (channels, height, width).
        num_classes: number of templates, >= 2.
        train_size: samples to train and validate.
        test_size: samples to test.
        noise: standard deviation of the noise, in units of the templates', >= 0.
        split_seed: also draws the templates and the images.

    Raises:
        ValueError: an argument outside its range.
    """

    mean: ClassVar[tuple[float, ...]] = (0.5,)
    std: ClassVar[tuple[float, ...]] = (_CONTRAST / 255,)

    def __init__(
        self,
        *,
        image_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        train_size: int = 2048,
        test_size: int = 512,
        noise: float = 2.0,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        val_size: int | float = 0.125,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
            split_seed=split_seed,
        )
        self.image_shape = image_dimensions(image_shape)
        self.num_classes = positive_int("data.num_classes", num_classes, minimum=2)
        self.train_size = positive_int("data.train_size", train_size)
        self.test_size = positive_int("data.test_size", test_size)
        if not 0 <= noise < float("inf"):
            raise ValueError(f"data.noise={noise!r} is not a finite number >= 0: pass one")
        self.noise = noise

    def read_train(self) -> ImageSet:
        """Return the samples to train and validate."""
        return self._draw(self.train_size, part=1)

    def read_test(self) -> ImageSet:
        """Return the samples to test: the same templates, other noise."""
        return self._draw(self.test_size, part=2)

    def _draw(self, n: int, part: int) -> ImageSet:
        shape = self.image_shape
        templates = torch.randn(self.num_classes, *shape, generator=generator("content", self.split_seed, 0))

        random = generator("content", self.split_seed, part)
        labels = (torch.arange(n) % self.num_classes)[torch.randperm(n, generator=random)]
        contrast = _CONTRAST / math.sqrt(1 + self.noise**2)
        images = torch.empty(n, *shape, dtype=torch.uint8)
        for chunk in torch.arange(n).split(max(1, _AT_ONCE // templates[0].numel())):
            noise = torch.randn(len(chunk), *shape, generator=random).mul_(self.noise)
            pixels = noise.add_(templates[labels[chunk]]).mul_(contrast).add_(128)
            images[chunk] = pixels.round_().clamp_(0, 255).to(torch.uint8)
        return ImageSet(images, labels)
