"""What is conserved, and how well."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bbi_lightning.optim import BBI, ECDq1
from bbi_lightning.optim.hamiltonians import Isokinetic
from bbi_lightning.optim.scalars import Floats

from .landscapes import flatten, momentum, noisy, parameters, walk, wavy
from .members import Member, every_member, every_member_with, member_of


def coast(optimizer, params: list[Tensor], potential: float) -> None:
    """A step without a force: it ends with exactly the momentum that the shell gave."""
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(loss=potential)


@every_member
@pytest.mark.parametrize("fraction", [1e-12, 1e-3, 0.5, 0.999, 1 - 1e-9])
def test_energy_after_the_shell_is_the_energy(member: Member, fraction: float):
    params = parameters()
    optimizer = member.build(params, lively=True)
    walk(optimizer, params, noisy, 20)
    rest = optimizer._motion.state.rest_potential
    coast(optimizer, params, fraction * rest)

    hamiltonian = member.hamiltonian
    potential, energy = fraction * rest, optimizer.diagnostics()["energy"]
    momentum_sq = momentum(optimizer).square().sum().item()
    found = hamiltonian.energy(potential, momentum_sq, Floats)
    size = math.sqrt(momentum_sq) if isinstance(hamiltonian, Isokinetic) else max(abs(energy), 1.0)
    assert abs(found - energy) < 1e-13 * size
    assert optimizer.diagnostics()["momentum_sq"] == pytest.approx(momentum_sq, rel=1e-13)


@every_member
def test_the_energy_never_changes(member: Member):
    params = parameters()
    optimizer = member.build(params, lively=True)
    walk(optimizer, params, noisy, 1)
    energy = optimizer.diagnostics()["energy"]
    walk(optimizer, params, noisy, 100, start=1)
    assert optimizer.diagnostics()["energy"] == energy


@every_member
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 1e-6)]
)
def test_the_norm_kept_in_passing_is_the_norm(member: Member, dtype: torch.dtype, tolerance: float):
    """|π|² is never summed in a pass of its own, so the number carried along must stay true."""
    params = parameters(dtype=dtype)
    optimizer = member.build(params, lively=True)
    for k in range(60):
        walk(optimizer, params, noisy, 1, start=k)
        measured = momentum(optimizer).square().sum().item()
        assert optimizer.diagnostics()["momentum_sq"] == pytest.approx(measured, rel=tolerance)


@every_member_with("extra_energy")
def test_starts_downhill_with_the_energy_of_rest_at_the_first_loss_plus_extra(member: Member):
    params = parameters()
    loss = wavy(flatten(params))
    loss.backward()
    gradient = flatten([p.grad for p in params])
    optimizer = member.build(params, lr=0.0, floor=-0.5, extra_energy=0.7)
    optimizer.step(loss=loss)

    rest = loss.item() + 0.5 + 0.7
    assert optimizer.diagnostics()["energy"] == pytest.approx(member.rule.rest_energy(rest), rel=1e-14)
    expected_sq = member.rule.momentum_sq(loss.item() + 0.5, member.rule.rest_energy(rest))
    pi = momentum(optimizer)
    torch.testing.assert_close(pi, -gradient / gradient.norm() * math.sqrt(expected_sq))


def test_ecd_q1_starts_downhill_at_unit_speed():
    params = parameters()
    start = flatten(params).detach().clone()
    loss = wavy(flatten(params))
    loss.backward()
    gradient = flatten([p.grad for p in params])
    member_of(ECDq1).build(params, lr=1e-6).step(loss=loss)
    torch.testing.assert_close(flatten(params) - start, -1e-6 * gradient / gradient.norm(), rtol=1e-6, atol=0)


@every_member_with("conserve")
def test_one_step_drift_without_the_projection_is_of_second_order(member: Member):
    def drift(lr: float) -> float:
        params = parameters()
        optimizer = member.build(params, lr=lr, extra_energy=1.5, conserve=False)
        walk(optimizer, params, wavy, 2)
        return abs(optimizer.diagnostics()["energy_error"])

    errors = [drift(0.02 / 2**i) for i in range(4)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert errors[0] > 1e-8
    assert slopes[-1] == pytest.approx(2.0, abs=0.1)


@every_member_with("conserve")
def test_without_the_projection_a_long_smooth_walk_stays_near_the_energy(member: Member):
    params = parameters()
    optimizer = member.build(params, lr=2e-3, extra_energy=1.0, conserve=False)
    walk(optimizer, params, wavy, 300)
    assert 0 < abs(optimizer.diagnostics()["energy_error"]) < 0.02


def test_potential_over_energy_and_energy_error_say_what_they_promise():
    params = parameters()
    optimizer = member_of(BBI).build(params, extra_energy=0.5)
    walk(optimizer, params, wavy, 10)
    before = momentum(optimizer).square().sum().item()
    loss = wavy(flatten(params)).item()
    walk(optimizer, params, wavy, 1, start=10)

    found = optimizer.diagnostics()
    energy = found["energy"]
    assert found["potential"] == pytest.approx(loss, rel=1e-15)
    assert found["potential_over_energy"] == pytest.approx(loss / energy, rel=1e-14)
    expected = math.sqrt(loss * (loss + before)) / energy - 1
    assert found["energy_error"] == pytest.approx(expected, rel=1e-9)
