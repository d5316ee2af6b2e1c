"""A store whose disk the tests open and close, and a writer on it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import torch

from bbi_lightning.checkpoints.manifest import Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter

PATIENCE = 20.0  # seconds for what takes milliseconds


class GatedStore(CheckpointStore):
    """A store whose disk is closed, open, or full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "toy-s0", keep_last=100)
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.full = False

    def commit(self, folder, note):
        self.arrived.release()
        assert self.gate.wait(PATIENCE)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().commit(folder, note)


def submit(writer: CheckpointWriter, step: int, *reasons: str) -> None:
    writer.submit({"step": step, "w": torch.full((5,), float(step))}, Note(step, 0, ("last", *reasons)))


def occupy(writer: CheckpointWriter, store: GatedStore, step: int, *reasons: str) -> None:
    """Have a state be on its way into a closed disk."""
    store.gate.clear()
    submit(writer, step, *reasons)
    assert store.arrived.acquire(timeout=PATIENCE)


def steps(store: CheckpointStore) -> list[int]:
    return [checkpoint.step for checkpoint in store.checkpoints()]


def waits(action, store: GatedStore, *, expected: bool) -> bool:
    """Whether the action goes on only when the disk opens."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(0.1 if expected else PATIENCE)
    waited = thread.is_alive()
    store.gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return waited
