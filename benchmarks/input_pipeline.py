"""How much faster the resident loaders are than a usual per-sample one.

    python benchmarks/input_pipeline.py                    # true sizes, one thread
    python benchmarks/input_pipeline.py --rounds 5 --images 10000

Both sides read the same made-up files in the true CIFAR-10 and MNIST formats and deliver normalised
float32 batches in a new random order each epoch; with one thread and `num_workers=0`, in process time,
taking turns. The other side is torchvision's data set and transforms in torch's DataLoader.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Timing, interleave, show
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bbi_lightning.data.cifar import CIFAR10DataModule
from bbi_lightning.data.image_data_module import ResidentDataModule
from bbi_lightning.data.mnist import MNISTDataModule


@dataclass(frozen=True)
class Case:
    """One row: the same work done by both sides.

    Attributes:
        name: what is done.
        target: the ratio it should reach.
        resident: our data module, set up.
        per_sample: torchvision's loader.
    """

    name: str
    target: int
    resident: ResidentDataModule
    per_sample: DataLoader[Any]


class UncheckedCIFAR10(datasets.CIFAR10):
    """torchvision's reader without the comparison with the published files' checksums."""

    def _check_integrity(self) -> bool:
        return True

    def _load_meta(self) -> None:
        pass


def write_cifar10(folder: Path, images_per_file: int) -> None:
    """Write five training files and a test file of random images."""
    random = np.random.default_rng(0)
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        pixels = random.integers(0, 256, (images_per_file, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, images_per_file).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))


def write_mnist(folder: Path, train_images: int) -> None:
    """Write the four files with random images; a sixth as many to test."""
    random = np.random.default_rng(0)
    folder = folder / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", train_images), ("t10k", train_images // 6)):
        pixels = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, n, dtype=np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, n)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def cifar_case(folder: Path, batch_size: int) -> Case:
    """CIFAR-10 with random crop, flip and normalisation."""
    resident = CIFAR10DataModule(data_dir=folder, batch_size=batch_size, val_size=0)
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(resident.mean, resident.std),
    ]
    data = UncheckedCIFAR10(str(folder), train=True, transform=transforms.Compose(steps))
    return _case(f"CIFAR-10, crop + flip + normalise, batch {batch_size}", 25, resident, data)


def mnist_case(folder: Path, batch_size: int) -> Case:
    """MNIST with normalisation."""
    resident = MNISTDataModule(data_dir=folder, batch_size=batch_size, val_size=0)
    steps = [transforms.ToTensor(), transforms.Normalize(resident.mean, resident.std)]
    data = datasets.MNIST(str(folder), train=True, transform=transforms.Compose(steps))
    return _case(f"MNIST, normalise, batch {batch_size}", 50, resident, data)


def _case(name: str, target: int, resident: ResidentDataModule, data: Any) -> Case:
    resident.setup("fit")
    loader = DataLoader(data, batch_size=resident.batch_size, shuffle=True, num_workers=0, drop_last=True)
    return Case(name, target, resident, loader)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Run through a loader again and again."""
    while True:
        yield from loader


def draw(batches: Iterator[Any], number: int) -> None:
    """Draw `number` batches and forget them."""
    for _ in range(number):
        next(batches)


def measure(case: Case, rounds: int) -> tuple[Timing, Timing]:
    """Seconds a sample of (per-sample loader, resident loader).

    A turn of ours is a whole epoch, so that drawing the order and the augmentation is paid for.
    """
    loader, batch_size = case.resident.train_dataloader(), case.resident.batch_size
    ours, theirs = endless(loader), endless(case.per_sample)
    few = max(1, 1000 // batch_size)
    seconds = interleave(
        {"theirs": lambda: draw(theirs, few), "ours": lambda: draw(ours, len(loader))}, rounds
    )
    return (
        Timing(seconds["theirs"].seconds / (few * batch_size)),
        Timing(seconds["ours"].seconds / (len(loader) * batch_size)),
    )


def microseconds(timing: Timing) -> str:
    """Return "median (lower–upper quartile)"."""
    low, middle, high = np.quantile(timing.seconds * 1e6, [0.25, 0.5, 0.75])
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of each side (default 15)")
    parser.add_argument("--images", type=int, default=50_000, help="training images (default 50000)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    makers: list[tuple[Callable[[Path, int], Case], int]] = [
        (cifar_case, 128),
        (cifar_case, 512),
        (mnist_case, 50),
        (mnist_case, 128),
    ]
    print("| work | per-sample loader, µs a sample | resident, µs a sample | ratio | target |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        write_cifar10(Path(name), arguments.images // 5)
        write_mnist(Path(name), arguments.images)
        for make, batch_size in makers:
            case = make(Path(name), batch_size)
            theirs, ours = measure(case, arguments.rounds)
            print(
                f"| {case.name} | {microseconds(theirs)} | {microseconds(ours)} "
                f"| {show(theirs.ratio_to(ours), 0)} | ≥ {case.target} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
