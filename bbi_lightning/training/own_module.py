"""Somebody's own LightningModule, trained by any optimizer of the house for a fair comparison.

The module is used as it is. Its `configure_optimizers` is replaced, what it logs goes into the run's metric
log, and a run is a run like any other: it is found when it is there, goes on where it was stopped, and can be
swept, compared and tracked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training import interrupts
from bbi_lightning.training.building import (
    Lifelines,
    Parts,
    count_steps,
    trained_parameters,
    trainer_with_callbacks,
)
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import TrainingConfig, checked, compose, digest, plain
from bbi_lightning.training.generators import seed_generators
from bbi_lightning.training.metric_logger import MetricLogger
from bbi_lightning.training.options import RuntimeOptions, TrainerOptions
from bbi_lightning.training.run import TrainingAttempt, exit_if_interrupted, is_rank_zero, quiet_lightning

_FROM_THE_CONFIG = ("optim", "scheduler", "trainer")  # what shapes the result, beside the module and the seed
_USED = ("seed", *_FROM_THE_CONFIG, "runtime", "checkpoint", "tracking")


@dataclass(frozen=True)
class OwnModule:
    """A module and its data, for `task: your_file:NAME` of a sweep.

    Args:
        module: makes the LightningModule; its initial weights may depend on the global generators only, which
            are seeded before. Automatic optimization; it logs ``self.log("val/loss", …)`` in validation and
            ``self.log("test/loss", …)`` in the test, and any other metric by such names. `train/loss` is
            logged without its help.
        data: makes the LightningDataModule with loaders for training, validation and test.
        name: in the names of runs; the module's own in lower case if not given.

    Both must be importable (a class or a function of a module, no lambda): trials run in processes of their
    own. A run that was stopped goes on from its newest checkpoint; bit for bit only if the training loader
    has `state_dict` and `load_state_dict`, as a plain DataLoader does not.

    Example:
        >>> from pytorch_lightning.demos.boring_classes import BoringModel, BoringDataModule
        >>> task = OwnModule(BoringModel, BoringDataModule)
        >>> task.run_name(["optim=sgd", "optim.lr=0.1", "seed=3"])[:16]
        'boringmodel-sgd-'
    """

    module: Callable[[], pl.LightningModule]
    data: Callable[[], pl.LightningDataModule]
    name: str | None = None

    def run_name(self, overrides: Sequence[str]) -> str:
        """`<module>-<optimizer>-<hash>-s<seed>`; the hash is of all that shapes the result but the seed."""
        config = _composed(overrides)
        anonymous = config.copy()
        OmegaConf.set_struct(anonymous, False)
        anonymous.seed = -1  # whatever says ${seed} follows
        values = plain(anonymous)
        identity = {"module": self._where} | {key: values[key] for key in _FROM_THE_CONFIG}
        return f"{self._label}-{checked(config).optim.name}-{digest(identity)}-s{config.seed}"

    def validate(self, overrides: Sequence[str]) -> None:
        """Find what can be found without the module.

        Raises:
            ConfigError: a wrong key, type or value; or settings of the shipped data, model or loss, which
                nobody would heed.
        """
        for text in overrides:
            key = text.lstrip("+~").split("=")[0]
            if key.split(".")[0] not in _USED:
                raise ConfigError(
                    f"{text} changes nothing of {self._where}, which brings its own model, data and loss: "
                    f"drop it, or change {', '.join(_USED)}"
                )
        config = checked(_composed(overrides))
        config.trainer.try_build()
        config.runtime.try_build()
        config.checkpoint.try_build()
        config.tracking.try_build()
        optimizer = config.optim.try_build([torch.nn.Parameter(torch.zeros(1))])
        config.scheduler.try_build(optimizer, **_schedule(config, 100))

    def resolve(self, overrides: Sequence[str]) -> str:
        """The config of a run, as YAML."""
        values = plain(_composed(overrides))
        return OmegaConf.to_yaml({"module": self._where} | {key: values[key] for key in _USED})

    def run(self, overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
        """Train the run, or go on with it; a run that has a result is left alone."""
        config = _composed(overrides).copy()
        config.runtime.root = str(root)
        config.runtime.group = labels.get("sweep")
        parsed = checked(config)
        folder = RunFolder(Path(root) / self.run_name(overrides))
        if folder.exists and folder.record.is_result:
            return
        with interrupts.listening(), quiet_lightning():
            if is_rank_zero():
                RunFolder.create(
                    folder.path, config=self.resolve(overrides), labels=labels, overrides=overrides
                )
                folder.acquire()
            try:
                _OwnAttempt(self, folder, parsed, plain(config)).go(cast("Any", None))
            finally:
                folder.release()
        exit_if_interrupted(folder)

    @property
    def _where(self) -> str:
        return f"{self.module.__module__}.{getattr(self.module, '__qualname__', self.module)}"

    @property
    def _label(self) -> str:
        return self.name or str(getattr(self.module, "__name__", "own")).lower()


def _composed(overrides: Sequence[str]) -> DictConfig:
    return compose(tuple(overrides))


def _schedule(config: TrainingConfig, total_steps: int) -> dict[str, Any]:
    return {"total_steps": total_steps} if config.scheduler.accepts("total_steps") else {}


class _OwnAttempt(TrainingAttempt):
    """One process's work on a run of an `OwnModule`."""

    def __init__(
        self, own: OwnModule, folder: RunFolder, config: TrainingConfig, values: Mapping[str, Any]
    ) -> None:
        super().__init__(folder, config, values, fresh=False)
        self.own = own

    def _loggers(self, parameters: int) -> list[Logger]:
        loggers = super()._loggers(parameters)
        if self.log is not None:
            loggers[0] = _OwnLogger(self.log)
        return loggers

    def _train_and_test(self, data: Any, lifelines: Lifelines) -> None:
        seed_generators(self.config.seed)
        own_data = self.own.data()
        own_data.prepare_data()
        own_data.setup("fit")
        try:
            parts = _build(self.own, self.config, own_data, lifelines, self._loggers)
            self._fit(parts, lifelines.begin_at)
            own_data.setup("test")
            tests = own_data.test_dataloader()
            parts.trainer.test(parts.module, tests, verbose=False)
        finally:
            lifelines.watchdog.leaving(600.0)
            own_data.teardown("fit")


