"""From a checked config to the objects of one run: data, module, trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import nn

from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.training import interrupts
from bbi_lightning.training.baseline_passes import BaselinePasses
from bbi_lightning.training.beginning import begin_with
from bbi_lightning.training.checkpointing import RunCheckpoint, is_validation_due
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.config import TrainingConfig
from bbi_lightning.training.energy_monitor import EnergyMonitor
from bbi_lightning.training.exchange import Exchange
from bbi_lightning.training.generators import Generators, seed_generators
from bbi_lightning.training.launching import cluster_environment
from bbi_lightning.training.lean_lightning import NoProfiler, without_signature_search
from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.metric_logger import MetricLogger
from bbi_lightning.training.options import RuntimeOptions, TrainerOptions
from bbi_lightning.training.progress import Progress
from bbi_lightning.training.rank_guard import RankGuard
from bbi_lightning.training.start import Start
from bbi_lightning.training.step_log import StepLog
from bbi_lightning.training.strategies import build_strategy, without_sigterm_broadcast
from bbi_lightning.training.throughput import Throughput
from bbi_lightning.training.time_limit import TimeLimit
from bbi_lightning.training.watchdog import Watchdog


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

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Also where a resumed run had only a validation left of its last epoch."""
        self.on_train_batch_end(trainer, pl_module)


