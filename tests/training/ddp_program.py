"""Run by a test: trains on 1 or 2 real processes and saves what came out.

python ddp_program.py DEVICES OUT
"""

from __future__ import annotations

import json
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.training.classification import Classification
from bbi_lightning.training.leaving import own_exit_code
from training.reference import OPTIMIZERS, RecordingBBI, bare_trainer, batches, network

CASES = {"bbi": ("bbi", 1), "bbi, short window": ("bbi", 3), "sgd, short window": ("sgd", 3)}
WHOLE = 16  # samples of a batch over all processes


def share(rank: int, world_size: int) -> DataLoader:
    """This process's part of every batch."""
    own = WHOLE // world_size
    data = [(x[rank * own :][:own], y[rank * own :][:own]) for x, y in batches(7, size=WHOLE)]
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=own)


def main(devices: int, out: str) -> None:
    results = {"cases": json.dumps(CASES)}
    for case, (optimizer, accumulate) in CASES.items():
        trainer = bare_trainer(
            epochs=2,
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            precision="64-true",
            accumulate_grad_batches=accumulate,
            use_distributed_sampler=False,
        )
        module = Classification(network(), nn.CrossEntropyLoss(), OPTIMIZERS[optimizer], num_classes=3)
        trainer.fit(module, share(trainer.global_rank, trainer.world_size))
        used = trainer.optimizers[0]
        results[case] = {
            "weights": module.model.state_dict(),
            "losses": used.handed if isinstance(used, RecordingBBI) else [],
        }
        results["world_size"] = trainer.world_size
    if trainer.is_global_zero:
        torch.save(results, out)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with own_exit_code():
        main(int(sys.argv[1]), sys.argv[2])
