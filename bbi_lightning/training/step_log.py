"""The training loss, logged as means over a few steps; and the end of a run that has diverged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from bbi_lightning.training.loss_handover import mean_over_ranks
from bbi_lightning.training.metric_logger import log_metrics

LOST = 10
"""So many non-finite losses on end, and the run has diverged. An energy-conserving optimizer skips a step
whose loss is not finite and may recover with the next batch; SGD and Adam never do."""


class DivergedError(Exception):
    """The loss has stayed non-finite. A result, not a failure."""


class StepLog(Callback):
    """Logs `train/loss` after the first and then every k-th optimizer step: a mean over the losses since.

    A loss stays on its device until then, so no step waits for a GPU.

    Args:
        every: k, optimizer steps, ≥ 1.

    State:
        losses: of the micro-batches since the last row.
        lost: non-finite losses on end before those.

    Raises:
        ValueError: `every` is below 1.
        DivergedError: out of the hooks, when `LOST` losses on end were not finite.
    """

    def __init__(self, every: int = 20) -> None:
        if every < 1:
            raise ValueError(f"every={every} is too small: give 1 or more optimizer steps")
        self.every = every
        self.last_loss = float("nan")
        self._losses: list[torch.Tensor] = []
        self._lost = 0
        self._lost_on_ranks = 0.0
        self._logged_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed run has logged the steps before."""
        self._logged_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        """Keep the loss; log if it is time."""
        if outputs is not None and outputs.get("loss") is not None:
            # Lightning has divided it by the number of micro-batches
            self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)
        step = trainer.global_step
        if (step % self.every == 0 or step == 1) and step != self._logged_step and self._losses:
            self._logged_step = step
            self._report(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is left; a run that ends on lost losses has diverged, however short it was."""
        if self._losses:
            self._report(trainer)
        if self._lost_on_ranks > 0 and self._lost_on_ranks >= min(LOST, trainer.global_step):
            raise DivergedError

    def _report(self, trainer: pl.Trainer) -> None:
        losses = torch.stack([loss.double() for loss in self._losses])
        self._losses = []
        self._lost = _lost_at_end(torch.isfinite(losses).tolist(), self._lost)
        both = mean_over_ranks(trainer, torch.stack((losses.mean(), losses.new_tensor(self._lost))))
        self.last_loss, self._lost_on_ranks = both.tolist()
        log_metrics(trainer, {"train/loss": self.last_loss})
        if self._lost_on_ranks >= LOST:
            raise DivergedError

    def state_dict(self) -> dict[str, Any]:
        """Losses that wait for their row."""
        return {"losses": [float(loss) for loss in self._losses], "lost": self._lost}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue the row that was begun."""
        self._losses = [torch.tensor(loss, dtype=torch.float64) for loss in state_dict["losses"]]
        self._lost = int(state_dict["lost"])


def _lost_at_end(finite: list[bool], lost_before: int) -> int:
    """How many losses in a row, up to the last, were not finite."""
    return finite[::-1].index(True) if True in finite else lost_before + len(finite)