@dataclass(frozen=True)
class Lifelines:
    """What makes a run survive: the same objects for the whole attempt.

    Attributes:
        io: where checkpoints go.
        time_limit: when the attempt must have left, None if nobody sets a limit.
        watchdog: ends a process that hangs.
        begin_at: the checkpoint to go on from as if never stopped, None to begin.
    """

    io: StoreCheckpointIO
    time_limit: TimeLimit | None
    watchdog: Watchdog
    begin_at: Path | None


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        train_loader, val_loader: this rank's share.
        total_steps: optimizer steps of the whole run.
        checkpointing: saves it.
    """

    module: Classification
    trainer: pl.Trainer
    train_loader: Any
    val_loader: Any
    total_steps: int
    checkpointing: RunCheckpoint

    def is_complete(self, state: Mapping[str, Any]) -> bool:
        """Whether nothing is left to train after this checkpoint, nor to validate."""
        return state["global_step"] >= self.total_steps and not is_validation_due(state)


def build(
    config: TrainingConfig,
    data: ImageDataModule,
    lifelines: Lifelines,
    loggers: Callable[[int], Sequence[Logger]],
) -> Parts:
    """Build everything; the model's initial weights depend on the seed alone.

    Args:
        config: checked.
        data: its data module, set up for "fit".
        lifelines: the attempt's.
        loggers: makes the loggers from the number of trainable parameters.
    """
    options: TrainerOptions = config.trainer.build()
    runtime: RuntimeOptions = config.runtime.build()
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    seed_generators(config.seed)
    model = config.model.build(image_shape=data.image_shape, num_classes=data.num_classes)
    if options.precision == "64-true":
        model.double()  # Lightning does so after a checkpoint has been loaded, which would round its weights
    own_loggers = loggers(trained_parameters(model))
    if runtime.compile:
        model.compile()

    trainer, progress, checkpointing = trainer_with_callbacks(config, lifelines, own_loggers)
    data.trainer = trainer  # its rank and device decide what a loader holds
    train_loader, val_loader = data.train_dataloader(), data.val_dataloader() or None
    progress.total_steps = total_steps = count_steps(len(train_loader), options)

    schedule = {"total_steps": total_steps} if config.scheduler.accepts("total_steps") else {}
    module = Classification(
        model,
        config.loss.build(),
        config.optim.build(),
        config.scheduler.build(**schedule),
        num_classes=data.num_classes,
    )
    if config.start is not None and lifelines.begin_at is None:
        start: Start = config.start.build()
        callbacks_of(trainer)[:0] = begin_with(module, start)
    return Parts(module, trainer, train_loader, val_loader, total_steps, checkpointing)


def trained_parameters(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def trainer_with_callbacks(
    config: TrainingConfig, lifelines: Lifelines, loggers: Sequence[Logger]
) -> tuple[pl.Trainer, Progress, RunCheckpoint]:
    """The trainer with everything that a run needs around its module."""
    options: TrainerOptions = config.trainer.build()
    runtime: RuntimeOptions = config.runtime.build()
    exchange = Exchange()
    checkpointing = RunCheckpoint(
        lifelines.io,
        config.checkpoint.build(),
        exchange,
        history=next((logger for logger in loggers if isinstance(logger, MetricLogger)), None),
        time_limit=lifelines.time_limit,
        watchdog=lifelines.watchdog,
    )
    progress, callbacks = _usual_callbacks(config.seed, options, runtime, exchange)
    trainer = build_trainer(options, runtime, [*callbacks, checkpointing], loggers, exchange, lifelines.io)
    return trainer, progress, checkpointing


def _usual_callbacks(
    seed: int, options: TrainerOptions, runtime: RuntimeOptions, exchange: Exchange
) -> tuple[Progress, list[Callback]]:
    """The progress display, and all callbacks but the last in the order in which they must run."""
    step_log = StepLog(runtime.log_every)
    progress = Progress(step_log, runtime.progress)
    callbacks: list[Callback] = [] if options.max_steps is None else [StepLimit(options.max_steps)]
    callbacks += [
        Generators(seed),
        BaselinePasses(),  # before whoever looks at the weights or saves them
        LossHandover(exchange),
        step_log,  # reads the loss, so that a GPU has caught up when the others look at the clock
        EnergyMonitor(runtime.log_every),
        Throughput(runtime.log_every),
        progress,
    ]
    if runtime.check_ranks_every is not None:
        callbacks.append(RankGuard(runtime.check_ranks_every))
    return progress, callbacks


def build_trainer(
    options: TrainerOptions,
    runtime: RuntimeOptions,
    callbacks: list[Callback],
    loggers: Sequence[Logger],
    exchange: Exchange,
    io: StoreCheckpointIO,
) -> pl.Trainer:
    """Lightning's Trainer with everything off that we do ourselves, better or not at all."""
    plugins: list[Any] = [cluster_environment(runtime)]
    precision: str | None = options.precision
    if runtime.strategy == "fsdp":
        from bbi_lightning.training.sharding import precision_plugin  # dear to load, and seldom used

        own = precision_plugin(options.precision, _accelerator(runtime))
        if own is not None:
            plugins.append(own)
            precision = None
    else:
        plugins.append(io)
    trainer = pl.Trainer(
        max_epochs=-1 if options.max_epochs is None else options.max_epochs,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=options.gradient_clip_val,
        gradient_clip_algorithm=options.gradient_clip_algorithm,
        precision=precision,  # type: ignore[arg-type]  # a name of Lightning's
        deterministic=options.deterministic,
        check_val_every_n_epoch=options.check_val_every_n_epoch,
        accelerator=_accelerator(runtime),
        devices=runtime.devices,
        num_nodes=runtime.num_nodes,
        strategy=build_strategy(runtime, exchange),
        callbacks=callbacks,
        plugins=plugins,
        logger=list(loggers),
        log_every_n_steps=1,  # about `self.log` in training, which we do not use
        use_distributed_sampler=False,  # the data modules cut the ranks' shares
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
        profiler=NoProfiler(),
    )
    without_sigterm_broadcast(trainer)
    without_signature_search(trainer)
    interrupts.keep_from_lightning(trainer)
    return trainer


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """The trainer's callbacks, in the order in which they run."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return callbacks


def _accelerator(runtime: RuntimeOptions) -> str:
    """ "auto" is CUDA or the CPU: float64 scalars, which the energy needs, exist on no other."""
    if runtime.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return runtime.accelerator


def count_steps(batches: int, options: TrainerOptions) -> int:
    """Optimizer steps of the run; the last step of an epoch may have fewer micro-batches."""
    per_epoch = math.ceil(batches / options.accumulate_grad_batches)
    limits = [] if options.max_epochs is None else [options.max_epochs * per_epoch]
    return min([*limits, *([] if options.max_steps is None else [options.max_steps])])
