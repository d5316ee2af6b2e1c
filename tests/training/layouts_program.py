"""Run by test_layouts.py: every optimizer on so many ranks, and what came out.

python layouts_program.py RANKS OUT
"""

from __future__ import annotations

import functools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from optim.members import MEMBERS
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.training.classification import Classification
from bbi_lightning.training.exchange import Exchange
from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.rank_guard import digest, replicated_state
from bbi_lightning.training.strategies import CarryingDDP, without_sigterm_broadcast
from training.ranks import fork_ranks
from training.reference import bare_trainer, batches, network

STEPS = 54
WHOLE = 16  # samples of a step over all ranks and micro-batches
LAYOUTS = {1: {"whole": 1, "accumulated": 2}, 2: {"carried": 1, "carried, accumulated": 2, "reduced": 1}}
"""Ranks → name of the layout → micro-batches of a step on each rank."""

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def optimizers() -> dict[str, Make]:
    """Every member with bounces and, where it has one, chaos element; and two outside the family."""
    family: dict[str, Make] = {
        member.name: functools.partial(member.build, lively=True, lr=0.3 * member.lr) for member in MEMBERS
    }
    return {
        **family,
        "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    }


class Digests(Callback):
    """A hash of everything that ranks must hold alike, after every step."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        state = replicated_state(pl_module, trainer.optimizers)
        self.seen.append(int(digest(torch.stack([digest(tensor) for _, tensor in state]))))
        (handover,) = (callback for callback in trainer.callbacks if isinstance(callback, LossHandover))
        self.losses.append(float(handover.newest.value))


def share(rank: int, ranks: int, micro_batches: int, dtype: torch.dtype) -> DataLoader:
    """A rank's part of every step's samples, cut into micro-batches; all together they are the whole."""
    own = WHOLE // ranks
    data = [(x[rank * own :][:own], y[rank * own :][:own]) for x, y in batches(STEPS, WHOLE, dtype)]
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=own // micro_batches)


def trainer_for(ranks: int, *, carried: bool, callbacks: list[Callback], **options: Any) -> pl.Trainer:
    """With the exchange carried by DDP, or in an all-reduce of its own."""
    exchange = Exchange()
    strategy = (CarryingDDP(exchange) if carried else "ddp") if ranks > 1 else "auto"
    trainer = bare_trainer(
        devices=ranks,
        strategy=strategy,
        callbacks=[LossHandover(exchange), *callbacks],
        use_distributed_sampler=False,
        **options,
    )
    without_sigterm_broadcast(trainer)
    return trainer


def run_case(ranks: int, layout: str, micro_batches: int, make: Make) -> dict[str, Any]:
    digests = Digests()
    trainer = trainer_for(
        ranks,
        carried="carried" in layout,
        callbacks=[digests],
        precision="64-true",
        accumulate_grad_batches=micro_batches,
    )
    module = Classification(network(), nn.CrossEntropyLoss(), make, num_classes=3)
    trainer.fit(module, share(trainer.global_rank, ranks, micro_batches, torch.float64))
    seen = [digests.seen]
    if ranks > 1:
        seen = [[] for _ in range(ranks)]
        torch.distributed.all_gather_object(seen, digests.seen)
    return {
        "weights": module.model.state_dict(),
        "state": trainer.optimizers[0].state_dict(),
        "losses": digests.losses,
        "digests": seen,
    }


def resumed(ranks: int, *, stop: bool) -> list[torch.Tensor]:
    """Two epochs in float32, in one go or with a new start between them; every weight and momentum."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.ckpt"
        make = optimizers()["SGD"]
        for epochs in (1, 2) if stop else (2,):
            trainer = trainer_for(ranks, carried=True, callbacks=[], epochs=epochs)
            module = Classification(network(torch.float32), nn.CrossEntropyLoss(), make, num_classes=3)
            loader = share(trainer.global_rank, ranks, 1, torch.float32)
            trainer.fit(module, loader, ckpt_path=kept if kept.exists() else None, weights_only=True)
            if stop and epochs == 1:
                trainer.save_checkpoint(kept)
                kept = Path(trainer.strategy.broadcast(str(kept)))
                trainer.strategy.barrier()
        return [p.detach() for p in module.parameters()]


def main(ranks: int) -> dict[str, Any]:
    results = {
        f"{layout}, {name}": run_case(ranks, layout, micro_batches, make)
        for layout, micro_batches in LAYOUTS.get(ranks, {"carried": 1}).items()
        for name, make in optimizers().items()
        if ranks <= 2 or name == "BBI"
    }
    if ranks == 4:
        results["resume"] = {"never stopped": resumed(4, stop=False), "stopped": resumed(4, stop=True)}
    return results


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    fork_ranks(functools.partial(main, int(sys.argv[1])), int(sys.argv[1]), sys.argv[2])
