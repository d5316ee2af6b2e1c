"""Speed limits that hold exactly at every finite step, and motion that does not end too early."""

from __future__ import annotations

import math

import pytest
import torch

from bbi_lightning.optim import BBI, BI, ECDSep
from bbi_lightning.optim.hamiltonians import Hamiltonian, Isokinetic, LogBranch, LogSeparable, MassOverLoss
from bbi_lightning.optim.scalars import Floats

from .landscapes import Loss, flatten, momentum, noisy, parameters, walk, wavy
from .members import Member, every_member, member_of

ROUNDING = 1 + 1e-12


def limit(hamiltonian: Hamiltonian, v: float, e: float, g: float, dt: float) -> float:
    """An upper bound of |Δθ|/Δt at potential v, energy e and |∇F| = g, for any direction of the momentum.

    Each is drift · (|π on the shell| + Δt · kick · |g|), with |π| = 0 where v > e; for LogSeparable
    2|π|/(1+π²) ≤ 1 and for LogBranch √V √(1-1/w) < √V whatever the kick.
    """
    if isinstance(hamiltonian, MassOverLoss):
        return 2 * math.sqrt(v * max(e - v, 0)) + 2 * dt * max(e, v) * g
    if isinstance(hamiltonian, LogSeparable):
        return 1.0
    if isinstance(hamiltonian, LogBranch):
        return math.sqrt(v)
    ratio = min(v / e, 1)
    return math.sqrt(v * (1 - ratio**2)) + dt / 2 * (1 + ratio**2) * g


def spiky(theta: torch.Tensor, k: int) -> torch.Tensor:
    """``noisy`` with a batch far above the energy every 17 steps."""
    return noisy(theta, k) * (4.0 if k % 17 == 16 else 1.0)


@every_member
@pytest.mark.parametrize("loss_of", [wavy, noisy, spiky])
@pytest.mark.parametrize("lively", [False, True], ids=["quiet", "lively"])
def test_no_step_is_longer_than_the_discrete_bound(member: Member, loss_of: Loss, lively: bool):
    params = parameters()
    optimizer = member.build(params, lively=lively)
    above = 0
    for k in range(200):
        before = flatten(params).detach().clone()
        old_direction = momentum(optimizer) if k > 0 else None
        walk(optimizer, params, loss_of, 1, start=k)

        moved = (flatten(params).detach() - before).norm().item() / member.lr
        gradient = flatten([p.grad for p in params])
        found = optimizer.diagnostics()
        v, e = found["potential"], found["energy"]
        above += found["potential_over_energy"] > 1
        if isinstance(member.hamiltonian, Isokinetic):
            u = (old_direction if k > 0 else -gradient) / (old_direction if k > 0 else gradient).norm()
            across = (gradient - u * (u @ gradient)).norm().item()
            speed = math.hypot(1.0, member.lr * member.hamiltonian.k / v * across)
            assert moved == pytest.approx(speed, rel=1e-10)
        else:
            assert moved <= limit(member.hamiltonian, v, e, gradient.norm().item(), member.lr) * ROUNDING
    assert math.isfinite(moved)
    assert above >= 5 or loss_of is wavy


@pytest.mark.parametrize("s", [0.01, 1.0, 4.0])
def test_ecdsep_is_never_faster_than_one_over_the_root_of_s(s: float):
    params = parameters()
    optimizer = member_of(ECDSep).build(params, s=s, lr=0.02)
    for k in range(100):
        before = flatten(params).detach().clone()
        walk(optimizer, params, noisy, 1, start=k)
        assert (flatten(params) - before).norm().item() <= 0.02 / math.sqrt(s) * ROUNDING


def test_the_speed_of_light_alone_is_no_bound_for_discrete_born_infeld():
    """Why the bound has a term in Δt: √V is exceeded, and the bound nearly reached, where π and -g align."""
    x = torch.nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))
    optimizer = member_of(BBI).build([x], lr=0.3, extra_energy=100.0)
    walk(optimizer, [x], lambda theta, k: 0.5 * theta.square().sum(), 1)
    moved = (1.0 - x[0].item()) / 0.3
    assert moved > math.sqrt(0.5)
    assert moved == pytest.approx(limit(member_of(BBI).hamiltonian, 0.5, 100.5, 1.0, 0.3), rel=1e-12)


@every_member
def test_speed_over_limit_is_the_length_of_the_step_over_that_of_the_continuum(member: Member):
    params = parameters()
    optimizer = member.build(params)
    walk(optimizer, params, wavy, 30)
    before = flatten(params).detach().clone()
    walk(optimizer, params, wavy, 1)
    moved = (flatten(params) - before).norm().item() / member.lr
    found = optimizer.diagnostics()
    limit = member.hamiltonian.speed_limit(found["potential"], found["energy"], Floats)
    assert found["speed_over_limit"] == pytest.approx(moved / limit, rel=1e-9)


@every_member
@pytest.mark.parametrize("fraction", [1e-6, 0.1, 0.9])
def test_does_not_stop_where_the_gradient_vanishes_above_the_floor(member: Member, fraction: float):
    """At a high minimum (∇F = 0, 0 < V < E) the speed is that of the energy shell, step after step."""
    params = parameters()
    optimizer = member.build(params)
    walk(optimizer, params, wavy, 10)
    potential = fraction * optimizer._motion.state.rest_potential
    speed = member.hamiltonian.speed_limit(potential, optimizer.diagnostics()["energy"], Floats)
    assert speed > 0

    before = flatten(params).detach().clone()
    for steps in range(1, 31):
        for p in params:
            p.grad = None if steps % 2 else torch.zeros_like(p)
        params[0].grad = torch.zeros_like(params[0])
        optimizer.step(loss=potential)
        moved = (flatten(params) - before).norm().item()
        assert moved == pytest.approx(steps * member.lr * speed, rel=1e-9)


def test_born_infeld_leaves_a_high_minimum_where_gradient_descent_stays():
    """F = (x² - 1)² + 0.3x + 0.5: minima near -1 (F = 0.19) and 1 (F = 0.79), a barrier of 1.5 between."""

    def tilted(theta: torch.Tensor, k: int) -> torch.Tensor:
        return (theta.square() - 1).square().sum() + 0.3 * theta.sum() + 0.5

    def end(optimizer_class: type, **arguments: float) -> tuple[float, float]:
        x = torch.nn.Parameter(torch.tensor([1.6], dtype=torch.float64))
        optimizer = optimizer_class([x], **arguments)
        positions = []
        for k in range(2000):
            optimizer.zero_grad()
            loss = tilted(x, k)
            loss.backward()
            optimizer.step(lambda loss=loss: loss)
            positions.append(x.item())
        return positions[-1], min(positions)

    assert end(torch.optim.SGD, lr=0.01)[1] > 0.9
    assert end(BI, lr=0.01)[1] < -0.9
