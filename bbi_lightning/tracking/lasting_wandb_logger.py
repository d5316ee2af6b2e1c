"""Lightning's W&B logger, made to outlast W&B: training goes on when W&B's helper process does not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only


class LastingWandbLogger(WandbLogger):
    """As `WandbLogger`, but the first row that W&B cannot take is a warning, and later rows are left out.

    `metrics.jsonl` has them all: nothing of the run is lost.
    """

    lost = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send a row, unless W&B has gone."""
        if self.lost:
            return
        try:
            super().log_metrics(metrics, step)
        except Exception as error:  # a helper that is gone shows itself in many ways
            self.lost = True
            said = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(
                f"W&B takes no more rows after step {step} ({said}): training goes on, metrics.jsonl has all",
                stacklevel=2,
            )
