"""The global random generators: seeded once, saved with every checkpoint, put back on resume."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (of all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """The states of the global generators in containers that `torch.load(weights_only=True)` accepts."""
    version, internal, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": {
            **numpy_state,
            "state": {
                "key": numpy_state["state"]["key"].tolist(),
                "pos": int(numpy_state["state"]["pos"]),
            },
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    """Put the global generators back to where `generator_states` found them."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


class Generators(Callback):
    """Gives each rank its own stream (for dropout and the like) as training starts; the saved one on resume.

    Weights are initialised before, alike on all ranks.

    Args:
        seed: the run's; rank r uses seed + r.

    State:
        ranks: `generator_states` of each rank. A run resumed on another number of ranks starts new streams.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._saved: list[Mapping[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed or restore: after everything else that may have drawn numbers."""
        if len(self._saved) == trainer.world_size:
            restore_generators(self._saved[trainer.global_rank])
        else:
            # past the steps already taken, so that no number is used twice
            seed_generators((self.seed + trainer.global_rank + trainer.global_step) % 2**32)
        self._saved = []

    def state_dict(self) -> dict[str, Any]:
        """The states of all ranks, in order."""
        own = generator_states()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {"ranks": [own]}
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, own)
        return {"ranks": gathered}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep the states until training starts."""
        self._saved = list(state_dict["ranks"])
