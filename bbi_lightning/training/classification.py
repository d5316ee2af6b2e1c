"""Supervised classification: any network, any optimizer, any loss of (logits, labels)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bbi_lightning.training.baseline_passes import BaselinePasses
from bbi_lightning.training.evaluation import Totals, share_buffers
from bbi_lightning.training.lean_lightning import LeanModule
from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.metric_logger import log_metrics

Batch = tuple[torch.Tensor, torch.Tensor]


class Classification(LeanModule):
    """Minimises `loss(model(images), labels)`; reports loss and accuracy on validation and test data.

    The training loss is not logged here (see `StepLog`): `self.log` would cost 0.45 ms a step. What is said
    about validation and test data is the same to the last bit on any number of ranks (see `evaluation`).

    With several ranks BatchNorm normalises each rank's samples by themselves in training. Its running
    statistics, which evaluation uses and a checkpoint holds, are those of rank zero.

    Args:
        model: (B, C, H, W) images to (B, num_classes) logits.
        loss: mean over the batch of a function of logits and (B,) int64 labels; label smoothing belongs here.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes a learning-rate scheduler (or None) from the optimizer; advanced after every step.
        num_classes: ≥ 2.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> module = Classification(net, nn.CrossEntropyLoss(), torch.optim.SGD, num_classes=10)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler | None] | None = None,
        *,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        self.num_classes = num_classes
        self._val_totals, self._test_totals = Totals(), Totals()

    def configure_callbacks(self) -> list[Callback]:
        """What the optimizers need: the hand-over of the loss, and the passes of the baselines."""
        # Lightning would put ours in the place of one that the trainer has, and that others know
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # added later
        needed = (LossHandover, BaselinePasses)
        return [kind() for kind in needed if not any(isinstance(callback, kind) for callback in callbacks)]

    def configure_model(self) -> None:
        """Cut the model into shards where the strategy wants them."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy):
            from bbi_lightning.training.sharding import ShardedStrategy, shard  # seldom used

            if isinstance(strategy, ShardedStrategy):
                shard(self.model, strategy.mesh)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the scheduler if there is one."""
        optimizer = self._make_optimizer(p for p in self.model.parameters() if p.requires_grad)
        scheduler = None if self._make_scheduler is None else self._make_scheduler(optimizer)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, num_classes)."""
        logits: torch.Tensor = self.model(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The loss of one micro-batch."""
        images, labels = batch
        loss: torch.Tensor = self.loss(self.model(images), labels)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one batch into account."""
        self._evaluate(self._val_totals, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one batch into account."""
        self._evaluate(self._test_totals, batch)

    def _evaluate(self, totals: Totals, batch: Batch) -> None:
        images, labels = batch
        totals.add(self.loss, self.model(images), labels)

    def on_validation_start(self) -> None:
        """Start from nothing; all ranks evaluate the model that a checkpoint holds."""
        self._val_totals = Totals()
        share_buffers(self.model)

    def on_test_start(self) -> None:
        """Start from nothing; all ranks evaluate the model that a checkpoint holds."""
        self._test_totals = Totals()
        share_buffers(self.model)

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/acc."""
        values = _named("val", self._val_totals.means())
        # for callbacks that watch a metric, such as EarlyStopping; Lightning cannot know that the ranks agree
        self.log_dict(values, logger=False, sync_dist=self.trainer.world_size > 1)
        if not self.trainer.sanity_checking:
            log_metrics(self.trainer, values)

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/acc."""
        log_metrics(self.trainer, _named("test", self._test_totals.means()))


def _named(stage: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{stage}/{name}": value for name, value in values.items()}
