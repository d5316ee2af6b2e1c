"""Checks very many points of one setting: composed once, and only what a point changes is tried out again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from bbi_lightning.training.components import Component, parse
from bbi_lightning.training.composition import compose, plain
from bbi_lightning.training.config import (
    ADDED_BY_TRAINING,
    TrainingConfig,
    checked,
    refuse_contradictions,
    try_model,
    try_out,
)
from bbi_lightning.training.config_files import groups


class PointCheck:
    """Says whether points of a search can be trained: as `validate` would, in a few milliseconds each.

    A point is composed and validated in full when it is the first with its keys and its choices of groups,
    when it changes the data, and when the short way finds a fault: the sentence is then the one that the
    trial itself would end with.

    Args:
        overrides: what all points share.

    Example:
        >>> PointCheck(["optim=sgd"]).check({"optim.lr": 0.1}, ["optim.lr=0.1"])
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self._overrides = list(overrides)
        self._groups = groups()
        self._configs: dict[str, DictConfig] = {}
        self._data: dict[str, dict[str, Any]] = {}  # text of data and start → what a model must know of it
        self._tried: dict[tuple[str, str], Component] = {}

    def check(self, params: Mapping[str, Any], overrides: Sequence[str]) -> None:
        """Check one point.

        Args:
            params: config key to value.
            overrides: the same, as a command line writes it.

        Raises:
            ConfigError: it cannot be trained; one sentence.
        """
        choices = {key: value for key, value in params.items() if key in self._groups}
        kind = json.dumps([sorted(params), choices], default=str)
        config = self._configs.get(kind)
        leaves = {key: value for key, value in params.items() if key not in choices}
        if config is None or not self._is_right(config, leaves):
            config = self._in_full(overrides)
            OmegaConf.set_struct(config, False)
            self._configs[kind] = config

    def _in_full(self, overrides: Sequence[str]) -> DictConfig:
        config = compose([*self._overrides, *overrides])
        data = try_out(checked(config))
        shape = {"image_shape": data.image_shape, "num_classes": data.num_classes}
        self._data[_given(plain(config))] = shape
        return config

    def _is_right(self, config: DictConfig, leaves: Mapping[str, Any]) -> bool:
        """Whether the point is certainly right; False: look closely."""
        try:
            for key, value in leaves.items():
                OmegaConf.update(config, key, value)
            values = plain(config)
            shape = self._data.get(_given(values))
            if shape is None:
                return False
            parts = {key: self._part(key, values[key], shape) for key in ADDED_BY_TRAINING}
            whole = TrainingConfig(seed=values["seed"], **parts)
            refuse_contradictions(whole, whole.trainer.build(), whole.runtime.build())
            return True
        except Exception:  # whatever it is: the long way says it in words
            return False

    def _part(self, key: str, value: Any, shape: Mapping[str, Any]) -> Component:
        """A component that has been tried out by itself."""
        name = (key, json.dumps(value, default=str))
        part = self._tried.get(name)
        if part is None:
            part = parse(value, key, ADDED_BY_TRAINING[key])
            _try_out(part, shape)
            self._tried[name] = part
        return part


def _try_out(part: Component, shape: Mapping[str, Any]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    if part.key == "model":
        try_model(part, **shape)
    elif part.key == "optim":
        part.try_build([parameter])
    elif part.key == "scheduler":
        schedule: dict[str, Any] = {"total_steps": 100} if part.accepts("total_steps") else {}
        part.try_build(torch.optim.SGD([parameter], 0.1), **schedule)
    elif part.key == "loss":
        logits, labels = torch.zeros(2, shape["num_classes"]), torch.zeros(2, dtype=torch.int64)
        part.try_build(use=lambda loss: loss(logits, labels))
    elif part.key != "data":  # which `_in_full` has tried out
        part.try_build()


def _given(values: Mapping[str, Any]) -> str:
    """What only `_in_full` can try out: the data, and a checkpoint to start from."""
    return json.dumps([values["data"], values.get("start")], default=str)
