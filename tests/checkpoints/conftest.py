from __future__ import annotations

import pytest

from bbi_lightning.checkpoints.writer import CheckpointWriter
from checkpoints.gated_store import GatedStore


@pytest.fixture
def store(tmp_path):
    return GatedStore(tmp_path / "checkpoints")


@pytest.fixture
def said():
    return []


@pytest.fixture
def writer(store, said):
    writer = CheckpointWriter(store, on_trouble=said.append)
    yield writer
    store.gate.set()
    writer.close()
