"""A run's `config.yaml`, or a sweep's `sweep.yaml`, as plain values: for onlookers, who need no OmegaConf."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_config(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty where there is no file.

    Raises:
        ValueError: the file is no YAML mapping; one sentence that names it.
        OSError: it cannot be read.
    """
    import yaml

    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        config = yaml.load(text, Loader=_loader())  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read ({said}): restore it") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ValueError(f"{file} is no mapping: restore it")
    return config


def config_if_readable(file: Path) -> dict[str, Any]:
    """The same for those who can do without: empty where the file is missing or damaged."""
    try:
        return read_config(file)
    except (ValueError, OSError):
        return {}


def samples_a_step(config: Mapping[str, Any]) -> int | None:
    """Training samples an optimizer step, over all processes; None where the config does not say."""
    batch = _part(config, "data").get("batch_size")
    windows = _part(config, "trainer").get("accumulate_grad_batches") or 1
    return batch * windows if isinstance(batch, int) and isinstance(windows, int) else None


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader, the fast one where there is one, to which "1e-3" is a number as to OmegaConf."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("_Loader", (base,), {})
    loader.yaml_implicit_resolvers = {key: list(found) for key, found in base.yaml_implicit_resolvers.items()}
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\d+|\d+\.\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )
    return loader
