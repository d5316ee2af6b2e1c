"""The training loss, logged as means over a few steps; and the end of a run that has diverged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from bbi_lightning.training.loss_handover import StepLoss, loss_handover_of
from bbi_lightning.training.metric_logger import log_metrics

LOST = 10
"""So many non-finite losses on end, and the run has diverged. An energy-conserving optimizer skips a step
whose loss is not finite and may recover with the next batch; SGD and Adam never do."""


class DivergedError(Exception):
    """The loss has stayed non-finite. A result, not a failure."""


class StepLog(Callback):
    """Logs `train/loss` after the first and then every k-th optimizer step: a mean over the steps since.

    It is the loss that `LossHandover` collects, over all ranks and micro-batches, each of which counts alike.
    A loss stays on its device until then, so no step waits for a GPU.

    Args:
        every: k, optimizer steps, ≥ 1.

    State:
        losses, micro_batches: of the steps since the last row.
        lost: non-finite losses on end before those.

    Raises:
        ValueError: `every` is below 1; or, as training starts, the Trainer has no `LossHandover`.
        DivergedError: out of the hooks of all ranks alike, when `LOST` losses on end were not finite.
    """

    def __init__(self, every: int = 20) -> None:
        if every < 1:
            raise ValueError(f"every={every} is too small: give 1 or more optimizer steps")
        self.every = every
        self.last_loss = float("nan")
        self._steps: list[StepLoss] = []
        self._seen: StepLoss | None = None
        self._lost = 0
        self._logged_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed run has logged the steps before."""
        self._logged_step = trainer.global_step
        self._seen = loss_handover_of(trainer).newest

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        """Keep the loss of a step; log if it is time."""
        newest = loss_handover_of(trainer).newest
        if newest is not None and newest is not self._seen:
            self._seen = newest
            self._steps.append(newest)
        step = trainer.global_step
        if (step % self.every == 0 or step == 1) and step != self._logged_step and self._steps:
            self._logged_step = step
            self._report(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is left; a run that ends on lost losses has diverged, however short it was."""
        if self._steps:
            self._report(trainer)
        if self._lost > 0 and self._lost >= min(LOST, trainer.global_step):
            raise DivergedError

    def _report(self, trainer: pl.Trainer) -> None:
        losses = _values(self._steps)
        weights = losses.new_tensor([float(step.micro_batches) for step in self._steps])
        self._steps = []
        self._lost = _lost_at_end(torch.isfinite(losses).tolist(), self._lost)
        self.last_loss = float((losses * weights).sum() / weights.sum())
        log_metrics(trainer, {"train/loss": self.last_loss})
        if self._lost >= LOST:
            raise DivergedError

    def state_dict(self) -> dict[str, Any]:
        """Losses that wait for their row."""
        return {
            "losses": _values(self._steps).tolist(),
            "micro_batches": [step.micro_batches for step in self._steps],
            "lost": self._lost,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue the row that was begun."""
        waiting = zip(state_dict["losses"], state_dict["micro_batches"], strict=True)
        self._steps = [StepLoss(loss, micro_batches) for loss, micro_batches in waiting]
        self._lost = int(state_dict["lost"])


def _values(steps: list[StepLoss]) -> torch.Tensor:
    """The losses as one float64 tensor on the CPU, fetched from a device all at once."""
    on_device = [step.value for step in steps if isinstance(step.value, torch.Tensor)]
    fetched = iter(torch.stack(on_device).tolist() if on_device else ())
    values = [next(fetched) if isinstance(step.value, torch.Tensor) else step.value for step in steps]
    return torch.tensor(values, dtype=torch.float64)


def _lost_at_end(finite: list[bool], lost_before: int) -> int:
    """How many losses in a row, up to the last, were not finite."""
    return finite[::-1].index(True) if True in finite else lost_before + len(finite)