class _OwnLogger(MetricLogger):
    """Counts steps as we do: Lightning gives what `self.log` says of an epoch one step less."""

    trainer: pl.Trainer | None = None

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add to the row of the steps taken so far."""
        super().log_metrics(metrics, step if self.trainer is None else self.trainer.global_step)


def _build(
    own: OwnModule,
    config: TrainingConfig,
    data: pl.LightningDataModule,
    lifelines: Lifelines,
    loggers: Callable[[int], Sequence[Logger]],
) -> Parts:
    """As `building.build`, around a module that knows nothing of us."""
    options: TrainerOptions = config.trainer.build()
    runtime: RuntimeOptions = config.runtime.build()
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    seed_generators(config.seed)
    module = own.module()
    if not module.automatic_optimization:
        raise ConfigError(f"{own._where} steps its optimizers itself: use automatic_optimization=True")
    if options.precision == "64-true":
        module.double()
    own_loggers = loggers(trained_parameters(module))
    trainer, progress, checkpointing = trainer_with_callbacks(config, lifelines, own_loggers)
    for logger in own_loggers:
        if isinstance(logger, _OwnLogger):
            logger.trainer = trainer
    trainer.fit_loop.epoch_loop.__dict__.pop("_build_kwargs", None)  # theirs may not want the batch's number
    data.trainer = trainer
    train, validate = data.train_dataloader(), data.val_dataloader()
    try:
        batches = len(train)
    except TypeError:
        raise ConfigError(
            f"the training loader of {own._where} has no length: give it one, schedules and budgets need it"
        ) from None
    progress.total_steps = total_steps = count_steps(batches, options)
    _take_the_optimizer(module, config, total_steps)
    return Parts(cast("Any", module), trainer, train, validate, total_steps, checkpointing)


def _take_the_optimizer(module: pl.LightningModule, config: TrainingConfig, total_steps: int) -> None:
    """The config's optimizer and schedule in the place of the module's own."""
    make_optimizer = config.optim.build()
    make_scheduler = config.scheduler.build(**_schedule(config, total_steps))

    def configure_optimizers() -> Any:
        optimizer = make_optimizer([p for p in module.parameters() if p.requires_grad])
        scheduler = make_scheduler(optimizer)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module.__dict__["configure_optimizers"] = configure_optimizers
