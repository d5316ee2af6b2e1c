"""Checkpoints at step boundaries: now and then, at the end, and when a signal asks the run to stop.

A checkpoint is one file, complete or absent: written beside its place, forced to the disk, renamed. It
holds plain containers and tensors only and is loaded with `weights_only=True`, so reading it runs no code.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from bbi_lightning.training import interrupts
from bbi_lightning.training.interrupts import InterruptedRunError


class AtomicCheckpointIO(CheckpointIO):
    """A Lightning plugin that writes a checkpoint whole or not at all, and loads nothing but data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint`; a crash at any moment leaves the file that was there before."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; whatever the caller says, only data."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def steps_of(path: Path) -> int:
    """Optimizer steps taken when a checkpoint was written; its tensors are not read.

    Raises:
        ValueError: the file is no checkpoint of ours.
    """
    try:
        return int(_open(path)["global_step"])
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"{path} cannot be read as a checkpoint: delete it to train from the start"
        ) from error


def restore_progress(trainer: pl.Trainer, path: Path) -> None:
    """Tell a trainer that will only test how many steps and epochs its weights have been trained for."""
    trainer.fit_loop.load_state_dict(_open(path)["loops"]["fit_loop"])


def _open(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return contents


class RunCheckpoint(Checkpoint):
    """Keeps one checkpoint up to date, and stops the run when a signal asks for it.

    Between the last step of an epoch and the validation after it nothing is saved: the run would resume
    without that validation. It is made up for at the end of the epoch.

    Args:
        path: the file.
        every: seconds between two checkpoints, ≥ 0.
        vote_every: with several ranks, optimizer steps between two agreements on whether to save, ≥ 1.

    Raises:
        InterruptedRunError: out of the hooks, after saving, when `interrupts` has received a signal.
    """

    def __init__(self, path: Path, *, every: float = 60.0, vote_every: int = 20) -> None:
        self.path = path
        self.every = every
        self.vote_every = vote_every
        self._saved_at = 0.0
        self._seen_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; take the signals back from Lightning, whose handlers do more than leave a note."""
        interrupts.listen()
        self._saved_at = time.monotonic()
        self._seen_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save if it is time; not in the middle of an accumulation."""
        step = trainer.global_step
        if step == self._seen_step:
            return
        self._seen_step = step
        if trainer.is_last_batch or trainer.should_stop:
            return
        if trainer.world_size == 1 or step % self.vote_every == 0:
            self._save_or_stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time; after the last epoch the final state is saved in a moment anyway."""
        if not trainer.fit_loop.done:
            self._save_or_stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the final state."""
        self._save_or_stop(trainer, final=True)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint, after the rows that belong to it."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()

    def _save_or_stop(self, trainer: pl.Trainer, final: bool = False) -> None:
        signal_number = int(interrupts.received() or 0)
        due = final or time.monotonic() - self._saved_at >= self.every
        if trainer.world_size > 1:
            signal_number, due = _agreed(trainer, signal_number, due)
        if due or signal_number:
            self.save(trainer)
        if signal_number:
            raise InterruptedRunError(signal.Signals(signal_number))

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Nothing was kept."""


def _agreed(trainer: pl.Trainer, signal_number: int, due: bool) -> tuple[int, bool]:
    """The largest of each over the ranks: what one of them wants, all do."""
    votes = torch.tensor([signal_number, int(due)], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
    number, anyone_due = votes.tolist()
    return number, bool(anyone_due)
