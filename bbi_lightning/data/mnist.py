"""MNIST from the idx files that torchvision and the data set's authors use.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86 (1998) 2278.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from bbi_lightning.data.download import fetch, missing_file
from bbi_lightning.data.image_data_module import ResidentDataModule
from bbi_lightning.data.resident import ImageSet

_UNSIGNED_BYTES = 0x08  # the idx format's code for uint8, third byte of a file


class MNISTDataModule(ResidentDataModule):
    """Handwritten digits in 28x28 pixels: 60,000 samples to train and validate, 10,000 to test.

    Files: `<data_dir>/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte`, plain or with `.gz`.
    With `augment`, images move by up to two pixels each way; they are never mirrored.

    Args (besides those of ImageDataModule):
        data_dir: folder that holds `MNIST/raw`.
        download: fetch missing files through torchvision.

    Raises:
        FileNotFoundError, ValueError: (`prepare_data`, `setup`) a file is missing or damaged.
    """

    image_shape = (1, 28, 28)
    num_classes = 10
    mean: ClassVar[tuple[float, ...]] = (0.1307,)
    std: ClassVar[tuple[float, ...]] = (0.3081,)
    crop_padding: ClassVar[int] = 2

    def __init__(
        self,
        *,
        data_dir: str | Path = "datasets",
        download: bool = False,
        batch_size: int = 50,
        eval_batch_size: int = 2000,
        val_size: int | float = 5000,
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
        self.data_dir = Path(data_dir)
        self.download = download

    def prepare_data(self) -> None:
        """Fetch the files if asked to, and read them all once: damage shows before a run starts."""
        if self.download:
            fetch("MNIST", self.data_dir)
        self.read_train()
        self.read_test()

    def read_train(self) -> ImageSet:
        """Return the 60,000 training samples."""
        return self._read("train")

    def read_test(self) -> ImageSet:
        """Return the 10,000 test samples."""
        return self._read("t10k")

    def _read(self, part: str) -> ImageSet:
        folder = self.data_dir / "MNIST" / "raw"
        images = read_idx(folder / f"{part}-images-idx3-ubyte", 3)
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
        if images.shape[1:] != self.image_shape[1:] or len(images) != len(labels):
            raise ValueError(
                f"{folder}: the {part} files hold images of shape {images.shape} and {len(labels)} labels, "
                "which is not MNIST: delete them and fetch them again with data.download=true"
            )
        if labels.max(initial=0) >= self.num_classes:
            raise ValueError(
                f"{folder}/{part}-labels-idx1-ubyte holds the class {labels.max()}, MNIST has 0 to 9: "
                "delete it and fetch it again with data.download=true"
            )
        return ImageSet(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes: `path`, or `path` with `.gz` added.

    The format: two zero bytes, the type's code, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the bytes in row-major order.

    Args:
        path: the file's name without `.gz`.
        dimensions: how many the array must have.

    Raises:
        FileNotFoundError: neither file exists.
        ValueError: the file is not whole, or not of this format.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not packed.is_file():
        raise missing_file(path, f"{path.name} (or {packed.name})")
    found = path if path.is_file() else packed
    try:
        content = path.read_bytes() if found == path else gzip.decompress(packed.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(found, f"is not a whole gzip file ({error})") from error

    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
        raise _damaged(found, f"does not begin like an idx file of {dimensions}-dimensional bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise _damaged(found, f"has {len(content)} bytes where its header announces {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}: delete it and fetch it again with data.download=true")
