"""A copy of a state: equal, independent, no larger than the state, and loadable without running code."""

from __future__ import annotations

import io
from collections import OrderedDict, defaultdict
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bbi_lightning.checkpoints.host_copy import HostCopy


class Colour(str, Enum):
    RED = "red"


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_that_changes_does_not_change_its_copy():
    weights, history = torch.ones(3), [1, 2]
    state = {"weights": weights, "nested": {"history": history, "pair": (weights, 2.5)}}
    copy = HostCopy().take(state)
    weights.zero_()
    history.append(3)
    assert torch.equal(copy["weights"], torch.ones(3))
    assert copy["nested"]["history"] == [1, 2]
    assert torch.equal(copy["nested"]["pair"][0], torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_every_bit_dtype_and_shape_comes_through(dtype):
    for shape in [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]:
        tensor = torch.randint(0, 2, shape).to(dtype)
        copied = through_a_file(HostCopy().take({"t": tensor}))["t"]
        assert copied.dtype == dtype
        assert copied.shape == tensor.shape
        assert torch.equal(copied, tensor)


def test_the_order_of_dimensions_in_memory_comes_through():
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert HostCopy().take({"t": tensor})["t"].stride() == tensor.stride()


def test_only_the_elements_of_a_view_are_copied():
    large = torch.zeros(1000, 1000)
    copy = HostCopy().take({"row": large[3], "one": large[:1, :1].expand(5, 5)})
    assert copy["row"].untyped_storage().nbytes() == 4 * 1000
    assert torch.equal(copy["one"], torch.zeros(5, 5))
    file = io.BytesIO()
    torch.save(copy, file)
    assert file.tell() < 10_000


def test_tied_weights_are_copied_and_written_once():
    tied = torch.randn(100, 100)
    copy = HostCopy().take({"encoder": tied, "decoder": nn.Parameter(tied), "part": tied[:50]})
    assert copy["encoder"] is copy["decoder"]
    assert copy["part"] is not copy["encoder"]
    loaded = through_a_file(copy)
    assert loaded["encoder"].data_ptr() == loaded["decoder"].data_ptr()


def test_buffers_are_used_again_and_follow_a_change_of_shape():
    buffers = HostCopy()
    first = buffers.take({"t": torch.zeros(4), "u": torch.zeros(2)})
    places = first["t"].data_ptr(), first["u"].data_ptr()
    second = buffers.take({"t": torch.ones(4), "u": torch.ones(3)})
    assert second["t"].data_ptr() == places[0]
    assert torch.equal(second["t"], torch.ones(4))
    assert torch.equal(second["u"], torch.ones(3))


def test_tensors_that_live_one_after_the_other_at_one_address_stay_apart():
    class Fleeting(dict):
        def items(self):
            for number in range(20):
                yield str(number), torch.full((1000,), float(number))

    buffers = HostCopy()
    for _ in range(2):  # the second time no buffer is made, so that addresses come again
        copy = buffers.take({"all": Fleeting()})
    assert [float(copy["all"][str(n)][0]) for n in range(20)] == list(range(20))


def test_a_modules_state_keeps_the_versions_of_its_layout():
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    loaded = through_a_file(HostCopy().take({"state_dict": state}))["state_dict"]
    assert isinstance(loaded, OrderedDict)
    assert loaded._metadata == state._metadata
    assert list(loaded) == list(state)


def test_mappings_become_dicts():
    state = {"counts": defaultdict(int, a=1), (1, 2): {3: {4, 5}}}
    assert through_a_file(HostCopy().take(state)) == {"counts": {"a": 1}, (1, 2): {3: {4, 5}}}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.float64(1.0), "numpy.float64"),
        (np.zeros(2), "numpy.ndarray"),
        (Path("x"), "PosixPath"),
        (Colour.RED, "Colour"),
        (len, "builtin_function_or_method"),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_with_its_place(value, name):
    with pytest.raises(
        TypeError, match=rf"^callbacks/mine/0 in the checkpoint is a .*{name}, .*keep tensors"
    ):
        HostCopy().take({"callbacks": {"mine": [value]}})
