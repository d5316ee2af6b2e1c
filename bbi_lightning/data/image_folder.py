"""Image files in one folder per class, decoded and augmented one sample at a time."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from bbi_lightning.data.order import derived_seed

_SUFFIXES = (".jpeg", ".jpg", ".png")
_RESIZE_RATIO = 256 / 224  # evaluation: the short side before the centre crop, over the crop


class ImageFolder:
    """The image files under `<root>/<class>/`, in the order of their names.

    Attributes:
        classes: the folders' names, sorted; their positions are the labels.
        labels: class of each file, int64, shape (n,).

    Raises:
        FileNotFoundError: there is no such folder, or no class folder in it.
        ValueError: a class folder holds no image.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(
                f"there is no folder {root}: set data.data_dir to the folder that holds train/ and val/, "
                "each with one folder per class"
            )
        self.root = root
        self.classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"{root} has no class folders: sort its images into one folder per class")
        files = [_image_names(root / name) for name in self.classes]
        # Arrays, not lists: a worker that counts references to a million strings copies their memory.
        self._names = np.array([name for names in files for name in names])
        self.labels = torch.repeat_interleave(torch.tensor([len(names) for names in files]))

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the file of sample `index`."""
        return self.root / self.classes[int(self.labels[index])] / str(self._names[index])


def _image_names(folder: Path) -> list[str]:
    """Return the names of the images in a class folder, sorted."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_SUFFIXES))
    if not names:
        raise ValueError(f"{folder} holds no .jpeg, .jpg or .png file: fill it or remove it")
    return names


class DecodedImages(Dataset[tuple[torch.Tensor, int]]):
    """Decodes and crops files; an item is (uint8 image (3, size, size), label).

    Items are asked for as (epoch, index), so that a worker needs no state: a random view is a pure
    function of (seed, epoch, index).

    Args:
        files: the image files.
        size: side of the crop in pixels.
        seed: which sequence of random views, >= 0.
        augment: RandomResizedCrop and mirror images; otherwise resize and centre crop.
    """

    def __init__(self, files: ImageFolder, *, size: int, seed: int, augment: bool) -> None:
        self.files, self.seed, self.augment = files, seed, augment
        if augment:
            steps = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        else:
            steps = [v2.Resize(round(size * _RESIZE_RATIO), antialias=True), v2.CenterCrop(size)]
        self._transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        epoch, index = key
        image = decode(self.files.path(index))
        if self.augment:
            image = self._random_view(image, derived_seed("sample", self.seed, epoch, index))
        else:
            image = self._transform(image)
        return image, int(self.files.labels[index])

    def _random_view(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """Transform with a seed of its own and leave the global generator as it was."""
        before = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(seed)
            return self._transform(image)
        finally:
            torch.default_generator.set_state(before)


def decode(path: Path) -> torch.Tensor:
    """Decode a JPEG or PNG file to uint8 RGB, shape (3, height, width); grey and CMYK are converted.

    Raises:
        ValueError: the file is missing or not a whole image.
    """
    try:
        with warnings.catch_warnings():
            # torchvision announces a move to torchcodec, which its own releases still do without.
            warnings.simplefilter("ignore", DeprecationWarning)
            return decode_image(read_file(str(path)), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise ValueError(
            f"{path} is not a whole JPEG or PNG image ({str(error).splitlines()[0]}): "
            "copy it again, or delete it to train without it"
        ) from error
