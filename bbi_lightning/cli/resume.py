"""`bbi resume`: go on with a run by its folder, whatever ended it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.runs import Root, Run, find_run
from bbi_lightning.cli.train import print_result, user_errors
from bbi_lightning.training import interrupts

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bbi_lightning.tracking.run_folder import RunFolder

HELP = """
Go on with a run: from its newest valid checkpoint, as if it had never stopped.

[bold]Examples[/bold]

  [dim]# by name (in runs/) or by folder, wherever that has been moved to[/dim]
  bbi resume digits-cnn-bbi-38aa4ac6cd-s0
  bbi resume /scratch/moved/digits-cnn-bbi-38aa4ac6cd-s0

  [dim]# elsewhere, on more devices, with W&B[/dim]
  bbi resume RUN runtime.devices=4 tracking=online

  [dim]# longer than it was meant to be: a run of its own, beside the old one[/dim]
  bbi resume RUN trainer.max_epochs=60

[bold]What may be changed[/bold]

  runtime.*, checkpoint.*, tracking.*: where and how it runs.
  trainer.max_epochs, trainer.max_steps: to more than before. The old run stays
  as it is; run.json of the new one tells where it came from. One that had
  stopped within an epoch, at its max_steps, begins the next epoch.
  Anything else makes another run: bbi train … --from RUN.

  Exit codes: as of bbi train.
"""

_HOW_IT_RUNS = ("runtime", "checkpoint", "tracking")
_LIMITS = ("trainer.max_epochs", "trainer.max_steps")


def resume(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="What may be changed.", show_default=False),
    ] = None,
    root: Root = Path("runs"),
) -> None:
    """Go on with a run."""
    with interrupts.listening(), user_errors():
        folder = find_run(run, root)
        config, grows = _changed(folder, overrides or [])

        from bbi_lightning.training.run import exit_if_interrupted, is_rank_zero, train

        if grows:
            folder = train(config, labels=folder.record.labels, overrides=overrides or [])
        else:
            folder = train(config, folder=folder)
        if is_rank_zero():
            print_result(folder)
        exit_if_interrupted(folder)


def _changed(folder: RunFolder, overrides: list[str]) -> tuple[DictConfig, bool]:
    """The run's config with the overrides, and whether it becomes a longer run."""
    from omegaconf import DictConfig, OmegaConf, open_dict

    from bbi_lightning.training.components import ConfigError
    from bbi_lightning.training.composition import compose

    for word in overrides:
        key = word.partition("=")[0]
        if key not in _LIMITS and key.partition(".")[0] not in _HOW_IT_RUNS:
            raise ConfigError(
                f"{word} would make another run: begin one with bbi train {word} --from {folder.name}"
            )
    config = OmegaConf.load(folder.config_file)
    assert isinstance(config, DictConfig)
    composed = compose(overrides)  # what the words mean, on top of the defaults
    keys = [word.partition("=")[0] for word in overrides]
    with open_dict(config):
        for group in _HOW_IT_RUNS:
            if group not in config or group in keys:
                config[group] = composed[group]
        config.runtime.root = str(folder.path.parent)
        for key in keys:
            if "." in key and key not in _LIMITS:
                OmegaConf.update(config, key, OmegaConf.select(composed, key))
        limits = {key.rpartition(".")[2]: OmegaConf.select(composed, key) for key in keys if key in _LIMITS}
        if limits:
            _grow(config, folder, limits)
    return config, bool(limits)


def _grow(config: DictConfig, folder: RunFolder, limits: dict[str, object]) -> None:
    """Let the config go further, from where the run stands."""
    from bbi_lightning.checkpoints.store import CheckpointStore
    from bbi_lightning.training.components import ConfigError
    from bbi_lightning.training.start import with_digest

    for name, value in limits.items():
        before = config.trainer[name]
        if value is not None and (type(value) is not int or (before is not None and value <= before)):
            raise ConfigError(f"trainer.{name}={value} is no more than the run has had ({before}): give more")
        config.trainer[name] = value
    newest, _ = CheckpointStore(folder.checkpoints, folder.record.name).newest_valid()
    if newest is None:
        raise ConfigError(f"run {folder.name} has no checkpoint to go on from: train it anew")
    target = "bbi_lightning.training.start.Start"
    config.start = with_digest(
        {"_target_": target, "checkpoint": str(newest.path), "take": "everything", "digest": None}
    )
