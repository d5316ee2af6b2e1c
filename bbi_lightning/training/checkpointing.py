"""When a run saves: now and then, where it is told to, at the end, and when something asks it to stop.

All ranks decide alike, from what the `Exchange` says that any of them wants, and only between two optimizer
steps. What a checkpoint is and how it gets to the disk is `bbi_lightning.checkpoints`' business.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.trainer.states import TrainerFn

from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
from bbi_lightning.checkpoints.store import Note
from bbi_lightning.training import interrupts
from bbi_lightning.training.exchange import Exchange, Wish
from bbi_lightning.training.interrupts import InterruptedRunError
from bbi_lightning.training.metric_logger import MetricLogger
from bbi_lightning.training.options import CheckpointOptions
from bbi_lightning.training.time_limit import TimeLimit
from bbi_lightning.training.watchdog import Watchdog

_LONGEST_FLUSH = 600.0  # seconds; a writer that hangs longer is given up


class RunCheckpoint(Checkpoint):
    """Saves, and stops the run when a signal or the time limit asks for it.

    Args:
        io: where checkpoints go.
        options: when to save and what to keep.
        exchange: what the ranks agree on.
        history: this rank's metric log, None on ranks that write none.
        time_limit: when this attempt must have left, None if nobody sets a limit.
        watchdog: to be told that the run is alive.

    State:
        best: the best value so far of `options.keep_best`, None before the first.
        history: how far the metric log had got, so that a resumed run goes on with the very next row.

    Raises:
        InterruptedRunError: out of the hooks of all ranks alike, after saving.
    """

    def __init__(
        self,
        io: StoreCheckpointIO,
        options: CheckpointOptions,
        exchange: Exchange,
        *,
        history: MetricLogger | None,
        time_limit: TimeLimit | None,
        watchdog: Watchdog,
    ) -> None:
        self.io = io
        self.options = options
        self.exchange = exchange
        self.history = history
        self.time_limit = time_limit
        self.watchdog = watchdog
        self.best: float | None = None
        self._improved = False
        self._validation_due = False
        self._leads = True
        self._saved_at = self._boundary_at = 0.0
        self._slowest_step = self._shards_seconds = 0.0
        self._saved_step = self._seen_step = self._validated_step = -1
        self._lag = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Speak for this rank."""
        self._leads = trainer.is_global_zero
        # on an accelerator the exchange tells what was wished a step ago: a save must not answer twice
        self._lag = 0 if trainer.strategy.root_device.type == "cpu" else 1
        self.exchange.wishes = self._wishes

    def _wishes(self) -> frozenset[Wish]:
        wishes = set()
        received = interrupts.received()
        if isinstance(received, signal.Signals):
            wishes.add(Wish[received.name])
        if self.time_limit is not None and self.time_limit.is_near(self._save_seconds(), self._slowest_step):
            wishes.add(Wish.TIME_LIMIT)
        if self._leads and (
            time.monotonic() - self._saved_at >= self.options.every or self.io.writer.wants_retry
        ):
            wishes.add(Wish.SAVE)
        return frozenset(wishes)

    def _save_seconds(self) -> float:
        return max(self.io.writer.blocked_seconds + self.io.writer.written_seconds, self._shards_seconds)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks, once it is clear that all ranks begin at the same step."""
        _compare_beginnings(trainer)
        # as rank zero sees the disk: ranks that disagreed about it would not save together
        if not trainer.strategy.broadcast(self._leads and self.io.writer.store.best() is not None):
            self.best = None  # that of another run, or lost: the next one counts
        self._saved_at = self._boundary_at = time.monotonic()
        self._seen_step = self._saved_step = trainer.global_step
        self.watchdog.reached_boundary()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save if it is time; not in the middle of an accumulation."""
        step = trainer.global_step
        if step == self._seen_step:
            return
        self._seen_step = step
        self._reach_boundary()
        if trainer.is_last_batch or trainer.should_stop:
            return  # the validation that follows, or the end of the epoch, sees to it
        agreed = self.exchange.agreed
        if step - self._saved_step <= self._lag:
            agreed -= {Wish.SAVE}
        self._answer(trainer, agreed, self._milestone(step))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time: a resumed run begins with this validation."""
        if self._is_in_training(trainer) and trainer.is_last_batch:
            self._answer(trainer, self.exchange.vote(trainer), validation_due=True)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Leave if something asks for it."""
        if not self._is_in_training(trainer):
            return
        self.watchdog.reached_boundary()
        stop = self.exchange.vote(trainer) - {Wish.SAVE}
        if stop and not trainer.is_last_batch:
            # stopped by a step limit within an epoch, where Lightning cannot resume a validation:
            # the checkpoint before serves
            self._leave(trainer, stop)
        self._answer(trainer, stop, validation_due=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notice whether this is the best model so far."""
        if not self._is_in_training(trainer):
            return
        _forget_the_first_try(trainer)
        value = self._watched(trainer)
        if value is None:
            return
        self._validated_step = trainer.global_step
        if not math.isfinite(value):
            return
        sign = -1 if str(self.options.keep_best).endswith("loss") else 1
        if self.best is None or sign * value > sign * self.best:
            self.best, self._improved = value, True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time; after the last epoch the final state is saved in a moment anyway."""
        if not trainer.fit_loop.done:
            reasons = [*self._milestone(trainer.global_step), *(["best"] if self._improved else [])]
            self._answer(trainer, self.exchange.vote(trainer), reasons)
        self._boundary_at = time.monotonic()  # validation is no step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the final state, whatever it says in the exchange."""
        if self.history is not None:
            self.history.write_row()  # as Lightning will: a run resumed for its test alone adds nothing to it
        reasons = [*self._milestone(trainer.global_step), *(["best"] if self._improved else [])]
        self._answer(trainer, self.exchange.vote(trainer) | {Wish.SAVE}, reasons)

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Leave if something asks for it: the weights are saved."""
        self.watchdog.reached_boundary()
        stop = self.exchange.vote(trainer) - {Wish.SAVE}
        if stop:
            self._leave(trainer, stop)

    def _answer(
        self,
        trainer: pl.Trainer,
        agreed: Iterable[Wish],
        reasons: Iterable[str] = (),
        *,
        validation_due: bool = False,
    ) -> None:
        """Save if there is a reason to, and leave if anybody must."""
        agreed, reasons = set(agreed), tuple(reasons)
        if agreed or reasons:
            self._validation_due = validation_due
            self.save(trainer, ("last", *reasons))
        if agreed - {Wish.SAVE}:
            self._leave(trainer, agreed - {Wish.SAVE})

    def _leave(self, trainer: pl.Trainer, stop: Iterable[Wish]) -> None:
        self.flush(trainer)
        first = min(stop)  # the same on all ranks
        cause = interrupts.TIME_LIMIT if first is Wish.TIME_LIMIT else signal.Signals[first.name]
        interrupts.heed(cause)
        raise InterruptedRunError(cause)

    def save(self, trainer: pl.Trainer, reasons: tuple[str, ...]) -> None:
        """Hand the whole state to the writer, after the rows that belong to it."""
        sharded = isinstance(trainer.strategy, ModelParallelStrategy)
        value = self._watched(trainer) if trainer.global_step == self._validated_step else None
        self.watchdog.extend(_LONGEST_FLUSH)  # the disk may be slow, and a save is why it does not leave
        if self.history is not None:
            self.history.log.sync()
        self.io.note = note = Note(
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            reasons=reasons,
            values={} if value is None else {str(self.options.keep_best): value},
            world_size=trainer.world_size,
            layout="sharded" if sharded else "whole",
        )
        if sharded:
            self._save_shards(trainer, note)
        else:
            trainer.save_checkpoint(self.io.writer.store.folder)
        self.watchdog.reached_boundary()
        self._improved = self._validation_due = False
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step
        self._slowest_step /= 2  # one slow step long ago is forgotten

    def _save_shards(self, trainer: pl.Trainer, note: Note) -> None:
        """Every rank writes its part, rank zero puts the seal on it; nothing is asynchronous here."""
        begun = time.monotonic()
        folder = trainer.strategy.broadcast(self._begin_shards() if self._leads else None)
        if folder is None:
            return
        try:
            trainer.save_checkpoint(folder)
        except Exception as error:  # of the disk or of the library, on all ranks alike
            if self._leads:
                self.io.writer.store.abandon(folder)
                self.io.writer.report(error)
        else:
            if self._leads:
                self.io.writer.commit(folder, note)
        trainer.strategy.barrier("committed")
        self._shards_seconds = time.monotonic() - begun

    def _begin_shards(self) -> Path | None:
        """A folder to write into; None if the disk refuses even that."""
        try:
            return self.io.writer.store.begin()
        except OSError as error:
            self.io.writer.report(error)
            return None

    def flush(self, trainer: pl.Trainer) -> bool:
        """Wait until all that was saved is on the disk, on every rank alike. Returns whether it is."""
        self.watchdog.extend(_LONGEST_FLUSH)
        safe = self.io.writer.flush() if self._leads else True
        trainer.strategy.barrier("flushed")
        return safe

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Where a validation must still be done, say so in Lightning's own terms."""
        if self._validation_due:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts, begun in (("total", 1), ("current", 0)):
                progress[counts] = {"ready": begun, "started": begun, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False
            training = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in ("total", "current"):
                training[counts]["completed"] = training[counts]["processed"]

    def state_dict(self) -> dict[str, Any]:
        """See the class."""
        return {"best": self.best, "history": None if self.history is None else self.history.state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the very next row."""
        self.best = state_dict["best"]
        if self.history is not None and state_dict["history"] is not None:
            self.history.restore(state_dict["history"])

    def _milestone(self, step: int) -> list[str]:
        return ["milestone"] if self.options.is_kept_for_good(step) else []

    def _watched(self, trainer: pl.Trainer) -> float | None:
        value = trainer.callback_metrics.get(self.options.keep_best or "")
        return None if value is None else float(value)

    def _is_in_training(self, trainer: pl.Trainer) -> bool:
        return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def _reach_boundary(self) -> None:
        now = time.monotonic()
        self._slowest_step = max(self._slowest_step, now - self._boundary_at)
        self._boundary_at = now
        self.watchdog.reached_boundary()


def _compare_beginnings(trainer: pl.Trainer) -> None:
    """Raise on all ranks if one has found another checkpoint than the others, say on a disk of its own."""
    if trainer.world_size == 1:
        return
    steps: list[int] = [0] * trainer.world_size
    dist.all_gather_object(steps, trainer.global_step)
    if len(set(steps)) > 1:
        raise RuntimeError(
            f"the processes begin after different steps ({', '.join(map(str, steps))}), so they do not see "
            "the same checkpoints: put runtime.root on a disk that all nodes share, and start again"
        )


def _forget_the_first_try(trainer: pl.Trainer) -> None:
    """A validation that a resumed run has made up for is counted once, as if it had not been begun before."""
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    for name in ("ready", "started", "processed", "completed"):
        setattr(progress.total, name, getattr(progress.current, name))


def is_validation_due(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's contents were saved between the last step of an epoch and its validation."""
    progress = state["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]
    return bool(progress["started"] > progress["processed"])


def restore_progress(trainer: pl.Trainer, state: Mapping[str, Any]) -> None:
    """Tell a trainer that will only test how many steps and epochs its weights have been trained for."""
    trainer.fit_loop.load_state_dict(state["loops"]["fit_loop"])


def opened(checkpoint: Path) -> dict[str, Any]:
    """What is in a checkpoint's `state.pt`; tensors are read when they are used."""
    contents: dict[str, Any] = torch.load(
        checkpoint / "state.pt", map_location="cpu", weights_only=True, mmap=True
    )
    return contents
