"""Changes of units, coordinates and bookkeeping that must not change the path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from bbi_lightning.optim import ECD

from .landscapes import noisy, parameters, walk, wavy
from .members import Member, every_member

STEPS = 120
N = 8


def start() -> Tensor:
    return parameters([(N,)])[0].detach()


def path(optimizer: ECD, params: list[Tensor], loss_of) -> Tensor:
    return torch.stack(walk(optimizer, params, loss_of, STEPS))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@every_member
@pytest.mark.parametrize("factor", [1e-3, 7.3])
def test_the_unit_of_the_loss_is_absorbed_by_the_time_step(member: Member, factor: float):
    extra = {"extra_energy": 0.4} if member.takes("extra_energy") else {}
    x, y = Parameter(start()), Parameter(start())
    expected = path(member.build([x], floor=-0.2, **extra), [x], noisy)

    extra = {"extra_energy": factor * 0.4} if extra else {}
    lr = member.lr * factor**member.rescaling
    optimizer = member.build([y], lr=lr, floor=-0.2 * factor, **extra)
    assert_same(path(optimizer, [y], lambda theta, k: factor * noisy(theta, k)), expected)


@every_member
def test_adding_a_constant_to_loss_and_floor_changes_nothing(member: Member):
    x, y = Parameter(start()), Parameter(start())
    expected = path(member.build([x]), [x], wavy)
    assert_same(path(member.build([y], floor=10.0), [y], lambda theta, k: wavy(theta) + 10.0), expected)


@every_member
def test_rotations(member: Member):
    rotation, _ = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64))
    x, y = Parameter(start()), Parameter(rotation @ start())
    expected = path(member.build([x]), [x], wavy)
    found = path(member.build([y]), [y], lambda theta, k: wavy(rotation.T @ theta))
    assert_same(found, expected @ rotation.T)


@every_member
def test_permutations_of_the_parameters(member: Member):
    order = torch.randperm(N)
    x, y = Parameter(start()), Parameter(start()[order])
    expected = path(member.build([x]), [x], wavy)
    assert_same(
        path(member.build([y]), [y], lambda theta, k: wavy(theta[order.argsort()])), expected[:, order]
    )


@every_member
@pytest.mark.parametrize("sizes", [[1, 7], [3, 3, 2], [1] * N], ids=str)
def test_splitting_a_tensor(member: Member, sizes: list[int]):
    x = Parameter(start())
    expected = path(member.build([x]), [x], noisy)
    parts = [Parameter(part.clone()) for part in start().split(sizes)]
    assert_same(path(member.build(parts), parts, noisy), expected)


@every_member
def test_splitting_and_reordering_groups(member: Member):
    one = [Parameter(part.clone()) for part in start().split([3, 3, 2])]
    expected = path(member.build(one), one, noisy)
    for order in ([0, 1, 2], [2, 0, 1]):
        parts = [Parameter(part.clone()) for part in start().split([3, 3, 2])]
        optimizer = member.build([{"params": [parts[i]]} for i in order])
        assert_same(path(optimizer, parts, noisy), expected)


@every_member
def test_mixed_shapes_equal_one_vector(member: Member):
    x = Parameter(start())
    expected = path(member.build([x]), [x], noisy)
    a, b, c = start().split([4, 3, 1])
    parts = [Parameter(a.reshape(2, 2).clone()), Parameter(b.clone()), Parameter(c.reshape(()).clone())]
    assert_same(path(member.build(parts), parts, noisy), expected)
