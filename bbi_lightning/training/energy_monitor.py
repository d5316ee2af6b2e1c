"""What an energy-conserving optimizer says about itself, logged now and then."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bbi_lightning.optim import ECD
from bbi_lightning.training.metric_logger import log_metrics


class EnergyMonitor(Callback):
    """Logs `optimizer.diagnostics()` as `energy/<key>` after the first and then every k-th optimizer step.

    Between two logged steps nothing is computed. Optimizers outside the family are passed over; with several
    of the family the keys become `energy/<index>/<key>`.

    Args:
        every: k, optimizer steps, ≥ 1.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, every: int = 50) -> None:
        if every < 1:
            raise ValueError(f"every={every} is too small: give 1 or more optimizer steps")
        self.every = every
        self._logged_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed run has logged the steps before."""
        self._logged_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Log if it is time."""
        step = trainer.global_step
        if (step % self.every and step != 1) or step == self._logged_step or not trainer.loggers:
            return
        self._logged_step = step
        family = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, ECD)]
        for index, optimizer in enumerate(family):
            prefix = "energy/" if len(family) == 1 else f"energy/{index}/"
            log_metrics(trainer, {prefix + key: value for key, value in optimizer.diagnostics().items()})
