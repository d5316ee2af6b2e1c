from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from bbi_lightning.data.loader import Batch


@pytest.fixture
def global_random_state_is_untouched():
    """The training process's own random numbers (dropout, bounces) must not depend on the data's."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of unsigned bytes in MNIST's idx format."""
    header = struct.pack(">BBBB", 0, 0, 0x08, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's cPickle wrote into the CIFAR files: byte strings, NumPy's old module names."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    def save_function(self, value: Any, name: str | None = None) -> None:
        module = "numpy.core.multiarray" if value.__name__ == "_reconstruct" else value.__module__
        self.write(pickle.GLOBAL + f"{module}\n{value.__name__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string
    for kind in (type, type(len), type(save_string)):
        dispatch[kind] = save_function


def cifar_bytes(images: np.ndarray, labels: dict[str, list[int]]) -> bytes:
    """A CIFAR file: images uint8 (n, 3, 32, 32)."""
    names = [f"picture_{number}.png" for number in range(len(images))]
    content = {"batch_label": "testing", **labels, "data": images.reshape(-1, 3072), "filenames": names}
    file = BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """90 training and 30 test images; one pair of files packed, the other plain, as both occur."""
    random = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n, packed in (("train", 90, True), ("t10k", 30, False)):
        arrays = {
            f"{part}-images-idx3-ubyte": random.integers(0, 256, (n, 28, 28)),
            f"{part}-labels-idx1-ubyte": np.arange(n) % 10,
        }
        for name, array in arrays.items():
            content = idx_bytes(array)
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (raw / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def cifar10_folder(tmp_path: Path) -> Path:
    """Five training files of 20 images each and a test file of 20."""
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        images = random.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        (folder / name).write_bytes(cifar_bytes(images, {"labels": [k % 10 for k in range(20)]}))
    return tmp_path


@pytest.fixture
def cifar100_folder(tmp_path: Path) -> Path:
    """200 training images and 100 test images, two and one a class."""
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, n in (("train", 200), ("test", 100)):
        images = random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
        labels = {"coarse_labels": [k % 20 for k in range(n)], "fine_labels": [k % 100 for k in range(n)]}
        (folder / name).write_bytes(cifar_bytes(images, labels))
    return tmp_path


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """Three classes, eight training and four test JPEGs each, all of different sizes."""
    random = np.random.default_rng(0)
    for part, n in (("train", 8), ("val", 4)):
        for name in ("n01", "n02", "n03"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for k in range(n):
                pixels = random.integers(0, 256, (40 + k, 60 - k, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{part}_{k}.JPEG")
    return tmp_path


Seen = list[tuple[int, int, list[int], float]]


class Recorder(pl.LightningModule):
    """Notes every training batch it is given: (epoch, number, labels, sum of all pixels)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: Seen = []
        self.evaluated: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        self.seen.append((self.current_epoch, batch_idx, labels.tolist(), images.double().sum().item()))
        return (self.weight - images.mean()) ** 2

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluated.append(len(batch[1]))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., pl.Trainer]:
    def make(**arguments: Any) -> pl.Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "default_root_dir": tmp_path,
        }
        return pl.Trainer(**(defaults | arguments))

    return make
