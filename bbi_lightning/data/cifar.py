"""CIFAR-10 and CIFAR-100 from the authors' "python version" files.

A. Krizhevsky, "Learning multiple layers of features from tiny images", University of Toronto, 2009.

The files are pickles, and a pickle can run any code. They are read by an unpickler that knows only
the names of which a NumPy array of bytes is made; a file that asks for anything else is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import torch

from bbi_lightning.data.download import fetch, missing_file
from bbi_lightning.data.image_data_module import ResidentDataModule
from bbi_lightning.data.resident import ImageSet


def _encode(text: str, encoding: str) -> bytes:
    """Make bytes of a string, as Python 3 writes bytes in an old pickle protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}, which no CIFAR file needs")
    return text.encode("latin1")


_make_array = np.empty(0).__reduce__()[0]  # what a pickled array names, wherever NumPy keeps it
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("_codecs", "encode"): _encode,
}


class _CIFARDataModule(ResidentDataModule):
    """Colour images of 32x32 pixels: 50,000 samples to train and validate, 10,000 to test.

    With `augment`, a crop after padding by four black pixels, and mirrored half of the time.

    Args (besides those of ImageDataModule):
        data_dir: folder that holds the set's own folder.
        download: fetch missing files through torchvision.

    Raises:
        FileNotFoundError, ValueError: (`prepare_data`, `setup`) a file is missing or damaged.
    """

    image_shape = (3, 32, 32)
    crop_padding: ClassVar[int] = 4
    flip: ClassVar[bool] = True

    torchvision_name: ClassVar[Literal["CIFAR10", "CIFAR100"]]
    folder: ClassVar[str]
    label_key: ClassVar[str]
    train_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        *,
        data_dir: str | Path = "datasets",
        download: bool = False,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int | float = 5000,
        seed: int = 0,
        split_seed: int = 0,
        augment: bool = True,
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
            fetch(self.torchvision_name, self.data_dir)
        self.read_train()
        self.read_test()

    def read_train(self) -> ImageSet:
        """Return the 50,000 training samples."""
        return self._read(self.train_files)

    def read_test(self) -> ImageSet:
        """Return the 10,000 test samples."""
        return self._read(self.test_files)

    def _read(self, names: tuple[str, ...]) -> ImageSet:
        parts = [
            read_cifar_file(self.data_dir / self.folder / name, self.label_key, self.num_classes)
            for name in names
        ]
        return ImageSet(
            torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
        )


class CIFAR10DataModule(_CIFARDataModule):
    """Ten classes; files `<data_dir>/cifar-10-batches-py/{data_batch_1..5,test_batch}`."""

    num_classes = 10
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)
    torchvision_name = "CIFAR10"
    folder = "cifar-10-batches-py"
    label_key = "labels"
    train_files = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_files = ("test_batch",)


class CIFAR100DataModule(_CIFARDataModule):
    """A hundred (fine) classes; files `<data_dir>/cifar-100-python/{train,test}`."""

    num_classes = 100
    mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4865, 0.4409)
    std: ClassVar[tuple[float, ...]] = (0.2673, 0.2564, 0.2762)
    torchvision_name = "CIFAR100"
    folder = "cifar-100-python"
    label_key = "fine_labels"
    train_files = ("train",)
    test_files = ("test",)


def read_cifar_file(path: Path, label_key: str, num_classes: int) -> ImageSet:
    """Read one file: a dictionary with `data`, uint8 (n, 3072) in the order channel, row, column.

    Args:
        path: the file.
        label_key: entry that holds the n classes.
        num_classes: classes run from 0 to `num_classes - 1`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole, not of this format, or asks for more than arrays.
    """
    if not path.is_file():
        raise missing_file(path, path.name)
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # whatever a damaged pickle happens to raise
        raise _damaged(path, f"cannot be read ({error or type(error).__name__})") from error

    if not isinstance(content, dict) or not {"data", label_key} <= {_text(key) for key in content}:
        raise _damaged(path, f"is not a CIFAR file with the entries data and {label_key}")
    entries = {_text(key): value for key, value in content.items()}
    pixels, labels = entries["data"], entries[label_key]
    if not isinstance(labels, list) or not all(
        type(label) is int and 0 <= label < num_classes for label in labels
    ):
        raise _damaged(path, f"does not hold a list of classes from 0 to {num_classes - 1}")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise _damaged(path, f"does not hold 3072 bytes for each of its {len(labels)} labels")
    images = torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32))
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64))


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, strings, numbers and NumPy arrays, and nothing else."""

    def __init__(self, file: BinaryIO, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the names an array of bytes is made of."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs") from None


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}: delete it and fetch the set again with data.download=true")
