"""When a trajectory is turned, and that the turn is isotropic, seeded and keeps |π|."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from bbi_lightning.optim import BBI, ECDSep
from bbi_lightning.optim.bounces import BounceRule, Clock

from .landscapes import momentum, noisy, parameters, walk, wavy
from .members import Member, every_member, every_member_with, member_of

ALWAYS = {"patience": None, "bounce_every": 1, "n_bounces": 1_000_000}


def coast(optimizer, params: list[Tensor], loss: float) -> None:
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(loss=loss)


def bounce_steps(rule: BounceRule, potentials: list[float]) -> list[int]:
    clock = Clock()
    return [step for step, v in enumerate(potentials, start=1) if rule.tick(clock, v)]


def test_fixed_bounces_come_every_so_many_steps_and_so_often():
    falling = [1.0 / step for step in range(1, 100)]
    assert bounce_steps(BounceRule(None, bounce_every=10, n_bounces=3), falling) == [10, 20, 30]
    assert bounce_steps(BounceRule(None, bounce_every=10, n_bounces=0), falling) == []


def test_progress_bounces_come_after_patience_steps_without_a_new_lowest_loss():
    stuck = [5.0, 4.0, *[4.5] * 20]
    assert bounce_steps(BounceRule(patience=6, n_bounces=0), stuck) == [8, 14, 20]
    assert bounce_steps(BounceRule(patience=6, n_bounces=0), [*stuck[:7], 3.9, *stuck[2:10]]) == [14]
    assert bounce_steps(BounceRule(patience=None, n_bounces=0), stuck) == []


def test_an_equal_loss_is_no_progress():
    assert bounce_steps(BounceRule(patience=3, n_bounces=0), [1.0] * 8) == [4, 7]


def test_any_bounce_starts_the_patience_anew_and_two_at_once_are_one():
    rule = BounceRule(patience=6, bounce_every=4, n_bounces=1)
    assert bounce_steps(rule, [1.0] * 17) == [4, 10, 16]
    clock = Clock()
    rule = BounceRule(patience=4, bounce_every=5, n_bounces=1)
    assert [rule.tick(clock, 1.0) for _ in range(6)] == [False, False, False, False, True, False]
    assert clock.bounces == 1


@pytest.mark.parametrize(
    "wrong", [{"patience": 0}, {"patience": -3}, {"bounce_every": 0}, {"n_bounces": -1}], ids=str
)
@every_member_with("patience")
def test_impossible_bounce_rules_are_refused(member: Member, wrong: dict[str, int]):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value} must"):
        member.build(parameters(), **wrong)


@pytest.mark.parametrize("nu", [-0.1, float("inf"), float("nan")])
@every_member_with("nu")
def test_impossible_chaos_elements_are_refused(member: Member, nu: float):
    with pytest.raises(ValueError, match=f"nu={nu} must be finite and not negative"):
        member.build(parameters(), nu=nu)


@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_bounce_directions_are_isotropic(n: int):
    """Mean 0, covariance 1/n and the fourth moment 3/(n(n+2)), which a cube's directions do not have."""
    count = 8_000 if n <= 3 else 1_000
    x = Parameter(torch.zeros(n, dtype=torch.float64))
    optimizer = member_of(BBI).build([x], **ALWAYS, extra_energy=1.0)
    directions = []
    for _ in range(count):
        coast(optimizer, [x], 0.5)
        directions.append(torch.nn.functional.normalize(momentum(optimizer), dim=0))
    u = torch.stack(directions)

    assert u.mean(0).abs().max() < 5 / math.sqrt(n * count)
    spread = math.sqrt(2 / (n * (n + 2)) / count)
    torch.testing.assert_close(u.T @ u / count, torch.eye(n).double() / n, rtol=0, atol=5 * spread)
    fourth = u.pow(4).mean(0)
    error = 5 * math.sqrt(105 / (n * (n + 2) * (n + 4) * (n + 6)) / count)
    torch.testing.assert_close(fourth, torch.full((n,), 3 / (n * (n + 2))).double(), rtol=0, atol=error)
    successive = (u[1:] * u[:-1]).sum(1).mean().abs()
    assert successive < 5 / math.sqrt(n * count)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 1e-6)]
)
@every_member_with("patience")
def test_a_bounce_keeps_the_length_of_the_momentum_and_the_place(
    member: Member, dtype: torch.dtype, tolerance: float
):
    """Against a twin that does not bounce: same step, same θ, same |π|, another direction."""
    turned, straight = parameters(dtype=dtype), parameters(dtype=dtype)
    bouncing = member.build(turned, patience=None, bounce_every=10, n_bounces=1)
    quiet = member.build(straight)
    assert torch.equal(walk(bouncing, turned, wavy, 10)[-1], walk(quiet, straight, wavy, 10)[-1])

    a, b = momentum(bouncing), momentum(quiet)
    assert bouncing.diagnostics()["bounces"] == 1
    assert a.norm().item() == pytest.approx(b.norm().item(), rel=tolerance)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
    assert abs(cosine) < 0.99
    assert bouncing.diagnostics()["turn_cosine"] == pytest.approx(cosine, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_momenta_have_the_dtype_of_their_parameters(dtype: torch.dtype):
    params = parameters(dtype=dtype)
    optimizer = member_of(BBI).build(params, lively=True)
    walk(optimizer, params, wavy, 30)
    assert optimizer.diagnostics()["bounces"] > 0
    assert all(optimizer.state[p]["momentum"].dtype == dtype for p in params)
    if dtype == torch.float64:  # drawn in full precision
        stored = optimizer.state[params[0]]["momentum"]
        assert (stored != stored.float().double()).any()


@pytest.mark.parametrize("nu", [0.003, 0.03, 0.3])
def test_the_angle_of_the_chaos_element(nu: float):
    """cos = 1/√(1 + ν²n) a step, while |π| stays."""
    n = 1000
    x = Parameter(torch.zeros(n, dtype=torch.float64))
    optimizer = member_of(ECDSep).build([x], nu=nu, extra_energy=1.0)
    cosines, lengths = [], []
    for _ in range(100):
        before = momentum(optimizer) if cosines or optimizer._motion.state.started else None
        coast(optimizer, [x], 0.5)
        cosines.append(optimizer.diagnostics()["turn_cosine"])
        lengths.append(momentum(optimizer).norm().item())
        if before is not None:
            measured = torch.nn.functional.cosine_similarity(before, momentum(optimizer), dim=0)
            assert cosines[-1] == pytest.approx(measured.item(), rel=1e-9)
    spread = 5 / math.sqrt(n * len(cosines))
    assert sum(cosines) / 100 == pytest.approx(1 / math.sqrt(1 + nu**2 * n), abs=min(spread, 10 * nu))
    assert lengths == pytest.approx([lengths[0]] * 100, rel=1e-12)


@every_member
def test_deterministic_in_the_seed_and_blind_to_the_global_generator(member: Member):
    def path(seed: int, global_seed: int) -> Tensor:
        params = parameters()
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found = torch.stack(walk(member.build(params, lively=True, seed=seed), params, noisy, 60))
        assert torch.equal(torch.get_rng_state(), before)
        return found

    assert torch.equal(path(3, 0), path(3, 1))
    has_chance = bool(member.bounce_arguments(lively=True))
    assert torch.equal(path(3, 0), path(4, 0)) == (not has_chance)


def test_neighbouring_seeds_and_draws_are_unrelated():
    directions = []
    for seed in range(8):
        x = Parameter(torch.zeros(1000, dtype=torch.float64))
        optimizer = member_of(BBI).build([x], **ALWAYS, extra_energy=1.0, seed=seed)
        for _ in range(8):
            coast(optimizer, [x], 0.5)
            directions.append(torch.nn.functional.normalize(momentum(optimizer), dim=0))
    u = torch.stack(directions)
    overlaps = (u @ u.T - torch.eye(len(u)).double()).abs()
    assert overlaps.max() < 5.5 / math.sqrt(1000)


def test_counts_are_reported():
    params = parameters()
    optimizer = member_of(BBI).build(params, patience=None, bounce_every=4, n_bounces=2)
    counts = []
    for k in range(12):
        walk(optimizer, params, wavy, 1, start=k)
        counts.append(int(optimizer.diagnostics()["bounces"]))
    assert counts == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert math.isnan(optimizer.diagnostics()["turn_cosine"])
