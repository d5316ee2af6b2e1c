"""Fetching the small public sets through torchvision, and saying how when a file is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def fetch(name: Literal["MNIST", "CIFAR10", "CIFAR100"], data_dir: Path) -> None:
    """Download a data set into `data_dir` in torchvision's layout; files already there are kept.

    Raises:
        FileNotFoundError: the download did not succeed.
    """
    from torchvision import datasets

    try:
        getattr(datasets, name)(data_dir, train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"data.download=true could not fetch {name} into {data_dir} ({error}): "
            "run it once where there is a network, or copy the files there"
        ) from error


def missing_file(path: Path, name: str) -> FileNotFoundError:
    """Return the error for a file that is not where it should be."""
    return FileNotFoundError(
        f"{path.parent} has no file {name}: set data.data_dir to the folder that holds the data, "
        "or data.download=true to fetch it"
    )
