"""From a checked config to the objects of one run: data, module, trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.training.checkpointing import AtomicCheckpointIO, RunCheckpoint
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.config import TrainingConfig
from bbi_lightning.training.energy_monitor import EnergyMonitor
from bbi_lightning.training.generators import Generators, seed_generators
from bbi_lightning.training.options import RuntimeOptions, TrainerOptions
from bbi_lightning.training.progress import Progress
from bbi_lightning.training.step_log import StepLog
from bbi_lightning.training.throughput import Throughput


class StepLimit(Callback):
    """Ends training after so many optimizer steps, validation included.

    Lightning's own `max_steps` leaves the last validation out and changes how a run resumes.

    Args:
        max_steps: ≥ 1.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop at the limit."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        train_loader, val_loader: this rank's share.
        total_steps: optimizer steps of the whole run.
    """

    module: Classification
    trainer: pl.Trainer
    train_loader: Any
    val_loader: Any
    total_steps: int


def build(
    config: TrainingConfig,
    data: ImageDataModule,
    checkpoint: Path,
    loggers: Callable[[int], Sequence[Logger]],
) -> Parts:
    """Build everything; the model's initial weights depend on the seed alone.

    Args:
        config: checked.
        data: its data module, set up for "fit".
        checkpoint: the file that is to be kept up to date.
        loggers: makes the loggers from the number of trainable parameters.
    """
    options: TrainerOptions = config.trainer.build()
    runtime: RuntimeOptions = config.runtime.build()
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    seed_generators(config.seed)
    model = config.model.build(image_shape=data.image_shape, num_classes=data.num_classes)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if runtime.compile:
        model.compile()

    progress, callbacks = _callbacks(config, options, runtime, checkpoint)
    trainer = build_trainer(options, runtime, callbacks, loggers(parameters))
    data.trainer = trainer  # its rank and device decide what a loader holds
    train_loader, val_loader = data.train_dataloader(), data.val_dataloader() or None
    progress.total_steps = total_steps = _total_steps(len(train_loader), options)

    schedule = {"total_steps": total_steps} if config.scheduler.accepts("total_steps") else {}
    module = Classification(
        model,
        config.loss.build(),
        config.optim.build(),
        config.scheduler.build(**schedule),
        num_classes=data.num_classes,
    )
    return Parts(module, trainer, train_loader, val_loader, total_steps)


def _callbacks(
    config: TrainingConfig, options: TrainerOptions, runtime: RuntimeOptions, checkpoint: Path
) -> tuple[Progress, list[Callback]]:
    """The progress display, and all callbacks in the order in which they must run."""
    step_log = StepLog(runtime.log_every)
    progress = Progress(step_log, runtime.progress)
    callbacks: list[Callback] = [] if options.max_steps is None else [StepLimit(options.max_steps)]
    callbacks += [
        Generators(config.seed),
        step_log,  # reads the loss, so that a GPU has caught up when the others look at the clock
        EnergyMonitor(runtime.log_every),
        Throughput(runtime.log_every),
        progress,
        RunCheckpoint(checkpoint, every=config.checkpoint.build().every, vote_every=runtime.log_every),
    ]
    return progress, callbacks


def build_trainer(
    options: TrainerOptions, runtime: RuntimeOptions, callbacks: list[Callback], loggers: Sequence[Logger]
) -> pl.Trainer:
    """Lightning's Trainer with everything off that we do ourselves, better or not at all."""
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return pl.Trainer(
        max_epochs=-1 if options.max_epochs is None else options.max_epochs,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=options.gradient_clip_val,
        gradient_clip_algorithm=options.gradient_clip_algorithm,
        precision=options.precision,
        deterministic=options.deterministic,
        check_val_every_n_epoch=options.check_val_every_n_epoch,
        accelerator=_accelerator(runtime),
        devices=runtime.devices,
        num_nodes=runtime.num_nodes,
        strategy=runtime.strategy,
        callbacks=callbacks,
        plugins=plugins,
        logger=list(loggers),
        log_every_n_steps=1,  # about `self.log` in training, which we do not use
        use_distributed_sampler=False,  # the data modules cut the ranks' shares
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
    )


def _accelerator(runtime: RuntimeOptions) -> str:
    """ "auto" is CUDA or the CPU: float64 scalars, which the energy needs, exist on no other."""
    if runtime.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return runtime.accelerator


def _total_steps(batches: int, options: TrainerOptions) -> int:
    """Optimizer steps of the run; the last step of an epoch may have fewer micro-batches."""
    per_epoch = math.ceil(batches / options.accumulate_grad_batches)
    limits = [] if options.max_epochs is None else [options.max_epochs * per_epoch]
    return min([*limits, *([] if options.max_steps is None else [options.max_steps])])
