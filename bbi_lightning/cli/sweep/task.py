"""How a trial is trained. The fork server's children find these functions here by their names."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bbi_lightning.sweeps import Task
    from bbi_lightning.sweeps.task import Check, Report

_PRELOAD = ("bbi_lightning.cli.sweep_preload",)
_METRICS = ("val/acc", "val/loss", "train/loss")  # what `Classification` reports before the test


def task_named(name: str) -> Task:
    """What a sweep runs: `train` is a training; anything else, ``package.module:NAME``, is looked up there.

    The working folder is searched last. What is found is a `Task`, or an `OwnModule` to be trained.

    Raises:
        SweepError: there is no such thing; one sentence.
    """
    from bbi_lightning.sweeps import SweepError, Task

    if name == "train":
        return Task(
            run=_run,
            run_name=_run_name,
            validate=_validate,
            preload=_PRELOAD,
            metrics=_METRICS,
            checker=_checker,
            probe=_probe,
            resolve=_resolve,
        )
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # trials inherit it
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SweepError(f"task={name} cannot be found ({error}): write it as package.module:NAME") from None
    if isinstance(found, Task):
        return found
    from bbi_lightning.training.own_module import OwnModule  # dear to load

    if not isinstance(found, OwnModule):
        raise SweepError(
            f"task={name} is a {type(found).__name__}: make it an OwnModule "
            "(bbi_lightning.training.own_module) or a Task (bbi_lightning.sweeps)"
        )
    return Task(
        run=found.run,
        run_name=found.run_name,
        validate=found.validate,
        preload=_PRELOAD,
        resolve=found.resolve,
    )


@functools.lru_cache(maxsize=1)
def _config(overrides: tuple[str, ...]) -> DictConfig:
    from bbi_lightning.training.composition import compose

    return compose(overrides)


def _validate(overrides: Sequence[str]) -> None:
    from bbi_lightning.training.config import validate

    validate(_config(tuple(overrides)))


def _resolve(overrides: Sequence[str]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(_config(tuple(overrides)), resolve=True)


def _run_name(overrides: Sequence[str]) -> str:
    from bbi_lightning.training.config import run_name

    return run_name(_config(tuple(overrides)))


def _run(overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
    from bbi_lightning.training.run import exit_if_interrupted, train

    config = _config(tuple(overrides)).copy()
    config.runtime.root = str(root)
    config.runtime.group = labels["sweep"]
    config.runtime.threads = int(os.environ.get("OMP_NUM_THREADS", 1))
    exit_if_interrupted(train(config, labels=labels, overrides=overrides))


def _checker(overrides: Sequence[str]) -> Check:
    from bbi_lightning.training.point_check import PointCheck

    return PointCheck(overrides).check


def _probe(overrides: Sequence[str], root: Path, steps: int, seconds: float, report: Report) -> None:
    from bbi_lightning.training.probe import probe

    config = _config(tuple(overrides)).copy()
    config.runtime.threads = int(os.environ.get("OMP_NUM_THREADS", 1))
    probe(config, root, steps, seconds, report)
