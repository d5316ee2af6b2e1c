"""Gives an energy-conserving optimizer the loss that belongs to its gradient.

What `optimizer.step(closure)` sees under Lightning is something else: the last micro-batch's loss divided by
the number of micro-batches, this rank's loss only, or nothing at all with a GradScaler. The loss handed over
here is the function whose gradient lies in `p.grad`, so that one process with a batch of 2B and two with B
each follow the same path:

    L = (1 / (R·M)) Σ_r Σ_m L_rm        R ranks, M micro-batches of this optimizer step

Lightning divides every micro-batch by `accumulate_grad_batches`, also in a window that the end of the epoch
cuts short; loss and gradient are put right here, for every optimizer.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer

from bbi_lightning.optim import ECD
from bbi_lightning.training.exchange import Exchange


@dataclass(frozen=True)
class StepLoss:
    """The loss of one optimizer step, the same on all ranks.

    Attributes:
        value: L, a float on a CPU, else a 0-dim float64 tensor that nobody has waited for.
        micro_batches: M.
    """

    value: Tensor | float
    micro_batches: int


class LossHandover(Callback):
    """Add it to a Trainer to use the family there; `Classification` brings it along.

    Works with any precision, GradScaler, accumulation, clipping, compiled models, DDP, FSDP2, and with manual
    optimization of one optimizer: there the loss is the sum of what was given to `manual_backward` since its
    last step. With several optimizers nobody but the training step knows which loss is whose: it passes them
    itself, `optimizer.step(loss=…)`, averaged over ranks with `mean_over_ranks`.

    Args:
        exchange: how the ranks agree on the loss; give a strategy that carries it the same one.

    Attributes:
        newest: the newest step's loss, None before the first.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[LossHandover()], logger=False, enable_checkpointing=False)
    """

    def __init__(self, exchange: Exchange | None = None) -> None:
        self.exchange = Exchange() if exchange is None else exchange
        self.newest: StepLoss | None = None
        self._sum: Tensor | float = 0.0
        self._micro_batches = 0
        self._warned = False
        self._step = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start afresh, and warn once if gradients will be clipped."""
        self._sum, self._micro_batches, self.newest, self._step = 0.0, 0, None, -1
        self.exchange.begin(trainer.world_size)
        family = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, ECD)]
        if trainer.gradient_clip_val and family and not self._warned:
            self._warned = True
            name = type(family[0]).__name__
            warnings.warn(
                f"gradient_clip_val={trainer.gradient_clip_val} changes the dynamics of {name}: a clipped "
                "gradient is not the loss's own, so energy is injected; null leaves the dynamics alone",
                stacklevel=2,
            )

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Add a micro-batch's loss; it comes divided by the accumulation and multiplied by the AMP scale."""
        self._micro_batches += 1
        if self.exchange.is_carried:
            return  # the gradients bring it
        value = float(loss.detach()) if loss.device.type == "cpu" else loss.detach().double()
        self._sum = self._sum + value / _scale(trainer, loss.device)
        if not self.exchange.is_needed or not pl_module.automatic_optimization:
            return  # in manual optimization nobody knows which micro-batch is a step's last
        if not trainer.fit_loop._should_accumulate():
            self.exchange.start(self._sum, trainer.strategy.root_device)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Correct a short window; hand the loss over."""
        micro_batches, self._micro_batches = self._micro_batches, 0
        if micro_batches == 0:
            return
        device = trainer.strategy.root_device
        loss = self.exchange.finish(self._sum, device, _scale(trainer, device))
        self._sum = 0.0
        window = trainer.accumulate_grad_batches if pl_module.automatic_optimization else micro_batches
        if micro_batches < window:
            factor = window / micro_batches
            loss = loss * factor
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
        if trainer.global_step != self._step:  # a second pass within the step is at other weights (SAM)
            self._step, self.newest = trainer.global_step, StepLoss(loss, micro_batches)
        if isinstance(optimizer, ECD) and len(trainer.optimizers) == 1:
            optimizer.hand_over(loss)


def loss_handover_of(trainer: pl.Trainer) -> LossHandover:
    """The trainer's own.

    Raises:
        ValueError: it has none.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning adds it later
    found = [callback for callback in callbacks if isinstance(callback, LossHandover)]
    if not found:
        raise ValueError("nobody collects the training loss: add LossHandover() to the Trainer's callbacks")
    return found[0]


def _scale(trainer: pl.Trainer, device: torch.device) -> Tensor | float:
    """What a GradScaler multiplies losses and gradients with, as a tensor where asking would wait."""
    plugin = trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
        return 1.0
    if device.type == "cpu":
        return float(plugin.scaler.get_scale())
    return plugin.scaler.scale(torch.ones((), device=device)).double()


def mean_over_ranks(trainer: pl.Trainer, value: Tensor) -> Tensor:
    """The mean of a 0-dim tensor over all ranks; the value itself where there is only one."""
    if trainer.world_size == 1:
        return value
    reduced = trainer.strategy.reduce(value.clone(), reduce_op="mean")
    assert isinstance(reduced, Tensor)
    return reduced
