"""Run by test_rank_guard.py: two ranks of which one is tampered with, and what the guard says.

python rank_guard_program.py RANKS OUT
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import DoublePrecision
from torch import nn

from bbi_lightning.training.classification import Classification
from bbi_lightning.training.rank_guard import RankGuard, RanksDivergedError
from bbi_lightning.training.sharding import ShardedStrategy
from training.ranks import fork_ranks
from training.reference import bare_trainer, batches, bbi, loader, network

EVERY = 2  # steps between two comparisons

Tamper = Callable[[nn.Module, torch.optim.Optimizer], None]


def last_bit_of_a_weight(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    bias = model[2].bias.data
    bias[1] = torch.nextafter(bias[1], bias[1] + 1)


def momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.state[model[0].weight]["momentum"][3, 2] *= 1.5


def energy(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer._motion.state.energy += 1e-9


def learning_rate(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] *= 2


def buffer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.statistics.fill_(7.0)


def nothing(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    pass


CASES: dict[str, tuple[int, Tamper]] = {
    # noticed a step later; of the others only their traces in the weights would be named then
    "last_bit_of_a_weight": (3, last_bit_of_a_weight),
    **{t.__name__: (4, t) for t in (momentum, energy, learning_rate, buffer, nothing)},
}
"""What is changed, and after which step."""


class Tampering(Callback):
    """Changes something on rank 1 after a step."""

    def __init__(self, step: int, tamper: Tamper) -> None:
        self.step, self.tamper = step, tamper

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == 1:
            self.tamper(pl_module.model, trainer.optimizers[0])


def run_case(step: int, tamper: Tamper, *, sharded: bool = False) -> list[str | None]:
    """What each rank's guard said, None for nothing."""
    model = network()
    model.register_buffer("statistics", torch.zeros(2))
    module = Classification(model, nn.CrossEntropyLoss(), bbi, num_classes=3)
    trainer = bare_trainer(
        devices=2,
        strategy=ShardedStrategy() if sharded else "ddp",
        callbacks=[Tampering(step, tamper), RankGuard(EVERY)],
        plugins=[DoublePrecision()],
        use_distributed_sampler=False,
    )
    said = None
    try:
        trainer.fit(module, loader(batches(8)))
    except RanksDivergedError as error:
        said = f"{trainer.global_step}: {error}"
    everybodys: list[str | None] = [None, None]
    dist.all_gather_object(everybodys, said)
    return everybodys


def main() -> dict[str, list[str | None]]:
    results = {name: run_case(*case) for name, case in CASES.items()}
    sharded = {f"sharded, {name}": run_case(*CASES[name], sharded=True) for name in ("energy", "nothing")}
    return results | sharded


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    fork_ranks(main, int(sys.argv[1]), sys.argv[2])
