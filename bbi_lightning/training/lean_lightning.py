"""What Lightning spends on every step for things that are switched off or known here, taken back.

On 26k parameters a step of a plain loop takes about a millisecond, and Lightning's own work 0.4 ms. Of that,
0.04 ms are some sixty generator-based contexts of a profiler that does nothing, 0.04 ms some forty writes of
one string through `nn.Module.__setattr__`, which looks whether it might be a parameter, and 0.04 ms a look at
the signature of `training_step`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.profilers import PassThroughProfiler

_NOTHING: AbstractContextManager[None] = nullcontext()  # it has no state: one serves all


class NoProfiler(PassThroughProfiler):
    """As Lightning's default, which measures nothing, at a fifth of its cost."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """A context in which nothing happens."""
        return _NOTHING


def without_signature_search(trainer: pl.Trainer) -> None:
    """Spare the look, before every batch, whether `training_step` wants the batch's number: ours does."""

    def arguments(kwargs: dict[str, Any], batch: Any, batch_idx: int) -> dict[str, Any]:
        return {**kwargs, "batch": batch, "batch_idx": batch_idx}

    trainer.fit_loop.epoch_loop._build_kwargs = arguments  # type: ignore[method-assign,assignment]


class LeanModule(pl.LightningModule):
    """A LightningModule that lets Lightning note the name of the running hook without a search."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)  # a string, where Module.__setattr__ would put it too
        else:
            super().__setattr__(name, value)
