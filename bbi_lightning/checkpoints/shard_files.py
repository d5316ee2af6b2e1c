"""A checkpoint in shards: every process writes the parts of the tensors that it has, beside one `state.pt`.

It is an ordinary Lightning checkpoint taken apart. The distributed tensors of the model and of the optimizers
go into the files of torch.distributed.checkpoint, which are read back into any other division, or none; what
is left is a dict of plain things and small tensors in `state.pt`, as rank zero has them. Nothing in the files
is run when they are read.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from bbi_lightning.checkpoints.manifest import SHARDS, STATE

_MODEL, _OPTIMIZERS = "state_dict", "optimizer_states"

Template = Callable[[str, torch.Size, torch.dtype], Tensor | None]
"""(key, shape of the whole, dtype) → an empty tensor, whole or distributed, to read into; None: unwanted."""


def is_sharded(folder: Path) -> bool:
    """Whether a checkpoint's tensors lie in shards."""
    return (folder / SHARDS).is_file()


def write(folder: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint into a folder; all processes call it, and return when all are done.

    Args:
        folder: exists, on a disk that all processes see.
        checkpoint: Lightning's; tensors of the model and the optimizers may be distributed.

    Raises:
        OSError: a process could not write, on all of them alike.
    """
    tensors, rest = _apart(checkpoint)
    _all_or_none(lambda: save(tensors, storage_writer=FileSystemWriter(folder)))
    trouble: list[Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            with (folder / STATE).open("wb") as file:  # a full disk is an OSError then
                torch.save(rest, file)
        except Exception as error:
            trouble = [error]
    dist.broadcast_object_list(trouble, src=0)
    if trouble[0] is not None:
        raise trouble[0]


def read(folder: Path, template: Template) -> dict[str, Any]:
    """Read a checkpoint in shards; all processes call it. Raises OSError and the like on all of them."""
    rest = _plain(folder)
    reader = _DataOnlyReader(folder)
    tensors = _empty(reader, template)
    _all_or_none(lambda: load(tensors, storage_reader=reader))
    return _together(tensors, rest)


def read_whole(folder: Path, *, optimizers: bool = True) -> dict[str, Any]:
    """Read a checkpoint, in shards or not, in this process alone, as an unsharded run would have saved it.

    Args:
        folder: of the checkpoint.
        optimizers: whether the tensors of the optimizers are wanted too.
    """
    rest = _plain(folder)
    if not is_sharded(folder):
        return rest
    reader = _DataOnlyReader(folder)

    def template(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
        wanted = optimizers or optimizer_key(key) is None
        return torch.empty(size, dtype=dtype) if wanted else None

    tensors = _empty(reader, template)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be
        _all_or_none(lambda: load(tensors, storage_reader=reader, no_dist=True))
    return _together(tensors, rest)


def optimizer_key(key: str) -> tuple[int, int] | None:
    """Return the indices of the optimizer and the parameter that a tensor belongs to; None for a model's."""
    section, *words = key.split("/")
    return (int(words[0]), int(words[1])) if section == _OPTIMIZERS else None


def model_key(key: str) -> str:
    """Return the name that a model's tensor has in its `state_dict`."""
    return key.removeprefix(f"{_MODEL}/")


def _apart(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The distributed tensors by key, and the checkpoint without them."""
    tensors: dict[str, Tensor] = {}

    def without(values: Mapping[Any, Any], prefix: str) -> dict[Any, Any]:
        tensors.update({f"{prefix}/{name}": x for name, x in values.items() if isinstance(x, DTensor)})
        return {name: x for name, x in values.items() if not isinstance(x, DTensor)}

    rest = {**checkpoint, _MODEL: without(checkpoint[_MODEL], _MODEL)}
    rest[_OPTIMIZERS] = [
        {
            **optimizer,
            "state": {
                index: without(values, f"{_OPTIMIZERS}/{number}/{index}")
                for index, values in optimizer["state"].items()
            },
        }
        for number, optimizer in enumerate(checkpoint.get(_OPTIMIZERS, []))
    ]
    return tensors, rest


def _together(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    for key, tensor in tensors.items():
        where = optimizer_key(key)
        if where is None:
            rest[_MODEL][model_key(key)] = tensor
        else:
            number, index = where
            rest[_OPTIMIZERS][number]["state"][index][key.split("/", 3)[3]] = tensor
    return rest


def _plain(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def _empty(reader: _DataOnlyReader, template: Template) -> dict[str, Tensor]:
    tensors = {}
    for key, entry in reader.read_metadata().state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            tensor = template(key, entry.size, entry.properties.dtype)
            if tensor is not None:
                tensors[key] = tensor
    return tensors


def _all_or_none(act: Callable[[], object]) -> None:
    """Turn the exception of torch.distributed.checkpoint, which is no Exception, into that of a process."""
    try:
        act()
    except CheckpointException as error:
        cause = error.failures[min(error.failures)][0]
        if isinstance(cause, Exception):
            raise cause from None
        raise RuntimeError(str(error)) from None


class _DataOnly(pickle.Unpickler):
    """Takes what an index of tensors is made of, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        known = {
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            *(("pathlib", path) for path in ("Path", "PosixPath", "PurePosixPath")),
        }
        if dtype or (module, name) in known or module == "torch.distributed.checkpoint.metadata":
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the checkpoint's index holds {module}.{name}, which is no data")


class _DataOnlyReader(FileSystemReader):
    """A reader whose index of tensors is read without running anything in it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What the files hold."""
        with (Path(self.path) / SHARDS).open("rb") as file:
            metadata = _DataOnly(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("the checkpoint's index is none")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata
