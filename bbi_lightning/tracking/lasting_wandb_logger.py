"""Lightning's W&B logger, made to outlast W&B: training goes on when W&B's helper process does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only


class LastingWandbLogger(WandbLogger):
    """As `WandbLogger`, but the first row that W&B cannot take is a warning, and later rows are left out.

    `metrics.jsonl` has them all: nothing of the run is lost. Every row also says how many samples and seconds
    of training it comes after, so that charts can stand against them.

    Args:
        samples_a_step: training samples of one optimizer step, for the column `samples`; None leaves it out.
        clock: seconds of training so far, for the column `time`; None leaves it out.
        of_wandb_logger: Lightning's own arguments.
    """

    lost = False

    def __init__(
        self,
        *,
        samples_a_step: int | None = None,
        clock: Callable[[], float] | None = None,
        **of_wandb_logger: Any,
    ) -> None:
        super().__init__(**of_wandb_logger)
        self.samples_a_step = samples_a_step
        self.clock = clock

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send a row, unless W&B has gone."""
        if self.lost:
            return
        try:
            super().log_metrics({**metrics, **self._axes(step)}, step)
        except Exception as error:  # a helper that is gone shows itself in many ways
            self.lost = True
            said = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(
                f"W&B takes no more rows after step {step} ({said}): training goes on, metrics.jsonl has all",
                stacklevel=2,
            )

    def _axes(self, step: int | None) -> dict[str, float]:
        axes: dict[str, float] = {}
        if self.samples_a_step is not None and step is not None:
            axes["samples"] = step * self.samples_a_step
        if self.clock is not None:
            axes["time"] = round(self.clock(), 6)
        return axes
