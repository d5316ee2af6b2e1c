"""What it costs that ranks tell each other their loss and their wishes at every step: two processes, gloo.

    python benchmarks/loss_exchange.py                 # three networks, about four minutes
    python benchmarks/loss_exchange.py --networks 26k --rounds 5

Every alternative is timed once a round, and the ratio to the plain DDP SGD loop is taken round by round.

    plain loop   DDP and SGD with no exchange at all (the baseline); with the payload carried in DDP's bucket
                 (ours); in an all-reduce while backward runs (ours where DDP is not); in one that is waited
                 for; and with the broadcast that Lightning makes before every batch
    Lightning    its own DDP with SGD; ours with SGD, and with BBI
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pytorch_lightning.callbacks import Callback
from timing import Timing, show
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from bbi_lightning.models.resnet import ResNet18
from bbi_lightning.optim import BBI
from bbi_lightning.training.exchange import Exchange
from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.strategies import CarryingDDP, CarryingModule, without_sigterm_broadcast

RANKS = 2
CPU = torch.device("cpu")
BASELINE = "plain loop, no exchange"


def mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "26k": (lambda: mlp(64, 128, 128, 10), (64, 64), 10),
    "0.3M": (lambda: mlp(784, 256, 256, 10), (64, 784), 8),
    "11M": (lambda: ResNet18(image_shape=(3, 32, 32), num_classes=10), (16, 3, 32, 32), 1),
}
"""Name → network, shape of a rank's batch, steps of one timing (a quarter of those in Lightning)."""


class Task(pl.LightningModule):
    """A network and its loss, for a plain loop and for Lightning."""

    def __init__(self, net: nn.Module, make: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        self.net, self.make = net, make

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(images), labels)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self(*batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make(self.parameters())


def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def bbi(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return BBI(parameters, lr=1e-3)


class PlainLoop:
    """DDP and SGD by hand; the exchange is "carried", "overlapped", "waited for" or none of these."""

    def __init__(self, task: Task, batch: Any, steps: int, exchange: str | None) -> None:
        self.batch, self.steps, self.kind = batch, steps, exchange
        self.exchange = Exchange()
        self.exchange.begin(RANKS)
        self.carrier = CarryingModule(task, self.exchange, CPU) if exchange == "carried" else None
        options = {} if self.carrier is None else {"gradient_as_bucket_view": True}  # as `CarryingDDP` does
        self.ddp = DistributedDataParallel(self.carrier or task, **options)
        self.optimizer = task.configure_optimizers()
        if self.carrier is not None:
            self.exchange.carrier = self.carrier
            self.carrier.rehearse(self.ddp)

    def __call__(self) -> float:
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step()
        return (time.perf_counter() - start) / self.steps

    def step(self) -> None:
        if self.kind == "Lightning's broadcast":
            flag = torch.tensor([0])
            dist.broadcast(flag, src=0)
            flag.item()
        self.optimizer.zero_grad()
        loss = self.loss()
        if self.kind == "overlapped":
            self.exchange.start(float(loss.detach()), CPU)
        loss.backward()
        if self.kind in ("carried", "overlapped", "waited for"):
            self.exchange.finish(float(loss.detach()), CPU, 1.0)
        self.optimizer.step()

    def loss(self) -> torch.Tensor:
        if self.carrier is not None:
            self.carrier.mode = "carrying wishes"
        return self.ddp(*self.batch)


class Stopwatch(Callback):
    """Seconds of a step, without the first ones."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.times = warm_up, [0.0]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step >= self.warm_up:
            self.times.append(time.perf_counter())

    @property
    def seconds_a_step(self) -> float:
        return (self.times[-1] - self.times[1]) / (len(self.times) - 2)


class InLightning:
    """A short fit, timed from its third step on; `ours` or Lightning's own DDP."""

    def __init__(self, task: Task, batch: Any, steps: int, *, ours: bool) -> None:
        self.task, self.ours = task, ours
        self.loader = DataLoader([batch] * (steps + 3), batch_size=None)

    def __call__(self) -> float:
        stopwatch, exchange = Stopwatch(warm_up=3), Exchange()
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=RANKS,
            strategy=CarryingDDP(exchange) if self.ours else "ddp",
            callbacks=[LossHandover(exchange), stopwatch] if self.ours else [stopwatch],
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        if self.ours:
            without_sigterm_broadcast(trainer)
        trainer.fit(self.task, self.loader)
        return stopwatch.seconds_a_step


Alternatives = dict[str, Callable[[], float]]


def alternatives(network: str) -> tuple[Alternatives, Alternatives]:
    """Plain loops, and Lightning's; the baseline is the first of both."""
    build, shape, steps = NETWORKS[network]
    net = build()
    batch = (torch.randn(shape), torch.randint(0, 10, (shape[0],)))

    def task(make: Callable[..., torch.optim.Optimizer] = sgd) -> Task:
        return Task(copy.deepcopy(net), make)

    kinds = {
        BASELINE: None,
        "plain loop, carried": "carried",
        "plain loop, all-reduce during backward": "overlapped",
        "plain loop, all-reduce waited for": "waited for",
        "plain loop, Lightning's broadcast": "Lightning's broadcast",
    }
    plain: Alternatives = {name: PlainLoop(task(), batch, steps, kind) for name, kind in kinds.items()}
    lightning: Alternatives = {
        BASELINE: PlainLoop(task(), batch, 4 * steps, None),
        "Lightning, its DDP, SGD": InLightning(task(), batch, 4 * steps, ours=False),
        "Lightning, ours, SGD": InLightning(task(), batch, 4 * steps, ours=True),
        "Lightning, ours, BBI": InLightning(task(bbi), batch, 4 * steps, ours=True),
    }
    return plain, lightning


def interleave(runs: Alternatives, rounds: int) -> dict[str, Timing]:
    """Seconds of a step, after one round that does not count; all ranks start together."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            dist.barrier()
            seconds[name].append(run())
    return {name: Timing(np.array(s[1:])) for name, s in seconds.items()}


def measure(rank: int, networks: list[str], rounds: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(RANKS))
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    quieten()
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    for network in networks:
        for runs, times in zip(alternatives(network), (5 * rounds, rounds), strict=True):
            timings = interleave(runs, times)
            if rank == 0:
                print(f"{network}: {1e3 * timings[BASELINE].median:.2f} ms a step of the plain loop")
                for name, timing in timings.items():
                    print(f"  {name:42} {show(timing.ratio_to(timings[BASELINE]))}", flush=True)
    dist.destroy_process_group()


def quieten() -> None:
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (arguments.networks, arguments.rounds, port)
    mp.start_processes(measure, args=options, nprocs=RANKS, start_method="fork")


if __name__ == "__main__":
    main()
