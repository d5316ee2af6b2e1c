"""How fast it trains, and how much of the time it waits for data."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bbi_lightning.training.metric_logger import log_metrics


class Throughput(Callback):
    """Logs, every k optimizer steps and over the steps since the last row:

    speed/samples_per_s   training samples of all ranks a second; validation and checkpoints do not count.
    speed/data_wait       share of that time, 0 to 1, between two batches: waiting for data, and what
                          Lightning does then, about 0.1 ms.

    Put it after a callback that reads the loss at the same steps: then a GPU has done what it is timed for.

    Args:
        every: k, optimizer steps, ≥ 1.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, every: int = 20) -> None:
        if every < 1:
            raise ValueError(f"every={every} is too small: give 1 or more optimizer steps")
        self.every = every
        self.samples_per_second = float("nan")
        self._logged_step = 0
        self._idle_since: float | None = None
        self._began = 0.0
        self._samples = 0
        self._waited = 0.0
        self._worked = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._logged_step = trainer.global_step
        self._samples, self._waited, self._worked = 0, 0.0, 0.0
        self._idle_since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is here."""
        self._began = time.perf_counter()
        if self._idle_since is not None:
            self._waited += self._began - self._idle_since

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The batch is done."""
        now = time.perf_counter()
        self._worked += now - self._began
        self._samples += len(batch[1]) * trainer.world_size
        step = trainer.global_step
        if step % self.every == 0 and step != self._logged_step:
            self._logged_step = step
            self._report(trainer)
        self._idle_since = time.perf_counter()

    def _report(self, trainer: pl.Trainer) -> None:
        total = self._worked + self._waited
        self.samples_per_second = self._samples / total
        share = self._waited / total
        log_metrics(trainer, {"speed/samples_per_s": self.samples_per_second, "speed/data_wait": share})
        self._samples, self._waited, self._worked = 0, 0.0, 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What follows is not training."""
        self._idle_since = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes on."""
        self._idle_since = time.perf_counter()
