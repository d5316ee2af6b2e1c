from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from kills.server import Warm

CLASSES, IMAGES = 3, 40


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    server = Warm()
    yield server
    server.close()


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small PNG files in one folder per class, as ImageNet lies on a disk."""
    root = tmp_path_factory.mktemp("images")
    dice = torch.Generator().manual_seed(0)
    for part, images in (("train", IMAGES), ("val", 4)):
        for label in range(CLASSES):
            folder = root / part / f"class_{label}"
            folder.mkdir(parents=True)
            for k in range(images):
                noise = torch.randint(0, 128, (3, 20, 20), generator=dice)
                pixels = (noise + 40 * label).to(torch.uint8).permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(folder / f"{k:03d}.png")
    return root
