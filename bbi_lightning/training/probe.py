"""Measures what a run costs by training a few of its steps: nothing of it is kept."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.tracking.metric_log import MetricLog
from bbi_lightning.training.building import Lifelines, Parts, build, callbacks_of
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import checked, try_out
from bbi_lightning.training.metric_logger import MetricLogger
from bbi_lightning.training.options import CheckpointOptions, TrainerOptions
from bbi_lightning.training.step_log import DivergedError
from bbi_lightning.training.watchdog import Watchdog

log = logging.getLogger(__name__)

_WARM_UP = 3  # steps that do not count: allocations, caches, kernels that are chosen
_AT_LEAST = 0.5  # seconds to time: steps of a millisecond are many then
_PARTS = 4  # of the steps, each with a time of its own: the median is not misled by one that was disturbed

Report = Callable[[Mapping[str, Any]], None]


class Stopwatch(Callback):
    """Times optimizer steps and validations, and stops training after enough of the steps.

    Args:
        steps: how many, ≥ 1, beside the first few; more, where they take no time to speak of.
        seconds: or after so long, > 0.
    """

    def __init__(self, steps: int, seconds: float) -> None:
        self._steps = steps
        self._seconds = seconds
        self._started = self._mark = math.nan
        self._counted = -1
        self.pieces: list[tuple[int, float]] = []
        self.validation_s = math.nan

    @property
    def step_s(self) -> float:
        """Seconds of an optimizer step, waiting for data included; NaN before there is one."""
        each = sorted(seconds / steps for steps, seconds in self.pieces)
        return each[len(each) // 2] if each else math.nan

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = self._mark = _now(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time now and then; stop when it is enough."""
        step = trainer.global_step
        if self._counted < 0:
            if step >= _WARM_UP or self._is_late():
                self._counted, self._mark = step, _now(pl_module)
            return
        piece = max(1, self._steps // _PARTS)
        if step - self._counted >= piece:
            now = _now(pl_module)
            self.pieces.append((step - self._counted, now - self._mark))
            self._counted, self._mark = step, now
        steps = sum(steps for steps, _ in self.pieces)
        enough = steps >= self._steps and sum(seconds for _, seconds in self.pieces) >= _AT_LEAST
        if self.pieces and (enough or self._is_late()):
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation is timed by itself."""
        if 0 <= self._counted < trainer.global_step:
            self.pieces.append((trainer.global_step - self._counted, _now(pl_module) - self._mark))
        self._began = _now(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes on, or ends."""
        self._mark = _now(pl_module)
        self._counted = trainer.global_step if self._counted >= 0 else -1
        self.validation_s = self._mark - self._began

    def _is_late(self) -> bool:
        return time.perf_counter() - self._started > self._seconds


def probe(config: DictConfig, root: Path, steps: int, seconds: float, report: Report) -> None:
    """Train some steps of a run in the folder `root`, validate and test once, and report what that took.

    Reported, as it becomes known: `setup_s` (before the first step), `total_steps` and `step_s`,
    `validations` of the whole run and `validation_s` of one, `test_s`, `checkpoint_bytes` and how many
    `checkpoints` are kept, `log_bytes` of the whole run's metrics; and on a GPU `gpu_bytes`, the most that
    torch reserved, and `gpu_total_bytes`, what there is.

    Args:
        config: a composed training config.
        root: an empty folder.
        steps: optimizer steps to time, ≥ 1.
        seconds: of training after which fewer steps must do.
        report: told the figures.

    Raises:
        ConfigError: a mistake in the config, or a run of several processes.
    """
    began = time.perf_counter()
    root.mkdir(parents=True, exist_ok=True)
    config = config.copy()
    config.runtime.root, config.runtime.progress, config.tracking.mode = str(root), "none", "none"
    parsed = checked(config)
    if parsed.runtime.build().world_size > 1:
        raise ConfigError("a run of several processes cannot be measured by one: its hours are not known")
    data = try_out(parsed)
    checkpoint: CheckpointOptions = parsed.checkpoint.build()
    store = CheckpointStore(root / "checkpoints", "probe", keep_last=1)
    rows = MetricLog(root / "metrics.jsonl")
    watch = Stopwatch(steps, seconds)
    writer = CheckpointWriter(store, on_trouble=log.warning)
    with contextlib.closing(writer), contextlib.closing(rows), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself will say it
        lifelines = Lifelines(StoreCheckpointIO(writer), None, Watchdog(120.0, log.warning), None)
        parts = build(parsed, data, lifelines, lambda parameters: [MetricLogger(rows)])
        callbacks_of(parts.trainer).insert(0, watch)
        report({"setup_s": time.perf_counter() - began, "total_steps": parts.total_steps})
        with contextlib.suppress(DivergedError):  # a step costs the same
            parts.trainer.fit(parts.module, parts.train_loader, parts.val_loader)
        report(_costs(parts, watch, parsed.trainer.build()))
        _test(parts, data, report)
        writer.flush()
    kept = checkpoint.keep_last + len(checkpoint.milestones) + (checkpoint.keep_best is not None)
    if checkpoint.keep_every is not None:
        kept += parts.total_steps // checkpoint.keep_every
    sizes = [sum(f.stat().st_size for f in c.path.rglob("*") if f.is_file()) for c in store.checkpoints()]
    trained = max(1, parts.trainer.global_step)
    device = parts.module.device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        report({"gpu_bytes": torch.cuda.max_memory_reserved(device), "gpu_total_bytes": total})
    report(
        {
            "checkpoints": kept,
            "checkpoint_bytes": max(sizes, default=0),
            "log_bytes": (root / "metrics.jsonl").stat().st_size * parts.total_steps / trained,
        }
    )


def _costs(parts: Parts, watch: Stopwatch, options: TrainerOptions) -> dict[str, float]:
    step_s = watch.step_s
    if math.isnan(step_s):  # the whole run is shorter than the warm-up
        step_s = 0.0
    per_epoch = max(1, math.ceil(len(parts.train_loader) / options.accumulate_grad_batches))
    epochs = math.ceil(parts.total_steps / per_epoch)
    costs = {"step_s": step_s, "validations": 0.0, "validation_s": 0.0}
    if parts.val_loader is not None and not math.isnan(watch.validation_s):
        costs["validations"] = max(1, epochs // options.check_val_every_n_epoch)
        costs["validation_s"] = watch.validation_s
    return costs


def _test(parts: Parts, data: ImageDataModule, report: Report) -> None:
    began = time.perf_counter()
    data.setup("test")
    parts.trainer.test(parts.module, data.test_dataloader(), verbose=False)
    data.teardown("fit")
    report({"test_s": time.perf_counter() - began})


def _now(module: pl.LightningModule) -> float:
    """The time, once a GPU has done what it was told."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()
