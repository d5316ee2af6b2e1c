"""A model's weights as a safetensors file: no code, no optimizer, readable anywhere."""

from __future__ import annotations

import contextlib
import errno
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bbi_lightning.checkpoints.manifest import Manifest
from bbi_lightning.tracking.durable import sync
from bbi_lightning.tracking.metric_log import encode_number

_MODEL = "model."  # where a LightningModule of ours keeps its network


def model_weights(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's own tensors, under the network's own names.

    Raises:
        ValueError: there are none.
    """
    weights = {name.removeprefix(_MODEL): t for name, t in state_dict.items() if name.startswith(_MODEL)}
    if not weights:
        raise ValueError("the checkpoint holds no model: it is not one of a training run")
    return weights


def write_safetensors(weights: Mapping[str, Tensor], path: Path, manifest: Manifest) -> None:
    """Write a file that is there whole or not at all; its metadata says which checkpoint it comes from.

    Tensors that share memory (tied weights) are written once each, since the format knows no sharing.

    Raises:
        OSError: of the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.touch()
        permissions = unfinished.stat().st_mode
        save_file(_separate(weights), unfinished, _metadata(manifest))
        unfinished.chmod(permissions)  # those that the user gives to new files; safetensors' are narrower
        sync(unfinished)
        unfinished.replace(path)
    except SafetensorError as error:  # its name for what the disk says
        raise OSError(errno.EIO, str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with memory of its own, in the order of its indices."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in weights.items():
        own = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.data_ptr() not in seen
        separate[name] = tensor.contiguous() if own else tensor.contiguous().clone()
        seen.add(tensor.data_ptr())
    return separate


def _metadata(manifest: Manifest) -> dict[str, str]:
    """Facts as text, the only kind that the format has."""
    return {
        "format": "pt",
        "run": manifest.run,
        "checkpoint": str(manifest.number),
        "step": str(manifest.step),
        "epoch": str(manifest.epoch),
        "values": json.dumps({name: encode_number(value) for name, value in manifest.values.items()}),
    }
