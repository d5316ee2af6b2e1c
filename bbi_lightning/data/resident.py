"""Image sets that live as uint8 on the training device, with batched crop, flip and normalisation.

What is per-sample work in a usual loader is a handful of tensor operations a batch here. The padded
images are stored once; a random crop is a window of that memory, so all crops of a batch are one
`index_select` of windows by the address of their first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bbi_lightning.data.loader import Batch
from bbi_lightning.data.normalisation import Normalisation
from bbi_lightning.data.order import Plan, generator


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes.

    Attributes:
        images: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Augmentation:
    """Random crops after zero padding, and mirror images: drawn for a whole set, an epoch at a time.

    Attributes:
        padding: zeros on each side before the crop, in pixels.
        flip: mirror an image left to right with probability one half.
        seed: which sequence of draws, >= 0.
    """

    padding: int
    flip: bool
    seed: int

    def draw(self, n: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each sample's crop and flip in `epoch`, indexed by sample id.

        Returns:
            offsets: row and column of the crop's corner, in [0, 2 padding], shape (n, 2).
            flips: 1 where the image is mirrored, else 0, shape (n,).
        """
        random = generator("augmentation", self.seed, epoch)
        offsets = torch.randint(0, 2 * self.padding + 1, (n, 2), generator=random)
        flips = torch.randint(0, 2 if self.flip else 1, (n,), generator=random)
        return offsets, flips


class ResidentImages:
    """An image set on a device, readable by sample ids.

    Args:
        image_set: the images; copied once to `device`.
        mean: of each channel, as a share of `full_range`.
        std: standard deviation of each channel, in the same unit.
        full_range: pixel value that stands for 1.
        padding: zeros on each side, as wide as the crops will move.
        device: where the set lives.
    """

    def __init__(
        self,
        image_set: ImageSet,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        full_range: int = 255,
        padding: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        n, channels, height, width = image_set.images.shape
        self.labels = image_set.labels.to(device)
        self.device = self.labels.device

        padded = F.pad(image_set.images, [padding] * 4).contiguous().to(device)
        rows, self._row_length = padded.shape[-2:]
        plane = rows * self._row_length
        reach = (channels - 1) * plane + (height - 1) * self._row_length + width - 1
        self._windows = padded.as_strided(
            (padded.numel() - reach, channels, height, width), (1, plane, self._row_length, 1)
        )
        self._first_pixel = torch.arange(n, device=device) * (channels * plane)
        self._centre = self._first_pixel + padding * (self._row_length + 1)

        self._normalise = Normalisation(mean, std, full_range, self.device)

    def __len__(self) -> int:
        return len(self.labels)

    def corners(self, offsets: torch.Tensor | None) -> torch.Tensor:
        """Return the address of each sample's first pixel: of its crop, or of its plain image."""
        if offsets is None:
            return self._centre
        offsets = offsets.to(self.device)
        return self._first_pixel + offsets[:, 0] * self._row_length + offsets[:, 1]

    def read(self, ids: torch.Tensor, corners: torch.Tensor, flips: torch.Tensor | None) -> Batch:
        """Return the normalised images, shape (b, channels, height, width), and labels of some samples.

        Args:
            ids: sample ids on the set's device, shape (b,).
            corners: result of `corners`, shape (n,).
            flips: 1 for each sample that is mirrored, else 0, shape (n,); None for no sample.
        """
        pixels = self._windows.index_select(0, corners.index_select(0, ids))
        if flips is not None:
            # Choosing among both versions costs less than writing into half of the batch, and needs
            # no synchronisation on a GPU.
            both = torch.cat((pixels, pixels.flip(-1)))
            first = torch.arange(len(ids), device=self.device)
            pixels = both.index_select(0, first.add_(flips.index_select(0, ids), alpha=len(ids)))
        return self._normalise(pixels), self.labels.index_select(0, ids)


class ResidentBatches:
    """Batches of a resident set as a pure function of (epoch, number).

    Args:
        images: the set.
        plan: this rank's sample ids and batches.
        augmentation: random views for training; None for the plain images.
    """

    def __init__(self, images: ResidentImages, plan: Plan, augmentation: Augmentation | None = None) -> None:
        self._images, self._plan, self._augmentation = images, plan, augmentation

    def __len__(self) -> int:
        return len(self._plan.bounds)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `start` on."""
        offsets, flips = None, None
        if self._augmentation is not None:
            offsets, flips = self._augmentation.draw(len(self._images), epoch)
            flips = flips.to(self._images.device) if self._augmentation.flip else None
        corners = self._images.corners(offsets)
        ids = self._plan.ids(epoch).to(self._images.device)
        for begin, end in self._plan.bounds[start:]:
            yield self._images.read(ids[begin:end], corners, flips)

    def close(self) -> None:
        """Do nothing: there are no workers."""
