"""The life of a run: found finished, or trained from where it stands, tested, and its end written down."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.tracking.metric_log import MetricLog, read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_logger import WandbTracking, build_wandb_logger, finish_wandb
from bbi_lightning.training import interrupts
from bbi_lightning.training.building import Parts, build
from bbi_lightning.training.checkpointing import restore_progress, steps_of
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import TrainingConfig, checked, compose, plain, run_name, try_out
from bbi_lightning.training.interrupts import InterruptedRunError
from bbi_lightning.training.metric_logger import MetricLogger
from bbi_lightning.training.options import RuntimeOptions
from bbi_lightning.training.step_log import DivergedError

CHECKPOINT = "last.ckpt"
"""The file in a run's `checkpoints/` from which it resumes."""

_NOT_NEWS = (
    ".*GPU available but not used.*",  # accelerator=cpu was asked for
    ".*Using `DistributedSampler` with the dataloaders.*",  # we do not
    ".*does not have many workers.*",
    ".*have no `val_dataloader`.*",  # data.val_size=0 was asked for
    ".*was called before the ``update`` method.*",
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
)


def train(
    config: DictConfig, *, labels: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> RunFolder:
    """Train the run that this config is, or go on with it; a run that has a result is returned at once.

    The run ends in one of these states: finished (tested once, on the last weights), diverged (the loss
    stayed non-finite), interrupted (a signal asked; its state is saved), failed (the exception goes on).

    Args:
        config: a composed training config.
        labels: plain JSON to find the run by, beside `runtime.labels`.
        overrides: the command line that made the config, for the record.

    Raises:
        ConfigError: a mistake in the config; nothing has been trained.
        RunBusyError: another process is training this run.
    """
    parsed = checked(config)
    runtime: RuntimeOptions = parsed.runtime.try_build()
    folder = RunFolder(Path(runtime.root) / run_name(config))
    if folder.exists and folder.record.is_result:
        _say(runtime, f"run {folder.name} has {folder.record.state} already: {folder.path}")
        return folder
    with interrupts.listening(), _quiet_lightning():
        data = try_out(parsed)
        if is_rank_zero():
            RunFolder.create(
                folder.path,
                config=OmegaConf.to_yaml(config, resolve=True),
                labels={**runtime.labels, **(labels or {})},
                overrides=overrides,
            )
        _Attempt(folder, parsed, plain(config)).go(data)
    return folder


def train_overrides(overrides: list[str], labels: Mapping[str, Any]) -> None:
    """Compose and train, for a process of its own: exits with 128 + the signal's number when interrupted."""
    with interrupts.listening():
        folder = train(compose(overrides), labels=labels, overrides=overrides)
        cause = interrupts.received()
        if folder.record.state == "interrupted" and cause is not None:
            sys.exit(interrupts.exit_code(cause))


class _Attempt:
    """One process's work on a run."""

    def __init__(self, folder: RunFolder, config: TrainingConfig, values: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.values = values
        self.runtime: RuntimeOptions = config.runtime.build()
        self.leads = is_rank_zero()
        self.checkpoint = folder.checkpoints / CHECKPOINT
        self.from_step = 0
        self.log: MetricLog | None = None
        self.wandb: WandbLogger | None = None
        self.facts: dict[str, Any] = {}
        self.started = time.monotonic()

    def go(self, data: ImageDataModule) -> None:
        """Do it, and write down how it ended."""
        if self.checkpoint.is_file():
            self.from_step = steps_of(self.checkpoint)
            _say(self.runtime, f"resuming {self.folder.name} after step {self.from_step:,}")
        if self.leads:
            self.folder.begin_attempt(from_step=self.from_step)
        try:
            self._train_and_test(data)
        except DivergedError:
            self._end("diverged", "the loss stayed non-finite")
        except InterruptedRunError as error:
            self._end("interrupted", error.cause.name)
        except (KeyboardInterrupt, SystemExit, SIGTERMException) as error:
            cause = interrupts.received()
            self._end("interrupted", cause.name if cause else type(error).__name__)
            if cause is None:
                raise
        except BaseException as error:
            self._end("failed", type(error).__name__, error)
            raise
        else:
            self._end("finished", "trained to the end")

    def _train_and_test(self, data: ImageDataModule) -> None:
        parts = build(self.config, data, self.checkpoint, self._loggers)
        complete = self.from_step >= parts.total_steps  # then only the test is missing
        try:
            if complete:
                restore_progress(parts.trainer, self.checkpoint)
            else:
                self._fit(parts)
            data.setup("test")
            weights = self.checkpoint if complete else None
            parts.trainer.test(parts.module, data.test_dataloader(), ckpt_path=weights, verbose=False)
        finally:
            data.teardown("fit")

    def _fit(self, parts: Parts) -> None:
        try:
            parts.trainer.fit(
                parts.module,
                parts.train_loader,
                parts.val_loader,
                ckpt_path=self.checkpoint if self.from_step else None,
            )
        finally:
            self.facts["steps"] = parts.trainer.global_step

    def _loggers(self, parameters: int) -> list[Logger]:
        """Where metrics go: the run's own log, and W&B. Other ranks write nothing."""
        self.facts |= {"parameters": parameters, "steps": self.from_step}
        tracking: WandbTracking = self.config.tracking.build()
        try:
            self.wandb = build_wandb_logger(
                tracking, self.folder, self.values, parameters=parameters, group=self.runtime.group
            )
        except (ConnectionError, PermissionError) as error:
            raise ConfigError(str(error)) from error
        if not self.leads:
            return []
        self.log = MetricLog(self.folder.metrics_file)
        self.log.cut_back(self.from_step)
        own = MetricLogger(self.log)
        return [own] if self.wandb is None else [own, self.wandb]

    def _end(self, state: str, reason: str, error: BaseException | None = None) -> None:
        """Write state and summary: the last value of every metric, and the run's size."""
        if not self.leads:
            return
        if self.log is not None:
            self.log.close()
        summary: dict[str, Any] = {}
        seconds_before = 0.0
        for row in read_metrics(self.folder.metrics_file):
            if row["step"] <= self.from_step:
                seconds_before = row["time"]
            summary |= {key: value for key, value in row.items() if "/" in key}
        wall = seconds_before + time.monotonic() - self.started
        summary |= {**self.facts, "wall_s": round(wall, 3)}
        self.folder.end_attempt(state, reason, summary, error)
        finish_wandb(self.wandb, summary, state=state)


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning keeps it on the function


def _say(runtime: RuntimeOptions, message: str) -> None:
    if runtime.progress != "none" and is_rank_zero():
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's greetings and those of its warnings that are no news here."""
    logs = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [log.level for log in logs]
    with warnings.catch_warnings():
        for message in _NOT_NEWS:
            warnings.filterwarnings("ignore", message)
        for log in logs:
            log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
