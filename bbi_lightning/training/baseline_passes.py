"""What optimizers of two weights (schedule-free) or two passes (SAM) need of a Lightning Trainer."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bbi_lightning.baselines.kinds import TwoPasses, TwoWeights
from bbi_lightning.data.loader import TrainingLoader


class BaselinePasses(Callback):
    """Add it to a Trainer to use the baselines there; `Classification` brings it along.

    Other optimizers are left alone.

    Two weights: validation, tests, checkpoints' weights and the module after training are the result's, with
    batch normalisation's statistics recomputed for them; training goes on as if nobody had looked.

    Two passes: in the second one running statistics stand still. The loss that is handed over and logged is
    the first pass's (see `LossHandover`).

    Args:
        calibration: batches that batch normalisation's statistics are recomputed from, ≥ 1; the first of the
            training set, in the order of epoch 0.

    Raises:
        ValueError: as training starts, SAM with accumulated gradients or a GradScaler; either with sharded
            parameters; two weights and batch normalisation in a module without `forward`.
    """

    def __init__(self, calibration: int = 20) -> None:
        if calibration < 1:
            raise ValueError(f"calibration={calibration} is too few: give 1 or more batches")
        self.calibration = calibration
        self._weights: list[TwoWeights] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look which optimizers there are."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, (TwoPasses, TwoWeights)):
                _refuse_what_it_cannot_do(trainer, optimizer)
            if isinstance(optimizer, TwoPasses):
                optimizer.second_pass = lambda: _standing_still(pl_module)
        self._weights = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, TwoWeights)]
        if self._weights and _normalised(pl_module) and type(pl_module).forward is pl.LightningModule.forward:
            raise ValueError(
                f"{type(pl_module).__name__} has batch normalisation and no forward(inputs), which "
                f"{type(self._weights[0]).__name__} needs to recompute its statistics: define it"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """To the weights where gradients are taken."""
        self._train()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """To the result."""
        self._judge(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Back to training."""
        self._train()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The result stays in the module."""
        self._judge(trainer, pl_module)
        self._weights = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The checkpoint's weights are the result's; the others are in the optimizer's state."""
        if not self._weights:
            return
        in_training = [_is_in_training(optimizer) for optimizer in self._weights]
        for optimizer in self._weights:
            optimizer.eval()
        names = checkpoint["state_dict"]
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):
            if name in names:
                names[name] = parameter.detach().clone()
        for optimizer, training in zip(self._weights, in_training, strict=True):
            if training:
                optimizer.train()

    def _train(self) -> None:
        for optimizer in self._weights:
            optimizer.train()

    def _judge(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in self._weights:
            optimizer.eval()
        if self._weights and not trainer.sanity_checking:
            calibrate(pl_module, _batches(trainer, pl_module, self.calibration))


def _is_in_training(optimizer: TwoWeights) -> bool:
    assert isinstance(optimizer, torch.optim.Optimizer)
    return bool(optimizer.param_groups[0]["train_mode"])


def _refuse_what_it_cannot_do(trainer: pl.Trainer, optimizer: object) -> None:
    name = type(optimizer).__name__
    if isinstance(trainer.strategy, (ModelParallelStrategy, FSDPStrategy)):
        raise ValueError(f"{name} does not know sharded parameters: use runtime.strategy=ddp")
    if not isinstance(optimizer, TwoPasses):
        return
    if trainer.accumulate_grad_batches > 1:
        raise ValueError(
            f"accumulate_grad_batches={trainer.accumulate_grad_batches} is too many for {name}, whose second "
            "pass sees the last micro-batch only: use 1"
        )
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
        raise ValueError(f"precision=16-mixed has no closure for the second pass of {name}: use bf16-mixed")


def _batches(trainer: pl.Trainer, module: pl.LightningModule, most: int) -> Iterator[Any]:
    """The same training batches at every call, on the module's device; the loader's place does not move."""
    loader: Any = trainer.train_dataloader
    found: Iterable[Any] = loader.source.batches(0, 0) if isinstance(loader, TrainingLoader) else loader
    for batch in itertools.islice(found, most):
        yield trainer.strategy.batch_to_device(batch, module.device)


@torch.no_grad()
def calibrate(module: nn.Module, batches: Iterable[Any]) -> None:
    """Recompute batch normalisation's running statistics for the weights that are there.

    They become the plain means over the batches; random streams are left as they are. Without batch
    normalisation nothing is read.

    Args:
        module: called with the first part of a batch that is a sequence or a mapping, else with the batch.
        batches: of the training set.
    """
    layers = _normalised(module)
    if not layers:
        return
    was_training = [m.training for m in module.modules()]
    momenta = [layer.momentum for layer in layers]
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean
        layer.train()
    try:
        with torch.random.fork_rng(list(devices)):
            for batch in batches:
                module(_inputs(batch))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for part, training in zip(module.modules(), was_training, strict=True):
            part.training = training


def _normalised(module: nn.Module) -> list[_BatchNorm]:
    """The layers with running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _inputs(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return next(iter(batch.values()))
    return batch[0] if isinstance(batch, Sequence) else batch


@contextlib.contextmanager
def _standing_still(module: nn.Module) -> Iterator[None]:
    """Batches seen inside leave no mark in running statistics; batch statistics are used as in training."""
    layers = _normalised(module)
    kept = [{name: b.clone() for name, b in layer.named_buffers(recurse=False)} for layer in layers]
    try:
        yield
    finally:
        for layer, buffers in zip(layers, kept, strict=True):
            for name, buffer in layer.named_buffers(recurse=False):
                buffer.copy_(buffers[name])
