"""Loaders whose whole state is {epoch, batches handed out}, so that resuming in mid-epoch is an offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch

Batch = tuple[torch.Tensor, torch.Tensor]


class BatchSource(Protocol):
    """Batches as a pure function of (epoch, number)."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `start` on."""
        ...

    def close(self) -> None:
        """Release worker processes; a later call of `batches` starts them again."""
        ...


class TrainingLoader:
    """Hands out one epoch after another and remembers where it is.

    Every `iter()` after batches were handed out begins the next epoch; an `iter()` after
    `load_state_dict` continues at the saved batch. Nothing is read (and no worker started) before the
    first batch is asked for, because Lightning calls `iter()` more often than it draws, and sets the
    epoch only afterwards.

    Args:
        source: where the batches come from.
        repeat_first_epoch: hand out epoch 0 again and again (Lightning's `overfit_batches`).

    State:
        epoch: number of the epoch the last batch belonged to, from 0.
        batches: batches of it handed out, in [0, len(loader)].
    """

    def __init__(self, source: BatchSource, *, repeat_first_epoch: bool = False) -> None:
        self.source = source
        self.epoch = 0
        self.batches = 0
        self._repeat_first_epoch = repeat_first_epoch
        self._drawn = False  # a batch was handed out since the last iter() or load_state_dict()
        self._loaded_end: int | None = None  # the epoch at whose end the loaded state was saved
        self.batch_sampler = _EpochReceiver(self)

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        if self._drawn or self.batches >= len(self):
            self.epoch, self.batches = self.epoch + 1, 0
        self._drawn = False
        return self._hand_out()

    def _hand_out(self) -> Iterator[Batch]:
        epoch = 0 if self._repeat_first_epoch else self.epoch
        for batch in self.source.batches(epoch, self.batches):
            self.batches += 1
            self._drawn = True
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`, unless the loader is in it already.

        Needed where an epoch ends early by `limit_train_batches`: only the trainer knows that the
        epoch of a loaded state is over.
        """
        if epoch != self.epoch:
            # asked back into an epoch that was over when it was saved: only its validation is to be done
            is_over = epoch == self._loaded_end
            self.epoch, self.batches, self._drawn = epoch, len(self) if is_over else 0, False
        self._loaded_end = None

    def state_dict(self) -> dict[str, int]:
        """Return {epoch, batches handed out}: batches of all ranks, whatever their number."""
        return {"epoch": self.epoch, "batches": self.batches}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Continue at a saved position: the next `iter()` hands out the batch after it."""
        self.epoch, self.batches = int(state_dict["epoch"]), int(state_dict["batches"])
        self._drawn = False
        self._loaded_end = self.epoch if self.batches >= len(self) else None


class _EpochReceiver:
    """Takes Lightning's `set_epoch`, which it sends only to `loader.batch_sampler.sampler`.

    An attribute `sampler` on the loader itself would do too, but is taken for a shuffling sampler that
    `overfit_batches` must replace.
    """

    def __init__(self, loader: TrainingLoader) -> None:
        self._loader = loader

    @property
    def sampler(self) -> _EpochReceiver:
        return self

    def set_epoch(self, epoch: int) -> None:
        self._loader.set_epoch(epoch)


class EvaluationLoader:
    """The same batches at every `iter()`; without state.

    Args:
        source: where the batches come from.
        padded: the last batch only keeps the ranks in step. It comes without labels, shape (0,): a model
            may be run on its image, and nothing is to be counted.
    """

    def __init__(self, source: BatchSource, *, padded: bool = False) -> None:
        self.source = source
        self.padded = padded

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        for number, (images, labels) in enumerate(self.source.batches(0, 0), start=1):
            yield images, labels[:0] if self.padded and number == len(self) else labels
