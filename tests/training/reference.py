"""Plain PyTorch loops that Lightning runs must agree with, and the small problem both are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.optim import BBI, ECD
from bbi_lightning.training.classification import Classification

Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]


class RecordingBBI(BBI):
    """Notes the losses it is handed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handed: list[float] = []

    def hand_over(self, loss: torch.Tensor | float) -> None:
        self.handed.append(float(loss))
        super().hand_over(loss)


def bbi(parameters: Any) -> RecordingBBI:
    return RecordingBBI(parameters, lr=0.02, bounce_every=3, n_bounces=2, seed=1)


def sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


OPTIMIZERS = {"bbi": bbi, "sgd": sgd}


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def batches(count: int, size: int = 8, dtype: torch.dtype = torch.float64) -> Batches:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(count * size, 5, generator=generator, dtype=dtype)
    labels = torch.randint(0, 3, (count * size,), generator=generator)
    return list(zip(images.split(size), labels.split(size), strict=True))


def loader(data: Batches) -> DataLoader:
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=len(data[0][1]))


def windows(data: Batches, accumulate: int, epochs: int) -> list[Batches]:
    one_epoch = [data[k : k + accumulate] for k in range(0, len(data), accumulate)]
    return one_epoch * epochs


def plain_loop(
    model: nn.Module,
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
    steps: Sequence[Batches],
    context: Callable[[], Any] = nullcontext,
) -> list[float]:
    """Each step minimises the mean loss over its micro-batches. Returns the losses."""
    optimizer = make_optimizer(model.parameters())
    losses = []
    for micro_batches in steps:
        optimizer.zero_grad()
        total = 0.0
        for images, labels in micro_batches:
            with context():
                loss = nn.functional.cross_entropy(model(images), labels)
            (loss / len(micro_batches)).backward()
            total += float(loss.detach()) / len(micro_batches)
        losses.append(total)
        if isinstance(optimizer, ECD):
            optimizer.step(loss=total)
        else:
            optimizer.step()
    return losses


def bare_trainer(epochs: int = 1, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(**{**settings, **options})


def fit(
    model: nn.Module, make_optimizer: Callable[[Any], torch.optim.Optimizer], data: Batches, **options: Any
) -> torch.optim.Optimizer:
    """Train `model` in Lightning; returns the optimizer."""
    module = Classification(model, nn.CrossEntropyLoss(), make_optimizer, num_classes=3)
    trainer = bare_trainer(**options)
    trainer.fit(module, loader(data))
    return trainer.optimizers[0]


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
