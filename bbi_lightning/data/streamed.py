"""Batches of a set too large for the device: decoded by worker processes, normalised on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from bbi_lightning.data.loader import Batch
from bbi_lightning.data.normalisation import Normalisation
from bbi_lightning.data.order import Plan
from bbi_lightning.data.worker_signals import heed_only_the_parent


class StreamedBatches:
    """Batches of a data set as a pure function of (epoch, number), whatever the number of workers.

    The workers live from the first batch until `close`, through all epochs.

    Args:
        dataset: items (epoch, index) -> (uint8 image (channels, height, width), label).
        plan: this rank's sample ids and batches.
        mean: of each channel, as a share of 255.
        std: standard deviation of each channel, in the same unit.
        num_workers: processes that decode; 0 decodes in this one.
        device: where the batches are wanted.
    """

    def __init__(
        self,
        dataset: Dataset[tuple[torch.Tensor, int]],
        plan: Plan,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        num_workers: int,
        device: torch.device,
    ) -> None:
        self._dataset, self._plan = dataset, plan
        self._num_workers, self._device = num_workers, device
        self._normalise = Normalisation(mean, std, 255, device)
        self._wanted = _WantedBatches()
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return len(self._plan.bounds)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `start` on."""
        ids = self._plan.ids(epoch).tolist()
        self._wanted.keys = [
            [(epoch, index) for index in ids[begin:end]] for begin, end in self._plan.bounds[start:]
        ]
        if self._loader is None:
            self._loader = self._start()
        try:
            for pixels, labels in self._loader:
                pixels = pixels.to(self._device, non_blocking=True)
                yield self._normalise(pixels), labels.to(self._device, non_blocking=True)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers now: left to garbage collection, they may each be waited for in vain."""
        iterator = None if self._loader is None else self._loader._iterator
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()
        self._loader = None

    def _start(self) -> DataLoader[Any]:
        return DataLoader(
            self._dataset,
            batch_sampler=self._wanted,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            worker_init_fn=heed_only_the_parent,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # or each epoch draws from the global one, and a resumed run differs
        )


class _WantedBatches:
    """The keys of the batches still to come, set anew before each epoch."""

    def __init__(self) -> None:
        self.keys: list[list[tuple[int, int]]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.keys)
