"""Hydra puts the files under `configs/` and a command line's overrides together; mistakes become sentences.

What a key means is not Hydra's business here: `components` knows it from the signatures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bbi_lightning.training.components import Component, ConfigError, closest, locate
from bbi_lightning.training.config_files import config_folder, groups

_COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException)


def compose(overrides: Sequence[str] = (), root: str = "train") -> DictConfig:
    """Compose a config from `configs/<root>.yaml` and overrides in Hydra's language.

    A key that the YAML leaves out but the component's target accepts needs no "+".

    Args:
        overrides: "group=option", "key=value", "+new.key=value", "~key".
        root: the root file's name without ".yaml".

    Raises:
        ConfigError: an override that cannot be read, an unknown option or key.
    """
    overrides = list(overrides)
    parsed = _parsed(overrides)
    for override in parsed:
        _check_option(override)
    return _with_start_found(_compose_leniently(overrides, parsed, root))


def _compose_leniently(overrides: list[str], parsed: list[Override], root: str) -> DictConfig:
    try:
        return _hydra_compose(overrides, root)
    except _COMPOSITION_ERRORS as error:
        widened = _with_known_arguments(overrides, parsed, root)
        if widened == overrides:
            raise ConfigError(_one_sentence(error)) from error
    try:
        return _hydra_compose(widened, root)
    except _COMPOSITION_ERRORS as error:
        raise ConfigError(_one_sentence(error)) from error


def _with_start_found(config: DictConfig) -> DictConfig:
    """The config with the digest of the checkpoint it starts from, which is part of its identity."""
    start = config.get("start")
    if start is not None and not OmegaConf.is_missing(start, "checkpoint"):
        from bbi_lightning.training.start import with_digest

        with open_dict(config):
            config.start = with_digest(plain(config)["start"])
    return config


def _hydra_compose(overrides: list[str], root: str) -> DictConfig:
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose(root, overrides)


def _parsed(overrides: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except (HydraException, ValueError) as error:
            raise ConfigError(
                f"{text!r} cannot be read: write KEY=VALUE, and quote VALUE if it has special signs"
            ) from error
        if override.is_sweep_override():
            raise ConfigError(f"{text!r} gives several values, a run takes one: write a list as KEY=[a,b]")
        parsed.append(override)
    return parsed


def _check_option(override: Override) -> None:
    """Where a group is chosen from, there is such an option."""
    known = groups()
    name, value = override.key_or_group, override.value()
    if name in known:
        options = known[name]
        if not override.is_delete() and value not in options:
            shown = "null" if value is None else value
            hint = closest(str(value), options) or f"choose one of {', '.join(options)}"
            raise ConfigError(f"{name}={shown} is not an option of {name}: {hint}")


def _with_known_arguments(overrides: list[str], parsed: list[Override], root: str) -> list[str]:
    """The overrides, with "++" before keys that are absent but known to their component's target.

    Raises:
        ConfigError: a key is unknown; says which, and what may have been meant.
    """
    choices = [
        text for text, override in zip(overrides, parsed, strict=True) if override.key_or_group in groups()
    ]
    try:
        base = _hydra_compose(choices, root)
    except _COMPOSITION_ERRORS as error:
        raise ConfigError(_one_sentence(error)) from error
    widened = []
    for text, override in zip(overrides, parsed, strict=True):
        sets = not (override.is_add() or override.is_delete() or override.is_force_add())
        key = override.key_or_group
        if sets and text not in choices and not _present(base, key):
            _check_key(base, key, override.value())
            text = "++" + text
        widened.append(text)
    return widened


def _present(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in node


def _check_key(config: DictConfig, key: str, value: Any) -> None:
    """An absent key may be set only if its parent is a component that takes it, or a free mapping."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{key}={value} is unknown: {_first_wrong_part(config, parent)}")
    target = node.get("_target_")
    if target is None and parent:
        return  # labels and the like
    siblings = [str(k) for k in node if not str(k).startswith("_")]
    if target is not None:
        component = Component(parent, locate(target, parent))
        if component.accepts(name):
            return
        siblings += component.argument_names
    prefix = parent + "." if parent else ""
    hint = (
        closest(name, siblings if parent else [*siblings, *groups()], prefix)
        or f"the keys here are {', '.join(dict.fromkeys(siblings))}"
    )
    raise ConfigError(f"{key}={value} is unknown: {hint}")


def _first_wrong_part(config: DictConfig, path: str) -> str:
    """Where a dotted path leaves the config, and what may have been meant there."""
    node, walked = config, ""
    for part in path.split("."):
        if part not in node:
            known = [str(key) for key in node]
            return closest(part, known, walked) or f"there is no {walked}{part} to set it in"
        if not isinstance(node[part], DictConfig):
            return f"{walked}{part} is a value, not a group of keys"
        node, walked = node[part], f"{walked}{part}."
    raise AssertionError(f"{path} is there")


def _one_sentence(error: Exception) -> str:
    """The gist of a Hydra or OmegaConf message of several lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", "; ".join(lines[:2])) or type(error).__name__


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers with every interpolation resolved.

    Raises:
        ConfigError: an interpolation points nowhere.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_one_sentence(error)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
