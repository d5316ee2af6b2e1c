"""What must be equal to the last bit in a run that was killed and one that was not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bbi_lightning.checkpoints.shard_files import is_sharded, read_whole
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from kills.harness import Training

OF_A_CLOCK = ("time", "seconds", "speed/", "wall_s")
"""Beginnings of the names of values that a clock measured."""


def newest_state(folder: RunFolder) -> dict[str, Any]:
    """The newest checkpoint's contents. What is known of where checkpoints lie is here and in `best`."""
    checkpoint, passed_over = CheckpointStore(folder.checkpoints, folder.name).newest_valid()
    assert checkpoint is not None, passed_over
    assert not passed_over
    return _contents(checkpoint.path)


def best(folder: RunFolder) -> dict[str, Any]:
    """Which checkpoint counts as the best, and what is in it."""
    checkpoint = CheckpointStore(folder.checkpoints, folder.name).best()
    if checkpoint is None:
        return {}
    manifest = checkpoint.manifest
    return {
        "step": manifest.step,
        "epoch": manifest.epoch,
        "values": manifest.values,
        "contents": _contents(checkpoint.path),
    }


def _contents(checkpoint: Path) -> dict[str, Any]:
    if is_sharded(checkpoint):
        return read_whole(checkpoint)
    contents: dict[str, Any] = torch.load(checkpoint / "state.pt", weights_only=True)
    return contents


def lines(folder: RunFolder) -> list[str]:
    """The metric log line by line, in every character; of what a clock measured only the names."""
    rows = read_metrics(folder.metrics_file)
    return [
        json.dumps({key: None if key.startswith(OF_A_CLOCK) else value for key, value in row.items()})
        for row in rows
    ]


def summary(folder: RunFolder) -> dict[str, Any]:
    """The run's summary; of what a clock measured only the names."""
    values = folder.record.summary
    return {key: None if key.startswith(OF_A_CLOCK) else value for key, value in values.items()}


def assert_as_if_never_killed(killed: Training, whole: Training) -> None:
    """Everything that a run leaves behind, except times."""
    try:
        assert_same(killed.folder, whole.folder)
    except AssertionError as difference:
        raise AssertionError(f"{difference}\n{killed.report()}") from None


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """The same history, result, state and choice of the best, except times."""
    assert_equal(lines(one), lines(other), "metrics.jsonl")
    assert_equal(summary(one), summary(other), "summary")
    assert_equal(timeless(newest_state(one)), timeless(newest_state(other)), "checkpoint")
    assert_equal(timeless(best(one)), timeless(best(other)), "best checkpoint")


def timeless(content: Any) -> Any:
    """A checkpoint without what a clock measured."""
    if isinstance(content, Mapping):
        return {key: timeless(value) for key, value in content.items() if not str(key).startswith(OF_A_CLOCK)}
    if isinstance(content, (list, tuple)):
        return [timeless(item) for item in content]
    return content


def assert_equal(one: Any, other: Any, place: str) -> None:
    """Equal in type and to the last bit, tensors and containers included; says where not."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), place
        same = torch.equal(
            one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
        )
        assert same, f"{place}: {one} is not {other}"
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        assert set(one) == set(other), (
            f"{place}: only in one of them {sorted(map(str, set(one) ^ set(other)))}"
        )
        for key in one:
            assert_equal(one[key], other[key], f"{place}, {key}")
    elif isinstance(one, Sequence) and not isinstance(one, str):
        for k, (a, b) in enumerate(zip(one, other)):  # first the first difference  # noqa: B905
            assert_equal(a, b, f"{place}[{k}]")
        assert len(one) == len(other), f"{place}: {len(one)} items, not {len(other)}"
    else:
        same = type(one) is type(other) and (one == other or (one != one and other != other))
        assert same, f"{place}: {one!r} is not {other!r}"
