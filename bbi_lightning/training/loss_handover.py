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

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.optim import Optimizer

from bbi_lightning.optim import ECD


class LossHandover(Callback):
    """Add it to a Trainer to use the family there; `Classification` brings it along.

    Works with any precision, GradScaler, accumulation, clipping, compiled models, DDP, and with manual
    optimization of one optimizer: there the loss is the sum of what was given to `manual_backward` since its
    last step. With several optimizers nobody but the training step knows which loss is whose: it passes them
    itself, `optimizer.step(loss=…)`, averaged over ranks with `mean_over_ranks`.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[LossHandover()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._micro_batches = 0
        self._warned = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start afresh, and warn once if gradients will be clipped."""
        self._clear()
        family = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, ECD)]
        if trainer.gradient_clip_val and family and not self._warned:
            self._warned = True
            name = type(family[0]).__name__
            warnings.warn(
                f"gradient_clip_val={trainer.gradient_clip_val} changes the dynamics of {name}: a clipped "
                "gradient is not the loss's own, so energy is injected; null leaves the dynamics alone",
                stacklevel=2,
            )

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        """Add a micro-batch's loss; it comes divided by the accumulation and multiplied by the AMP scale."""
        value = loss.detach().double()
        scaler = (
            trainer.precision_plugin.scaler if isinstance(trainer.precision_plugin, MixedPrecision) else None
        )
        if scaler is not None:
            # the scale as a tensor: get_scale() would wait for the GPU
            value = value / scaler.scale(torch.ones((), device=loss.device)).double()
        self._sum = value if self._sum is None else self._sum + value
        self._micro_batches += 1

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Correct a short window; hand the loss over."""
        loss, micro_batches = self._sum, self._micro_batches
        self._clear()
        if loss is None:
            return
        window = trainer.accumulate_grad_batches if pl_module.automatic_optimization else micro_batches
        if micro_batches < window:
            factor = window / micro_batches
            loss = loss * factor
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
        if isinstance(optimizer, ECD) and len(trainer.optimizers) == 1:
            optimizer.hand_over(mean_over_ranks(trainer, loss))

    def _clear(self) -> None:
        self._sum, self._micro_batches = None, 0


def mean_over_ranks(trainer: pl.Trainer, value: torch.Tensor) -> torch.Tensor:
    """The mean of a 0-dim tensor over all ranks; the value itself where there is only one."""
    if trainer.world_size == 1:
        return value
    reduced = trainer.strategy.reduce(value.clone(), reduce_op="mean")
    assert isinstance(reduced, torch.Tensor)
    return reduced
