"""Run by test_precision.py: number formats on two ranks, in each of the ways in which the loss travels.

python precision_program.py RANKS OUT
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from optim.members import MEMBERS
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.training.classification import Classification
from bbi_lightning.training.loss_handover import loss_handover_of
from bbi_lightning.training.rank_guard import digest, replicated_state
from training.layouts_program import Make, trainer_for
from training.ranks import fork_ranks
from training.reference import batches, network

STEPS = 12
WHOLE = 16  # samples of a step over all ranks
POISONED = 5  # the step whose gradients are infinite on the last rank
SCALE = 2.0**10
FORMATS = ("16-mixed", "bf16-mixed", "bf16-true", "32-true")
MAKE: dict[str, Make] = {m.name: functools.partial(m.build, lively=True, lr=0.3 * m.lr) for m in MEMBERS}


class Poisoned(nn.Module):
    """A network whose gradients are infinite in one of its backward passes."""

    def __init__(self, poisoned: int | None) -> None:
        super().__init__()
        self.inner = network(torch.float32)
        self.poisoned = poisoned
        self.count = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.count += 1
        output = self.inner(images)
        if self.count == self.poisoned:
            output.register_hook(lambda gradient: gradient * torch.inf)
        return output


class Record(Callback):
    """After every step: loss, own loss, the optimizer's numbers, hashes, the scale."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        newest = loss_handover_of(trainer).newest
        (optimizer,) = trainer.optimizers
        numbers = optimizer.state_dict()["param_groups"][0]["ecd"]
        state = [digest(tensor) for _, tensor in replicated_state(pl_module, [optimizer])]
        weights = [parameter.detach().reshape(-1) for parameter in pl_module.parameters()]
        plugin = trainer.precision_plugin
        scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
        now = {
            "losses": float(newest.value),
            "own_losses": float(outputs["loss"]),
            "numbers": {name: number.item() for name, number in numbers.items()},
            "digests": int(digest(torch.stack(state))),
            "weights": int(digest(torch.cat(weights))),
            "scales": 1.0 if scaler is None else scaler.get_scale(),
        }
        for key, value in now.items():
            self.seen.setdefault(key, []).append(value)


def plugin_for(precision: str) -> dict[str, Any]:
    """On a CPU Lightning makes 16-mixed bf16, unless it is given a scaler."""
    if precision != "16-mixed":
        return {"precision": precision}
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=SCALE))]}


def share(rank: int, ranks: int) -> DataLoader:
    own = WHOLE // ranks
    data = [(x[rank * own :][:own], y[rank * own :][:own]) for x, y in batches(STEPS, WHOLE, torch.float32)]
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=own)


def run_case(
    precision: str, name: str, ranks: int, *, carried: bool = True, poisoned: bool = False
) -> list[dict[str, Any]]:
    """What each rank recorded."""
    record = Record()
    trainer = trainer_for(ranks, carried=carried, callbacks=[record], **plugin_for(precision))
    last = trainer.global_rank == ranks - 1
    model = Poisoned(POISONED if poisoned and last else None)
    module = Classification(model, nn.CrossEntropyLoss(), MAKE[name], num_classes=3)
    trainer.fit(module, share(trainer.global_rank, ranks))
    everybodys: list[Any] = [record.seen]
    if ranks > 1:
        everybodys = [None] * ranks
        torch.distributed.all_gather_object(everybodys, record.seen)
    return everybodys


def main(ranks: int) -> dict[str, Any]:
    ways = {"carried": True, "reduced": False}
    return {
        **{
            f"{precision}, {way}": run_case(precision, "BBI", ranks, carried=carried)
            for precision in FORMATS
            for way, carried in ways.items()
        },
        **{
            f"poisoned, {way}": run_case("16-mixed", "ECD", ranks, carried=carried, poisoned=True)
            for way, carried in ways.items()
        },
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    fork_ranks(functools.partial(main, int(sys.argv[1])), int(sys.argv[1]), sys.argv[2])
