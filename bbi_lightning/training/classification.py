"""Supervised classification: any network, any optimizer, any loss of (logits, labels)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.metric_logger import log_metrics

Batch = tuple[torch.Tensor, torch.Tensor]


class Classification(pl.LightningModule):
    """Minimises `loss(model(images), labels)`; reports loss and accuracy on validation and test data.

    The training loss is not logged here (see `StepLog`): `self.log` would cost 0.45 ms a step.

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
        self.val_metrics = nn.ModuleDict(_metrics(num_classes))
        self.test_metrics = nn.ModuleDict(_metrics(num_classes))

    def configure_callbacks(self) -> list[Callback]:
        """The hand-over of the loss, without which an energy-conserving optimizer would get a wrong one."""
        return [LossHandover()]

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
        self._evaluate(self.val_metrics, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one batch into account."""
        self._evaluate(self.test_metrics, batch)

    def _evaluate(self, metrics: nn.ModuleDict, batch: Batch) -> None:
        images, labels = batch
        logits = self.model(images)
        _metric(metrics, "loss").update(self.loss(logits, labels), len(labels))
        _metric(metrics, "acc").update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/acc."""
        values = _taken(self.val_metrics, "val")
        # for callbacks that watch a metric, such as EarlyStopping; Lightning cannot know that the ranks agree
        self.log_dict(values, logger=False, sync_dist=self.trainer.world_size > 1)
        if not self.trainer.sanity_checking:
            log_metrics(self.trainer, values)

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/acc."""
        log_metrics(self.trainer, _taken(self.test_metrics, "test"))


class SampleMean(Metric):
    """Mean over all samples of all ranks, from the means of batches of any size; NaN where one of them is.

    torchmetrics' MeanMetric either drops a NaN or, told to keep it, the weights.
    """

    full_state_update = False
    total: torch.Tensor
    samples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: torch.Tensor, samples: int) -> None:
        """Take a batch's mean into account."""
        self.total += mean.detach().double() * samples
        self.samples += samples

    def compute(self) -> torch.Tensor:
        """The mean."""
        return self.total / self.samples


def _metrics(num_classes: int) -> dict[str, Metric]:
    accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
    return {"loss": SampleMean(), "acc": accuracy}


def _metric(metrics: nn.ModuleDict, name: str) -> Metric:
    metric = metrics[name]
    assert isinstance(metric, Metric)
    return metric


def _taken(metrics: nn.ModuleDict, stage: str) -> dict[str, float]:
    """The metrics over all ranks, and a reset."""
    values = {}
    for name in metrics:
        metric = _metric(metrics, name)
        values[f"{stage}/{name}"] = float(metric.compute())
        metric.reset()
    return values
