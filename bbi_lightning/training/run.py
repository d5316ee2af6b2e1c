"""The life of a run: found finished, or trained from where it stands, tested, and its end written down."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.distributed import DistError

from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
from bbi_lightning.checkpoints.store import Checkpoint, CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.metric_log import MetricLog, read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_logger import (
    FINISH_TIMEOUT,
    WandbTracking,
    build_wandb_logger,
    finish_wandb,
)
from bbi_lightning.training import interrupts
from bbi_lightning.training.building import Lifelines, Parts, build
from bbi_lightning.training.checkpointing import opened, restore_progress
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import TrainingConfig, checked, plain, run_name, try_out
from bbi_lightning.training.interrupts import InterruptedRunError
from bbi_lightning.training.metric_logger import MetricLogger
from bbi_lightning.training.options import RuntimeOptions
from bbi_lightning.training.start import Start, verified
from bbi_lightning.training.step_log import DivergedError
from bbi_lightning.training.time_limit import TimeLimit
from bbi_lightning.training.watchdog import Watchdog

log = logging.getLogger(__name__)

_LONGEST_END = 600.0  # seconds to write the last checkpoint and to let W&B finish

_NOT_NEWS = (
    ".*GPU available but not used.*",  # accelerator=cpu was asked for
    ".*Using `DistributedSampler` with the dataloaders.*",  # we do not
    ".*does not have many workers.*",
    ".*have no `val_dataloader`.*",  # data.val_size=0 was asked for
    ".*`srun` command is available.*",  # `launching` knows who starts the processes
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
)


class LostRankError(RuntimeError):
    """Another rank has vanished; the run can go on when it is started again."""


def train(
    config: DictConfig,
    *,
    labels: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    folder: RunFolder | None = None,
    fresh: bool = False,
) -> RunFolder:
    """Train the run that this config is, or go on with it; a run that has a result is returned at once.

    The run ends in one of these states: finished (tested once, on the last weights), diverged (the loss
    stayed non-finite), interrupted (a signal or the time limit asked; its state is saved), failed (the
    exception goes on).

    Args:
        config: a composed training config.
        labels: plain JSON to find the run by, beside `runtime.labels`.
        overrides: the command line that made the config, for the record.
        folder: the run's folder if it is there already, wherever that is; else its name is its identity.
        fresh: begin anew, and set aside what there is.

    Raises:
        ConfigError: a mistake in the config; nothing has been trained.
        RunBusyError: another process is training this run.
        ForeignCheckpointError: the folder holds another run's checkpoints.
        LostRankError: another rank has vanished.
    """
    parsed = checked(config)
    runtime: RuntimeOptions = parsed.runtime.try_build()
    folder = folder or RunFolder(Path(runtime.root) / run_name(config))
    if folder.exists and not fresh and folder.record.is_result:
        _say(runtime, f"run {folder.name} has {folder.record.state} already: {folder.path}")
        return folder
    with interrupts.listening(), quiet_lightning():
        has_begun = not fresh and bool(CheckpointStore(folder.checkpoints, folder.name).checkpoints())
        # what it once began from may be gone by now
        data = try_out(dataclasses.replace(parsed, start=None) if has_begun else parsed)
        if is_rank_zero():
            replaced = folder.set_aside() if fresh else None
            if replaced is not None:
                _say(runtime, f"beginning anew; what there was is in {replaced}")
            RunFolder.create(
                folder.path,
                config=OmegaConf.to_yaml(config, resolve=True),
                labels={**runtime.labels, **(labels or {})},
                overrides=overrides,
                origin=None if has_begun else _origin(parsed),
            )
            folder.acquire()  # before looking what is saved: whoever trains it now may save once more
        try:
            TrainingAttempt(folder, parsed, plain(config), fresh=fresh).go(data)
        finally:
            folder.release()
    return folder


def exit_if_interrupted(folder: RunFolder) -> None:
    """Leave with the exit code that says why, if this process's attempt was interrupted."""
    cause = interrupts.received()
    if cause is not None and not folder.record.is_result:
        sys.exit(interrupts.exit_code(cause))


