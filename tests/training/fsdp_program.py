"""Run by test_fsdp.py: trains on real processes that share every parameter.

python fsdp_program.py RANKS OUT

A case whose checkpoint is not yet in OUT's folder is trained from the start and leaves one on the way;
others go on from it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import DoublePrecision, MixedPrecision
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.checkpoints.shard_files import write
from bbi_lightning.optim import BBI, ECDq1, ECDSep
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.sharding import ShardedStrategy
from training.ranks import fork_ranks
from training.reference import bare_trainer, batches

WHOLE = 12  # samples of a batch over all processes
BATCHES, EPOCHS = 15, 4
SAVED_IN = 1

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "bbi": partial(
        BBI, lr=0.2, extra_energy=0.5, patience=9, bounce_every=7, n_bounces=4, weight_decay=0.01, seed=1
    ),
    "ecdsep": partial(ECDSep, lr=0.05, nu=0.02, weight_decay=0.01, seed=1),
    "ecd_q1": partial(ECDq1, lr=0.02, nu=0.02, floor=-0.1, seed=1),
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
}
CASES = {
    **{name: (name, False, 1) for name in OPTIMIZERS},
    "bbi, accumulated": ("bbi", False, 4),
    "bbi, batch norm": ("bbi", True, 1),
}
"""Optimizer, whether with BatchNorm, micro-batches of a step (the last window of an epoch is shorter)."""


def network(norm: bool) -> nn.Module:
    """Uneven parts on two and four processes, and a block of its own."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(16, 7), nn.BatchNorm1d(7) if norm else nn.Identity(), nn.Tanh())
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), block, nn.Linear(7, 3)).double()


def share(rank: int, world_size: int) -> DataLoader:
    """This process's part of every batch."""
    own = WHOLE // world_size
    data = [(x[rank * own :][:own], y[rank * own :][:own]) for x, y in batches(BATCHES, size=WHOLE)]
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=own)


class SaveOnTheWay(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == SAVED_IN and not self.folder.exists():
            trainer.strategy.barrier()
            self.folder.mkdir(exist_ok=True)
            trainer.strategy.barrier()
            trainer.save_checkpoint(self.folder)


def build(case: str, folder: Path, **options: Any) -> tuple[pl.Trainer, Classification]:
    optimizer, norm, accumulate = CASES[case]
    trainer = bare_trainer(
        epochs=EPOCHS,
        plugins=[DoublePrecision()],  # Lightning refuses the name of it here
        accumulate_grad_batches=accumulate,
        use_distributed_sampler=False,
        callbacks=[SaveOnTheWay(folder)],
        **options,
    )
    return trainer, Classification(network(norm), nn.CrossEntropyLoss(), OPTIMIZERS[optimizer], num_classes=3)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train(ranks: int, folder: Path) -> dict[str, Any]:
    results = {}
    for case in CASES:
        checkpoint = folder / case
        start = checkpoint if checkpoint.exists() else None
        if dist.is_initialized():
            dist.barrier()
        trainer, module = build(case, checkpoint, devices=ranks, strategy=ShardedStrategy())
        trainer.fit(module, share(trainer.global_rank, trainer.world_size), ckpt_path=start)
        buffers = [buffer.clone() for buffer in module.model.buffers()]
        results[case] = {
            "weights": {name: whole(p) for name, p in module.model.named_parameters()},
            "buffers": buffers,
            "sharded": all(isinstance(p, DTensor) for p in module.model.parameters()),
            "optimizer_is_cut": [
                isinstance(value, DTensor)
                for state in trainer.optimizers[0].state.values()
                for value in state.values()
                if isinstance(value, torch.Tensor) and value.dim() > 0
            ],
            "steps": trainer.global_step,
        }
        module.model.train()(torch.ones(4, 5, dtype=torch.float64).cumsum(0))  # the same input everywhere
        gathered: list[Any] = [None] * ranks
        dist.all_gather_object(gathered, list(module.model.buffers()))
        results[case]["buffers_after_the_same_input"] = gathered
    return {**results, "scaled": scaled(ranks), "troubles": troubles(ranks, folder)}


def troubles(ranks: int, folder: Path) -> list[list[str]]:
    """What each process is told when one of them cannot write its file."""
    mesh = init_device_mesh("cpu", (ranks,))
    weight = distribute_tensor(torch.ones(4), mesh, [Shard(0)])
    told = []
    for name in ("__0_0.distcp", f"__{ranks - 1}_0.distcp", "state.pt"):
        place = folder / f"in-the-way-{ranks}-{name}"
        (place / name).mkdir(parents=True, exist_ok=True)
        try:
            write(place, {"state_dict": {"weight": weight}})
        except OSError as error:
            told.append(type(error).__name__)
    gathered: list[Any] = [None] * ranks
    dist.all_gather_object(gathered, told)
    return gathered


class InfiniteOnce(Callback):
    """In one batch the part of one gradient that the last process holds is infinite."""

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.global_rank == trainer.world_size - 1
        if last and trainer.fit_loop.epoch_loop.total_batch_idx == 7:
            gradient = next(pl_module.parameters()).grad
            assert isinstance(gradient, DTensor)
            gradient.to_local().fill_(torch.inf)


def scaled(ranks: int) -> list[Any]:
    """With a real GradScaler; the numbers of each process's optimizer at the end."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=1000)
    trainer = bare_trainer(
        devices=ranks,
        strategy=ShardedStrategy(),
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        use_distributed_sampler=False,
        callbacks=[InfiniteOnce()],
    )
    module = Classification(
        network(False).float(), nn.CrossEntropyLoss(), OPTIMIZERS["ecdsep"], num_classes=3
    )
    images, labels = share(trainer.global_rank, trainer.world_size).dataset.tensors
    trainer.fit(module, DataLoader(TensorDataset(images.float(), labels), batch_size=WHOLE // ranks))
    numbers = {
        name: float(x)
        for name, x in trainer.optimizers[0].state_dict()["param_groups"][0]["ecd"].items()
        if name in ("steps", "draws", "skipped", "energy", "scale", "momentum_sq")
    }
    gathered: list[Any] = [None] * ranks
    dist.all_gather_object(gathered, {**numbers, "gradient_scale": scaler.get_scale()})
    return gathered


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    count, out = int(sys.argv[1]), sys.argv[2]
    fork_ranks(lambda: train(count, Path(out).parent), count, out)
