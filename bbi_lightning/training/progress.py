"""Progress of a run on stderr: a bar on a terminal, lines at growing intervals elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bbi_lightning.training.step_log import StepLog

_BAR_WIDTH = 16
_BAR_INTERVAL = 0.2  # seconds; a refresh at every step would cost 0.35 ms each
_FIRST_LINE, _LONGEST_INTERVAL = 5.0, 60.0  # seconds; the interval doubles in between


class _Display(Protocol):
    """Where progress goes."""

    interval: float

    def show(self, step: int, total: int, text: str) -> None: ...

    def close(self, text: str) -> None: ...


class Progress(Callback):
    """Shows steps done, rate, time left and the newest known losses. Never waits for a GPU.

    Args:
        step_log: knows the training loss.
        style: "bar", "lines", "none", or "auto" for a bar where stderr is a terminal.

    Attributes:
        total_steps: optimizer steps of the whole run, to be set before training starts.
    """

    def __init__(self, step_log: StepLog, style: Literal["auto", "bar", "lines", "none"] = "auto") -> None:
        self.total_steps = 0
        self.step_log = step_log
        self.style = ("bar" if sys.stderr.isatty() else "lines") if style == "auto" else style
        self._display: _Display | None = None
        self._started = self._next = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; only rank zero speaks."""
        if self.style == "none" or not trainer.is_global_zero:
            return
        self._display = _Bar() if self.style == "bar" else _Lines()
        self._first_step = trainer.global_step
        self._started = time.monotonic()
        self._next = self._started + self._display.interval

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Refresh if it is time."""
        if self._display is None or time.monotonic() < self._next:
            return
        self._display.show(trainer.global_step, self.total_steps, self._status(trainer))
        self._next = time.monotonic() + self._display.interval

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how it ended."""
        self._close(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal in order."""
        # not with the accuracy: reading it is a collective, and another rank may be what is missing
        self._close(trainer, metrics=False)

    def _close(self, trainer: pl.Trainer, *, metrics: bool = True) -> None:
        if self._display is not None:
            self._display.close(self._status(trainer, metrics=metrics))
            self._display = None

    def _status(self, trainer: pl.Trainer, *, metrics: bool = True) -> str:
        step = trainer.global_step
        elapsed = time.monotonic() - self._started
        rate = (step - self._first_step) / max(elapsed, 1e-9)
        parts = [
            f"step {step:,}/{self.total_steps:,}",
            f"epoch {trainer.current_epoch + (step < self.total_steps)}",
        ]
        parts.append(f"loss {self.step_log.last_loss:.4g}")
        accuracy = trainer.callback_metrics.get("val/acc") if metrics else None
        if accuracy is not None:
            parts.append(f"val acc {100 * float(accuracy):.2f} %")
        parts.append(f"{rate:.3g} steps/s")
        if rate > 0 and step < self.total_steps:
            parts.append(f"{_duration((self.total_steps - step) / rate)} left")
        else:
            parts.append(f"took {_duration(elapsed)}")
        return " · ".join(parts)


class _Lines:
    def __init__(self) -> None:
        self.interval = _FIRST_LINE

    def show(self, step: int, total: int, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        self.interval = min(2 * self.interval, _LONGEST_INTERVAL)

    def close(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Bar:
    interval = _BAR_INTERVAL

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        columns = (BarColumn(bar_width=_BAR_WIDTH), TextColumn("{task.description}"))
        self._bar = RichProgress(*columns, console=self._console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def show(self, step: int, total: int, text: str) -> None:
        text = text[: self._console.width - _BAR_WIDTH - 2]  # a narrow terminal cuts the text, not the bar
        self._bar.update(self._task, completed=step, total=total, description=text, refresh=True)

    def close(self, text: str) -> None:
        self._bar.stop()
        print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
