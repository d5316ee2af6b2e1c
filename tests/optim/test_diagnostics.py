"""Diagnostics: complete, stable, harmless, and free unless read."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from bbi_lightning.optim import BI, ECDq1, ECDSep

from .kernels import operations, resnet_sized
from .landscapes import noisy, parameters, walk, wavy
from .members import Member, every_member, every_member_with, member_of

KEYS = {
    "energy",
    "potential",
    "energy_error",
    "potential_over_energy",
    "momentum_sq",
    "speed_over_limit",
    "bounces",
    "turn_cosine",
    "at_floor",
    "skipped",
}

both_paths = pytest.mark.parametrize("path", ["build", "build_on_device"], ids=["floats", "tensors"])


@every_member
@both_paths
def test_keys_are_the_same_before_and_after_every_step(member: Member, path: str):
    params = parameters()
    optimizer = getattr(member, path)(params, lively=True)
    for k in range(12):
        found = optimizer.diagnostics()
        assert set(found) == KEYS
        assert all(type(value) is float for value in found.values())
        walk(optimizer, params, noisy, 1, start=k)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="F - floor")
        optimizer.step(loss=math.nan)
        assert set(optimizer.diagnostics()) == KEYS


@every_member
@both_paths
def test_nothing_is_known_before_the_first_step(member: Member, path: str):
    found = getattr(member, path)(parameters()).diagnostics()
    assert {name for name, value in found.items() if not math.isnan(value)} == {
        "bounces",
        "at_floor",
        "skipped",
    }


@every_member
@both_paths
def test_reading_does_not_change_the_path(member: Member, path: str):
    x, y = parameters(), parameters()
    unread, read = getattr(member, path)(x, lively=True), getattr(member, path)(y, lively=True)
    for k in range(30):
        a, b = walk(unread, x, noisy, 1, start=k), walk(read, y, noisy, 1, start=k)
        assert torch.equal(a[0], b[0])
        read.diagnostics()


@every_member
def test_reading_costs_no_tensor_operation_and_steps_do_none_for_it(member: Member):
    params = resnet_sized()
    optimizer = member.build(params)
    optimizer.step(loss=1.0)
    read, unread = [], []
    for k in range(4):
        unread.append(operations(lambda k=k: optimizer.step(loss=0.9 - 0.1 * k)))
        assert operations(optimizer.diagnostics) == []
        read.append(operations(lambda k=k: optimizer.step(loss=0.85 - 0.1 * k)))
    assert read == unread


def test_the_step_size_that_is_too_large_shows_in_speed_over_limit():
    """With a small step the speed is that of the continuum; with a large one the kick shows."""
    ratios = []
    for lr in (1e-3, 0.5):
        params = parameters()
        optimizer = member_of(BI).build(params, lr=lr, extra_energy=3.0)
        walk(optimizer, params, wavy, 3)
        ratios.append(optimizer.diagnostics()["speed_over_limit"])
    assert ratios[0] == pytest.approx(1.0, abs=5e-3)
    assert ratios[1] > 1.05


def test_energies_are_those_of_the_formulas():
    for cls, expected in ((ECDq1, 0.0), (ECDSep, 1.5 * math.log(2.0)), (BI, 2.0)):
        params = resnet_sized()
        optimizer = member_of(cls).build(params)
        optimizer.step(loss=2.0)
        found = optimizer.diagnostics()
        assert found["energy"] == pytest.approx(expected)
        assert found["potential"] == 2.0
        assert found["potential_over_energy"] == 1.0


@every_member_with("eta")
@both_paths
@pytest.mark.parametrize("loss", [1e-30, 1e4])
def test_large_exponents_do_not_overflow_the_host(member: Member, path: str, loss: float):
    """|π|² may exceed float64 then; the motion does not need it."""
    params = parameters()
    optimizer = getattr(member, path)(params, eta=300.0)
    for value in (1.0, loss, 1.0):
        for p in params:
            p.grad = torch.full_like(p, 0.1 * value)
        optimizer.step(loss=value)
        assert all(p.isfinite().all() for p in params)
        assert set(optimizer.diagnostics()) == KEYS
