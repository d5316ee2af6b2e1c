"""Run by a test: evaluates on some real processes and saves what came out.

python evaluation_program.py DEVICES OUT
"""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import nn

from bbi_lightning.data.generated import GeneratedDataModule
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.leaving import own_exit_code
from training.reference import bare_trainer, sgd

SAMPLES = (1, 2, 3, 97, 101, 103)
BATCHES = (1, 7, 13, 200)
PRECISIONS = ("64-true", "32-true")


class Kept(Logger):
    """Keeps what it is told, unrounded."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics |= metrics

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def network(normalised: bool) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3)]
    return (
        nn.Sequential(*layers[:2], nn.BatchNorm1d(64), *layers[2:]) if normalised else nn.Sequential(*layers)
    )


def generated(trainer: pl.Trainer, samples: int, batch: int) -> GeneratedDataModule:
    data = GeneratedDataModule(
        image_shape=(1, 4, 4), num_classes=3, train_size=samples + 24, val_size=samples, test_size=samples,
        batch_size=12, eval_batch_size=batch,
    )  # fmt: skip
    data.trainer = trainer
    return data


def make_trainer(devices: int, **options: Any) -> pl.Trainer:
    strategy = "ddp" if devices > 1 else "auto"
    return bare_trainer(
        devices=devices, strategy=strategy, logger=Kept(), use_distributed_sampler=False, **options
    )


def validated(devices: int, samples: int, batch: int, precision: Any) -> dict[str, float]:
    trainer = make_trainer(devices, precision=precision)
    data = generated(trainer, samples, batch)
    data.setup("fit")
    module = Classification(network(False), nn.CrossEntropyLoss(), sgd, num_classes=3)
    trainer.validate(module, data.val_dataloader(), verbose=False)
    return trainer.logger.metrics


def normalised(devices: int) -> dict[str, Any]:
    """Train with BatchNorm and never validate; then test on all ranks."""
    trainer = make_trainer(devices, epochs=2)
    data = generated(trainer, 101, 13)
    data.setup("fit")
    data.setup("test")
    module = Classification(network(True), nn.CrossEntropyLoss(), sgd, num_classes=3)
    trainer.fit(module, data.train_dataloader())
    means = trainer.strategy.all_gather(module.model[2].running_mean)
    saved = {key: value.clone() for key, value in module.model.state_dict().items()}
    trainer.test(module, data.test_dataloader(), verbose=False)
    return {"running_means": means, "saved": saved, "metrics": trainer.logger.metrics}


def tested(saved: dict[str, torch.Tensor]) -> dict[str, float]:
    """A single process tests saved weights."""
    trainer = make_trainer(1)
    data = generated(trainer, 101, 13)
    data.setup("test")
    module = Classification(network(True), nn.CrossEntropyLoss(), sgd, num_classes=3)
    module.model.load_state_dict(saved)
    trainer.test(module, data.test_dataloader(), verbose=False)
    return trainer.logger.metrics


def main(devices: int, out: str) -> None:
    torch.set_num_threads(1)
    results: dict[Any, Any] = {
        (samples, batch, precision): validated(devices, samples, batch, precision)
        for samples in SAMPLES
        for batch in BATCHES
        for precision in PRECISIONS
    }
    results["normalised"] = normalised(devices)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(results, out)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with own_exit_code():
        main(int(sys.argv[1]), sys.argv[2])
