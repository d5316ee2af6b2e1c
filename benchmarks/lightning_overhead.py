"""What a step of a whole run costs beyond a plain PyTorch loop, in milliseconds.

    python benchmarks/lightning_overhead.py              # 26k parameters, one thread, process time
    python benchmarks/lightning_overhead.py --rounds 5 --steps 200 --profile

Each side takes the same steps with the same network, batches and optimizer, taking turns. "a bare Trainer" is
Lightning with nothing of ours; "our run" is `bbi train` as it is by default, with rows, progress, energy
monitor and checkpoints. A side's figure in a round is its median step, so that what else the machine does now
and then makes no difference; start, validation and end are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import logging
import os
import pstats
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from timing import interleave
from torch import nn
from torch.optim import SGD

from bbi_lightning.data.generated import GeneratedDataModule
from bbi_lightning.models.cnn import CNN
from bbi_lightning.optim import BBI
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.config import compose
from bbi_lightning.training.run import train

SHAPE, BATCH = (1, 8, 8), 64
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(SGD, lr=0.02, momentum=0.9),
    "bbi": partial(BBI, lr=0.02),
}


class Clock:
    """Notes the time at the end of every step, on `read`'s clock."""

    def __init__(self, read: Callable[[], float], profile: cProfile.Profile | None = None) -> None:
        self.read, self.profile = read, profile
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(self.read())
        if self.profile is not None and len(self.times) == 1:
            self.profile.enable()

    def milliseconds(self) -> np.ndarray:
        """Of each step but the first; starts afresh."""
        if self.profile is not None:
            self.profile.disable()
        steps, self.times = 1000 * np.diff(self.times), []
        return steps


def generated(steps: int) -> GeneratedDataModule:
    """One epoch of so many batches."""
    data = GeneratedDataModule(
        image_shape=SHAPE, train_size=steps * BATCH, test_size=BATCH, batch_size=BATCH, val_size=0
    )
    data.setup("fit")
    return data


def network() -> nn.Module:
    torch.manual_seed(0)
    return CNN(image_shape=SHAPE, num_classes=10)


def plain_loop(optimizer: str, steps: int, clock: Clock) -> None:
    """What one would write without Lightning."""
    model, loss_of, loader = network(), nn.CrossEntropyLoss(), generated(steps).train_dataloader()
    used = OPTIMIZERS[optimizer](model.parameters())
    model.train()
    for images, labels in loader:
        used.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        if isinstance(used, BBI):
            used.step(loss=loss.detach())
        else:
            used.step()
        clock.tick()


class Bare(pl.LightningModule):
    """The least that Lightning can train."""

    def __init__(self, optimizer: str, clock: Clock) -> None:
        super().__init__()
        self.model, self.loss, self.optimizer, self.clock = network(), nn.CrossEntropyLoss(), optimizer, clock

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](self.model.parameters())

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss: torch.Tensor = self.loss(self.model(images), labels)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.tick()


def bare_trainer(optimizer: str, steps: int, clock: Clock) -> None:
    """Lightning with everything off."""
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Bare(optimizer, clock), generated(steps).train_dataloader())


@contextlib.contextmanager
def timed_steps(clock: Clock) -> Iterator[None]:
    """Classification, with a look at the clock after every step."""

    def on_train_batch_end(self: Classification, outputs: Any, batch: Any, batch_idx: int) -> None:
        clock.tick()

    before = Classification.on_train_batch_end
    Classification.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    try:
        yield
    finally:
        Classification.on_train_batch_end = before  # type: ignore[method-assign]


def our_run(optimizer: str, steps: int, clock: Clock) -> None:
    """A run as `bbi train` makes it; only W&B, which costs nothing between two rows, is left out."""
    with tempfile.TemporaryDirectory() as root, timed_steps(clock):
        overrides = [
            "data=generated", f"data.image_shape={list(SHAPE)}", f"data.train_size={steps * BATCH}",
            f"data.test_size={BATCH}", f"data.batch_size={BATCH}", "data.val_size=0", "model=cnn",
            f"optim={optimizer}", "optim.lr=0.02", "trainer.max_epochs=1", "runtime.threads=1",
            "runtime.accelerator=cpu", "runtime.progress=lines", "tracking=none", f"runtime.root={root}",
        ]  # fmt: skip
        train(compose(overrides))


SIDES = {"a plain loop": plain_loop, "a bare Trainer": bare_trainer, "our run": our_run}


def measure(optimizer: str, steps: int, rounds: int, read: Callable[[], float]) -> None:
    """Print the sides' milliseconds a step, and how much more than a plain loop they take."""
    clock = Clock(read)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}

    def timed(name: str) -> None:
        SIDES[name](optimizer, steps, clock)
        each = clock.milliseconds()
        taken[name].append((float(np.median(each)), float(each.mean())))

    interleave({name: partial(timed, name) for name in SIDES}, rounds)
    plain = np.array(taken["a plain loop"][1:])  # the first round warms up
    for name, values in taken.items():
        own = np.array(values[1:])
        middle, low, high = np.quantile(own[:, 0] - plain[:, 0], [0.5, 0.25, 0.75])
        mean = np.median(own[:, 1] - plain[:, 1])
        print(
            f"{optimizer:4} {name:15} {np.median(own[:, 0]):7.3f} ms  "
            f"{middle:+.3f} ({low:+.3f} to {high:+.3f})  mean {mean:+.3f}"
        )


def show_profile(optimizer: str, steps: int) -> None:
    """Print where our run spends its steps."""
    clock = Clock(time.process_time, cProfile.Profile())
    our_run(optimizer, steps, clock)
    clock.milliseconds()
    assert clock.profile is not None
    pstats.Stats(clock.profile).sort_stats("tottime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help="of each side in each round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--wall", action="store_true", help="wall time in place of process time")
    parser.add_argument("--profile", action="store_true", help="also say where our run spends its steps")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    read = time.perf_counter if arguments.wall else time.process_time
    kind = "wall" if arguments.wall else "process"
    print(f"{kind} time of the median step; beyond a plain loop's, quartiles over {arguments.rounds} rounds;")
    print("beyond it in the mean, which rows and checkpoints are part of")
    for optimizer in OPTIMIZERS:
        measure(optimizer, arguments.steps, arguments.rounds, read)
        if arguments.profile:
            show_profile(optimizer, arguments.steps)


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    main()
