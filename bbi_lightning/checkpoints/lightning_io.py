"""Lightning's checkpoints go through the writer into the store, and come back as data only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from bbi_lightning.checkpoints.manifest import SHARDS, STATE, Note
from bbi_lightning.checkpoints.writer import CheckpointWriter


class StoreCheckpointIO(CheckpointIO):
    """A Trainer plugin.

    Attributes:
        writer: where checkpoints go.
        note: of the next checkpoint; whoever calls `trainer.save_checkpoint` sets it just before.
    """

    def __init__(self, writer: CheckpointWriter) -> None:
        self.writer = writer
        self.note: Note | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Hand the state to the writer; the store chooses the place, `path` does not matter.

        Raises:
            RuntimeError: no note was set.
        """
        if self.note is None:
            raise RuntimeError("the store needs to know what it saves: set `note` before save_checkpoint")
        self.writer.submit(checkpoint, self.note)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, given by its folder; whatever the caller says, only data.

        The tensors are read, not mapped: an optimizer keeps those of its state, and the files are cleared
        away while it still uses them, which ends a process on a network file system.
        """
        if (Path(path) / SHARDS).is_file():  # of a run whose processes shared the parameters
            from bbi_lightning.checkpoints.shard_files import read_whole  # dear to load

            return read_whole(Path(path))
        state: dict[str, Any] = torch.load(Path(path) / STATE, map_location=map_location, weights_only=True)
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        """Nothing: the store decides what goes."""