def _origin(config: TrainingConfig) -> dict[str, Any] | None:
    if config.start is None:
        return None
    start: Start = config.start.build()
    manifest = start.manifest
    return {"run": manifest.run, "step": manifest.step, "take": start.take}


class TrainingAttempt:
    """One process's work on a run."""

    def __init__(
        self, folder: RunFolder, config: TrainingConfig, values: Mapping[str, Any], *, fresh: bool
    ) -> None:
        self.folder = folder
        self.config = config
        self.values = values
        self.fresh = fresh
        self.runtime: RuntimeOptions = config.runtime.build()
        self.leads = is_rank_zero()
        # where rank zero begins anew, the others do not look: they may see the folder before or after
        renamed = not fresh and folder.exists
        self.store = CheckpointStore(
            folder.checkpoints,
            folder.record.name if renamed else folder.name,
            keep_last=config.checkpoint.build().keep_last,
        )
        self.from_step = 0
        self.log: MetricLog | None = None
        self.wandb: WandbLogger | None = None
        self.facts: dict[str, Any] = {}
        self.started = time.monotonic()
        self._ending = threading.Lock()  # taken for good by whoever writes how it ended: us or the watchdog

    def go(self, data: ImageDataModule) -> None:
        """Do it, and write down how it ended."""
        begin_at = self._begin_at(None if self.fresh else self._newest())
        watchdog = Watchdog(self.runtime.stop_within, self._interrupted, self._lost)
        if self.leads:
            self.folder.begin_attempt(from_step=self.from_step)
        watchdog.start()
        try:
            self._work(data, watchdog, begin_at)
        except DivergedError:
            self._end("diverged", "the loss stayed non-finite")
        except InterruptedRunError as error:
            self._end("interrupted", error.cause.name)
        except (KeyboardInterrupt, SystemExit) as error:
            cause = interrupts.received()
            self._end("interrupted", cause.name if cause else type(error).__name__)
            if cause is None:
                raise
        except BaseException as error:
            lost = watchdog.lost_rank() if _is_of_a_collective(error) else None
            self._end("failed", lost or type(error).__name__, error)
            if lost is None:
                raise
            raise LostRankError(f"{lost}: start the run again to go on from its newest checkpoint") from error
        else:
            self._end("finished", "trained to the end")
        finally:
            watchdog.stop()

    def _work(self, data: ImageDataModule, watchdog: Watchdog, begin_at: Path | None) -> None:
        """Train and test; return, or raise, when nothing is written any more: then the run may be let go."""
        writer = CheckpointWriter(self.store, on_trouble=log.warning)
        with contextlib.closing(writer):
            limit = TimeLimit.known(self.runtime.max_time)
            if limit is not None and self.config.tracking.build().mode == "online":
                limit = limit.keeping(FINISH_TIMEOUT)
            self._train_and_test(data, Lifelines(StoreCheckpointIO(writer), limit, watchdog, begin_at))
            if self.leads and not writer.flush():
                raise OSError(f"the final checkpoint could not be written to {self.store.folder}")

    def _newest(self) -> Checkpoint | None:
        """This run's newest valid checkpoint."""
        checkpoint, passed_over = self.store.newest_valid()
        for sentence in passed_over if self.leads else ():
            log.warning(sentence)
        return checkpoint

    def _begin_at(self, checkpoint: Checkpoint | None) -> Path | None:
        """The checkpoint to go on from as if never stopped, if any; says so."""
        if checkpoint is not None:
            self.from_step = checkpoint.manifest.step
            _say(self.runtime, f"resuming {self.folder.name} after step {self.from_step:,}")
            before, now = checkpoint.manifest.world_size, self.runtime.world_size
            if before != now:
                _say(
                    self.runtime,
                    f"the layout changed from {before} to {now} processes: the same physics up to rounding, "
                    "new random streams for dropout and the like",
                )
            return checkpoint.path
        start: Start | None = None if self.config.start is None else self.config.start.try_build()
        if start is None or start.take != "everything":
            return None
        self.from_step = start.manifest.step
        _say(self.runtime, f"going on with {start.manifest.run} after step {self.from_step:,}")
        begin_at = verified(start)
        if self.leads and not self.folder.metrics_file.exists():
            rows = RunFolder(begin_at.parents[1]).metrics_file.read_bytes()
            write_atomically(self.folder.metrics_file, rows)
        return begin_at

    def _train_and_test(self, data: ImageDataModule, lifelines: Lifelines) -> None:
        parts = build(self.config, data, lifelines, self._loggers)
        begin_at = lifelines.begin_at
        complete = begin_at is not None and parts.is_complete(opened(begin_at))  # only the test is missing
        try:
            if begin_at is not None and complete:
                state = opened(begin_at)
                restore_progress(parts.trainer, state)
                parts.checkpointing.load_state_dict(state["callbacks"][parts.checkpointing.state_key])
            else:
                self._fit(parts, begin_at)
            data.setup("test")
            weights = begin_at if complete else None
            parts.trainer.test(parts.module, data.test_dataloader(), ckpt_path=weights, verbose=False)
        finally:
            lifelines.watchdog.leaving(_LONGEST_END)
            data.teardown("fit")

    def _fit(self, parts: Parts, begin_at: Path | None) -> None:
        try:
            parts.trainer.fit(parts.module, parts.train_loader, parts.val_loader, ckpt_path=begin_at)
        finally:
            self.facts["steps"] = parts.trainer.global_step

    def _loggers(self, parameters: int) -> list[Logger]:
        """Where metrics go: the run's own log, and W&B. Other ranks write nothing."""
        self.facts |= {"parameters": parameters, "steps": self.from_step}
        if not self.leads:
            return []
        tracking: WandbTracking = self.config.tracking.build()
        try:
            self.wandb = build_wandb_logger(
                tracking,
                self.folder,
                self.values,
                parameters=parameters,
                group=self.runtime.group,
                clock=lambda: self.log.seconds if self.log is not None else 0.0,
            )
        except (ConnectionError, PermissionError) as error:
            raise ConfigError(str(error)) from error
        self.log = MetricLog(self.folder.metrics_file)
        own = MetricLogger(self.log)
        if not self.from_step:
            own.restore(None)  # else the checkpoint knows how far its rows went
        return [own] if self.wandb is None else [own, self.wandb]

    def _interrupted(self, reason: str) -> None:
        """The watchdog ends this process in a moment: leave an honest record."""
        self._end("interrupted", reason)

    def _lost(self, reason: str) -> None:
        """The same, because another rank has vanished."""
        self._end("failed", reason)

    def _end(self, state: str, reason: str, error: BaseException | None = None) -> None:
        """Write state and summary: the last value of every metric, and the run's size."""
        if not self.leads or not self._ending.acquire(blocking=False):
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
        try:
            self.folder.end_attempt(state, reason, summary, error)
        except OSError as trouble:
            if state == "finished":
                raise
            # what ends the run is worth more than its note: it decides the exit code
            log.warning(f"{self.folder.record_file} does not say that the run is {state} ({trouble})")
        finish_wandb(self.wandb, summary, state=state, checkpoints=self._for_wandb(state))

    def _for_wandb(self, state: str) -> dict[str, Path]:
        """The checkpoints that W&B is to have, by alias; of a run with a result only, others go on."""
        tracking: WandbTracking = self.config.tracking.build()
        if self.wandb is None or state not in ("finished", "diverged") or not tracking.artifact_aliases:
            return {}
        try:
            found = {"best": self.store.best(), "last": self.store.newest_valid()[0]}
        except (OSError, ValueError) as trouble:  # the run is complete without
            log.warning(f"W&B gets no checkpoint of {self.folder.name} ({trouble})")
            return {}
        return {alias: there.path for alias in tracking.artifact_aliases if (there := found[alias])}


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks; known before the ranks have met."""
    # Lightning takes the first process of every node for it until then
    on_first_node = int(os.environ.get("NODE_RANK", 0)) == 0
    return on_first_node and rank_zero_only.rank == 0  # type: ignore[attr-defined]  # kept on the function


def _is_of_a_collective(error: BaseException) -> bool:
    """Whether it is another rank that is missed, and not a mistake that all ranks make alike."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _say(runtime: RuntimeOptions, message: str) -> None:
    if runtime.progress != "none" and is_rank_zero():
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
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
