"""The training config: what it consists of, whether it is right, and the name of the run it describes.

`components` checks every component against its target's signature; `validate` also builds each of them, so
that a value out of range or missing data is found before anything starts. All mistakes are `ConfigError`, a
ValueError whose message is one sentence. `compose`, `groups` and `plain` are here too: this module is the
config's front door.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from bbi_lightning.baselines.kinds import TwoPasses, TwoWeights
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.training.components import Component, ConfigError, closest, parse
from bbi_lightning.training.composition import compose as compose
from bbi_lightning.training.composition import plain as plain
from bbi_lightning.training.config_files import groups as groups
from bbi_lightning.training.options import RuntimeOptions, TrainerOptions

ADDED_BY_TRAINING: dict[str, tuple[str, ...]] = {
    "data": (),
    "model": ("image_shape", "num_classes"),
    "loss": (),
    "optim": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "trainer": (),
    "runtime": (),
    "checkpoint": (),
    "tracking": (),
}
"""The components of a training config, each with the arguments that training adds and a config cannot set."""

_NOT_IDENTITY = ("seed", "runtime", "checkpoint", "tracking")
_WHERE_DATA_LIE = ("data_dir", "download", "num_workers")
_NO_SEED = -1  # stands for ${seed} in the hash; no seed is negative


@dataclass(frozen=True)
class TrainingConfig:
    """A training config whose keys and types have been checked, component by component.

    Attributes:
        seed: of initial weights, order of the data, augmentation and bounces; in [0, 2³²).
        start: another run's checkpoint to begin from, None to begin from nothing.
    """

    seed: int
    data: Component
    model: Component
    loss: Component
    optim: Component
    scheduler: Component
    trainer: Component
    runtime: Component
    checkpoint: Component
    tracking: Component
    start: Component | None = None


def checked(config: DictConfig) -> TrainingConfig:
    """Compare every key with the signatures, every value with the annotations.

    Raises:
        ConfigError: at the first mistake.
    """
    values = plain(config)
    for key, value in values.items():
        if key not in ("seed", "start", *ADDED_BY_TRAINING):
            hint = closest(key, ["seed", "start", *ADDED_BY_TRAINING]) or "remove it"
            raise ConfigError(f"{key}={value} is unknown at the root of a training config: {hint}")
    for key in ("seed", *ADDED_BY_TRAINING):
        if values.get(key) is None:
            raise ConfigError(f"{key} is missing: add {key}={'0' if key == 'seed' else 'OPTION'}")
    seed = values["seed"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed} is not a seed: give an integer from 0 to {2**32 - 1}")
    components = {key: parse(values[key], key, added) for key, added in ADDED_BY_TRAINING.items()}
    start = None if values.get("start") is None else parse(values["start"], "start")
    return TrainingConfig(seed=seed, start=start, **components)


def validate(config: DictConfig) -> None:
    """Find what can be found without training: wrong keys, types and ranges, contradictions, missing data.

    Builds each component: the model without memory, optimizer and scheduler on a parameter of one element.

    Raises:
        ConfigError: at the first mistake.
    """
    try_out(checked(config))


def try_out(config: TrainingConfig) -> ImageDataModule:
    """As `validate`, for a config that has been checked; returns the data module, ready to hand out loaders.

    Raises:
        ConfigError: a value out of range, a contradiction, or missing data.
    """
    trainer: TrainerOptions = config.trainer.try_build()
    runtime: RuntimeOptions = config.runtime.try_build()
    refuse_contradictions(config, trainer, runtime)
    config.checkpoint.try_build()
    config.tracking.try_build()
    if config.start is not None:
        config.start.try_build()
    optimizer = config.optim.try_build([torch.nn.Parameter(torch.zeros(1))])
    schedule: dict[str, Any] = {"total_steps": 100} if config.scheduler.accepts("total_steps") else {}
    config.scheduler.try_build(optimizer, **schedule)

    data: ImageDataModule = config.data.try_build()
    logits, labels = torch.zeros(2, data.num_classes), torch.zeros(2, dtype=torch.int64)
    config.loss.try_build(use=lambda loss: loss(logits, labels))
    try_model(config.model, image_shape=data.image_shape, num_classes=data.num_classes)
    try:
        data.prepare_data()
        data.setup("fit")
        data.train_dataloader()
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise ConfigError(_with_key("data", error)) from error
    return data


def try_model(model: Component, **given: Any) -> None:
    """Build a model without memory, for images of a shape and so many classes; ConfigError if it refuses."""
    # an initialisation that looks at values cannot do with meta tensors: its ranges show when training starts
    with torch.device("meta"), contextlib.suppress(NotImplementedError):
        model.try_build(**given)


def _with_key(key: str, error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if said.startswith(f"{key}.") else f"{key}: {said}"


def refuse_contradictions(config: TrainingConfig, trainer: TrainerOptions, runtime: RuntimeOptions) -> None:
    """Settings that are right one by one and wrong together."""
    batch_size = config.data.arguments.get("batch_size")
    ranks = runtime.world_size
    if isinstance(batch_size, int) and batch_size % ranks:
        raise ConfigError(
            f"data.batch_size={batch_size} cannot be divided among the {ranks} processes of "
            f"runtime.devices={runtime.devices} and runtime.num_nodes={runtime.num_nodes}: "
            f"make it a multiple of {ranks}"
        )
    if trainer.precision == "16-mixed" and runtime.accelerator == "cpu":
        raise ConfigError(
            "trainer.precision=16-mixed and runtime.accelerator=cpu contradict each other, "
            "a CPU has no float16 arithmetic: use bf16-mixed"
        )
    _refuse_for_baselines(config, trainer, runtime)
    clips, fused = trainer.gradient_clip_val is not None, config.optim.arguments.get("fused")
    if clips and fused and trainer.precision == "16-mixed":
        raise ConfigError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val} with trainer.precision=16-mixed "
            "contradicts optim.fused=true, which unscales the gradients too late to be clipped: "
            "set optim.fused=false"
        )


def _refuse_for_baselines(config: TrainingConfig, trainer: TrainerOptions, runtime: RuntimeOptions) -> None:
    """What optimizers of two passes or two weights cannot do."""
    target = config.optim.target
    if not (isinstance(target, type) and issubclass(target, (TwoPasses, TwoWeights))):
        return
    name = target.__name__
    if runtime.strategy == "fsdp":
        raise ConfigError(f"runtime.strategy=fsdp shards parameters, which {name} does not know: use ddp")
    if not issubclass(target, TwoPasses):
        return
    if trainer.accumulate_grad_batches > 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} is too many for {name}, "
            "whose second pass sees the last micro-batch only: use 1"
        )
    if trainer.precision == "16-mixed":
        raise ConfigError(
            f"trainer.precision=16-mixed has no closure for the second pass of {name}: use bf16-mixed"
        )


def run_name(config: DictConfig) -> str:
    """A run's name and identity: `<data>-<model>-<optim>-<hash>-s<seed>`.

    The hash is of everything that shapes the result except the seed, so that the runs of one setting share
    it; where and how it runs (`runtime`, `checkpoint`, `tracking`, where the data lie) does not count, nor
    where a checkpoint to start from lies, and 1 is 1.0.

    Raises:
        ConfigError: a key or a type is wrong.
    """
    parsed = checked(config)
    anonymous = config.copy()
    OmegaConf.set_struct(anonymous, False)
    anonymous.seed = _NO_SEED  # whatever says ${seed} follows
    identity = {key: value for key, value in plain(anonymous).items() if key not in _NOT_IDENTITY}
    identity["data"] = {key: value for key, value in identity["data"].items() if key not in _WHERE_DATA_LIE}
    start = identity.pop("start", None)
    if start is not None:
        identity["start"] = {key: value for key, value in start.items() if key != "checkpoint"}
    return f"{parsed.data.name}-{parsed.model.name}-{parsed.optim.name}-{digest(identity)}-s{parsed.seed}"


def digest(identity: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of a plain mapping, whatever the order of its keys; 1 is 1.0."""
    text = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _canonical(value: Any) -> Any:
    """The value with 1.0 written as 1, as YAML and command lines use them alike."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
