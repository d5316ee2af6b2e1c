"""Put another run's weights, and its optimizer's state if that is wanted, into a new run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.optim import Optimizer

from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.start import Start, verified


def begin_with(module: nn.Module, start: Start) -> list[Callback]:
    """Load the weights; return what will load the rest when training starts.

    Args:
        module: the LightningModule, not yet sharded.
        start: from which checkpoint, and what of it.

    Raises:
        ConfigError: the checkpoint is damaged, or the weights do not fit the model.
    """
    from bbi_lightning.checkpoints.shard_files import read_whole  # dear to load, and seldom used

    state = read_whole(verified(start), optimizers=start.take != "weights")
    _load_weights(module, state["state_dict"], start)
    return [] if start.take == "weights" else [_OptimizerStart(state["optimizer_states"], start)]


def _load_weights(module: nn.Module, weights: Mapping[str, Any], start: Start) -> None:
    own = module.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own or weights[name].shape != own[name].shape:
            shapes = [str(tuple(w[name].shape)) if name in w else "absent" for w in (weights, own)]
            raise ConfigError(
                f"start.checkpoint={start.checkpoint} does not fit the model: {name} is {shapes[0]} there "
                f"and {shapes[1]} here; choose the model of run {start.manifest.run}"
            )
    module.load_state_dict(weights)


class _OptimizerStart(Callback):
    """Gives the optimizer the saved momenta and energy as training starts; its settings stay the config's."""

    def __init__(self, states: Sequence[Mapping[str, Any]], start: Start) -> None:
        self.states = states
        self.start = start

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once: a run that is resumed has its own state."""
        if trainer.global_step == 0:
            for optimizer, state in zip(trainer.optimizers, self._divided(trainer), strict=True):
                self._load(optimizer, dict(state))

    def _divided(self, trainer: pl.Trainer) -> Sequence[Mapping[str, Any]]:
        """The states as the strategy shares them out."""
        if isinstance(trainer.strategy, ModelParallelStrategy):
            from bbi_lightning.training.sharding import ShardedStrategy  # seldom used

            if isinstance(trainer.strategy, ShardedStrategy):
                return trainer.strategy.divided(self.states)
        return self.states

    def _load(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        settings = [{name: group[name] for name in optimizer.defaults} for group in optimizer.param_groups]
        try:
            if _keys_of_groups(state) != _keys_of_groups(optimizer.state_dict()):
                raise ValueError("it was saved by another kind of optimizer")
            optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"start.take={self.start.take}: {type(optimizer).__name__} cannot go on from the optimizer "
                f"of run {self.start.manifest.run} ({error}): use start.take=weights"
            ) from error
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)


def _keys_of_groups(state: Mapping[str, Any]) -> list[set[str]]:
    return [set(group) for group in state["param_groups"]]
