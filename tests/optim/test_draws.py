"""Random numbers belong to coordinates: however these are cut into tensors, the numbers are the same."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bbi_lightning.optim.draws import BLOCK, Normals, Place, drawn

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def numbers_of(shape: tuple[int, ...], *, draw: int = 1, seed: int = 3, dtype: torch.dtype = torch.float64):
    tensor = torch.empty(shape, dtype=dtype)
    return Normals(seed, draw, tensor.numel()).of(tensor, Place.whole(0, tensor))


def box(shape: tuple[int, ...], start: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """The numbers of a part of the only parameter, asked for on its own."""
    part = torch.empty(size, dtype=torch.float64)
    return Normals(3, 1, math.prod(shape)).of(part, Place(0, shape, start, size))


@pytest.mark.parametrize("length", [8, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_cut_anywhere_get_the_numbers_of_the_whole(length: int, dtype: torch.dtype):
    whole = numbers_of((length,), dtype=dtype)
    for cuts in ([1, length - 1], [length // 3, 0, length - length // 3]):
        normals, first, found = Normals(3, 1, length), 0, []
        for size in cuts:
            part = torch.empty(size, dtype=dtype)
            found.append(normals.of(part, Place.whole(first, part)))
            first += size
        assert torch.equal(torch.cat(found), whole)


@pytest.mark.parametrize(
    ("start", "size"),
    [
        ((0, 0), (700, 500)),
        ((300, 0), (17, 500)),
        ((699, 0), (1, 500)),
        ((0, 3), (700, 9)),
        ((5, 5), (9, 400)),
    ],
)
def test_a_box_of_a_parameter_gets_its_part_of_the_numbers(start: tuple[int, int], size: tuple[int, int]):
    shape = (700, 500)
    assert shape[0] * shape[1] > 2 * BLOCK
    whole = numbers_of(shape)
    (i, j), (rows, columns) = start, size
    assert torch.equal(box(shape, start, size), whole[i : i + rows, j : j + columns])


def test_nothing_gets_nothing_also_at_the_very_end():
    assert box((4, 3), (4, 0), (0, 3)).shape == (0, 3)
    assert box((BLOCK,), (BLOCK,), (0,)).shape == (0,)
    empty = torch.empty(0, 3)
    assert Normals(0, 1, 0).of(empty, Place.whole(0, empty)).shape == (0, 3)


def test_each_block_is_drawn_by_a_generator_of_its_own():
    """Not one after the other from one generator: a process could not start in the middle then."""
    long = numbers_of((3 * BLOCK,))
    middle = box((3 * BLOCK,), (BLOCK,), (BLOCK,))
    assert torch.equal(middle, long[BLOCK : 2 * BLOCK])
    assert not torch.equal(middle, long[:BLOCK])


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_normal_and_unrelated_to_those_of_other_blocks_draws_and_seeds(dtype: torch.dtype):
    count = 2 * BLOCK
    samples = [
        numbers_of((count,), dtype=dtype, seed=seed, draw=draw).double()
        for seed, draw in ((3, 1), (3, 2), (4, 1))
    ]
    rows = torch.stack([half for sample in samples for half in sample.split(BLOCK)])
    assert rows.mean(1).abs().max() < 5 / math.sqrt(BLOCK)
    for power, moment, variance in ((2, 1, 2), (4, 3, 96)):
        tolerance = 5 * math.sqrt(variance / BLOCK) + 0.01 * (dtype == torch.bfloat16)
        assert (rows.pow(power).mean(1) - moment).abs().max() < tolerance
    overlaps = rows @ rows.T / BLOCK - torch.diag(rows.square().mean(1))
    assert overlaps.abs().max() < 5 / math.sqrt(BLOCK)


def test_numbers_of_double_precision_have_all_digits_and_other_generators():
    fine, coarse = numbers_of((BLOCK,)), numbers_of((BLOCK,), dtype=torch.float32).double()
    assert (fine != fine.float().double()).float().mean() > 0.9
    assert abs((fine * coarse).mean()) < 5 / math.sqrt(BLOCK)
    assert abs((fine[: BLOCK // 2] * coarse[::2]).mean()) < 5 / math.sqrt(BLOCK // 2)


def test_memory_formats_get_the_same_numbers():
    plain = torch.empty(2, 3, 4, 4)
    other = plain.contiguous(memory_format=torch.channels_last)
    normals = [Normals(1, 1, plain.numel()).of(x, Place.whole(0, x)) for x in (plain, other)]
    assert torch.equal(*normals)


def test_batches_hold_every_tensor_once_and_in_order():
    sizes = [3, BLOCK, 0, 5, BLOCK // 2, BLOCK // 2, 1]
    tensors = [torch.empty(size) for size in sizes]
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    places = [Place.whole(first, tensor) for first, tensor in zip(firsts, tensors, strict=True)]
    normals = Normals(0, 1, sum(sizes))
    batches = list(drawn(tensors, places, normals))
    assert [len(batch) for batch, _ in batches] == [2, 4, 1]
    assert [tensor for batch, _ in batches for tensor in batch] == tensors
    for batch, numbers in batches:
        assert [z.shape for z in numbers] == [tensor.shape for tensor in batch]
