"""Per-group lr and weight decay, learning-rate schedulers, and groups that change on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler

from bbi_lightning.optim import BBI, ECD, ECDq1

from .landscapes import flatten, momentum, noisy, parameters, walk, wavy
from .members import Member, every_member, every_member_with, member_of
from .reference import Particle
from .test_reference import loss_and_gradient

STEPS = 60

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LRScheduler": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1.0),  # abstract
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.97),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 7, gamma=0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 11], gamma=0.3),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, factor=0.2, total_iters=9),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=20),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.95),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=10), lr_scheduler.CosineAnnealingLR(o, 50)], [10]
    ),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=7, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS + 1, cycle_momentum=False),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=2.0),
}


def test_the_table_has_every_scheduler_of_torch():
    assert set(lr_scheduler.__all__) <= set(SCHEDULERS)


def scheduled_walk(optimizer: ECD, params: list[Tensor], scheduler: Any) -> tuple[Tensor, list[np.ndarray]]:
    """The path, and lr of every coordinate at every step."""
    path, rates = [], []
    for k in range(STEPS):
        rates.append(rate_of_each_coordinate(optimizer, params))
        path += walk(optimizer, params, wavy, 1, start=k)
        is_plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        scheduler.step(*([1.0] if is_plateau else []))
    return torch.stack(path), rates


def rate_of_each_coordinate(optimizer: ECD, params: list[Tensor]) -> np.ndarray:
    rate = {p: float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    return np.concatenate([np.full(p.numel(), rate[p]) for p in params])


@every_member
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_obeyed_by_kick_and_drift(member: Member, name: str):
    """The path is that of the plain transcription with the scheduled lr, step by step."""
    params = parameters()
    start = flatten(params).detach().numpy().copy()
    optimizer = member.build(params)
    path, rates = scheduled_walk(optimizer, params, SCHEDULERS[name](optimizer))
    assert len({rate[0] for rate in rates}) > 1 or name == "LRScheduler"
    expected = Particle(member.rule, lr=rates).trajectory(start, loss_and_gradient(wavy), STEPS)
    np.testing.assert_allclose(path.numpy(), expected[1:], rtol=0, atol=1e-11)


@every_member
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_drift_is_proportional_to_lr(member: Member, scale: float):
    """Without a force, so that the kick plays no part."""
    lengths = []
    for factor in (1.0, scale):
        params = parameters()
        optimizer = member.build(params)
        walk(optimizer, params, wavy, 5)
        before = flatten(params).detach().clone()
        optimizer.param_groups[0]["lr"] = factor * member.lr
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step(loss=0.2)
        lengths.append((flatten(params) - before).norm().item())
    assert lengths[1] / lengths[0] == pytest.approx(scale, rel=1e-9)


@every_member
def test_groups_have_their_own_lr_but_one_energy(member: Member):
    params = parameters()
    start = flatten(params).detach().numpy().copy()
    groups = [
        {"params": [params[2]], "lr": 0.3 * member.lr},
        {"params": [params[0]]},
        {"params": [params[1]], "lr": 0.0},
    ]
    optimizer = member.build(groups)
    rate = rate_of_each_coordinate(optimizer, params)
    expected = Particle(member.rule, lr=[rate] * STEPS).trajectory(start, loss_and_gradient(wavy), STEPS)
    found = torch.stack(walk(optimizer, params, wavy, STEPS)).numpy()
    np.testing.assert_allclose(found, expected[1:], rtol=0, atol=1e-11)
    assert (found[-1, 3:7] == start[3:7]).all()


@every_member
def test_lr_may_be_a_tensor(member: Member):
    x, y = parameters(), parameters()
    expected = walk(member.build(x), x, wavy, 10)
    found = walk(member.build(y, lr=torch.tensor(member.lr, dtype=torch.float64)), y, wavy, 10)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@every_member
def test_weight_decay_is_an_l2_term_of_the_loss(member: Member):
    """Per group, conserved with the loss: the same as adding ½Σλθ² by hand."""
    x, y = parameters(), parameters()
    decays = [0.3, 0.0, 0.02]

    def with_penalty(theta: Tensor, k: int) -> Tensor:
        parts = zip(decays, theta.split([p.numel() for p in y]), strict=True)
        return noisy(theta, k) + sum(0.5 * decay * part.square().sum() for decay, part in parts)

    groups = [{"params": [p], "weight_decay": decay} for p, decay in zip(x, decays, strict=True)]
    found = torch.stack(walk(member.build(groups), x, noisy, STEPS))
    expected = torch.stack(walk(member.build(y), y, with_penalty, STEPS))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (found - torch.stack(walk(member.build(y), y, noisy, STEPS))).abs().max() > 1e-3


@every_member_with("extra_energy")
def test_weight_decay_counts_in_the_energy(member: Member):
    params = parameters()
    loss = wavy(flatten(params)).item()
    penalty = 0.5 * 0.3 * flatten(params).square().sum().item()
    optimizer = member.build(params, weight_decay=0.3)
    walk(optimizer, params, wavy, 1)
    assert optimizer.diagnostics()["potential"] == pytest.approx(loss + penalty, rel=1e-14)
    assert optimizer.diagnostics()["energy"] == pytest.approx(
        member.rule.rest_energy(loss + penalty), rel=1e-13
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -0.1},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"weight_decay": -1.0},
        {"floor": float("nan")},
    ],
    ids=str,
)
@every_member
def test_arguments_out_of_range_are_refused_by_name_and_value(member: Member, wrong: dict[str, float]):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value} must be"):
        member.build(parameters(), **wrong)


@every_member
@pytest.mark.parametrize("wrong", [{"lr": -0.1}, {"lr": float("nan")}, {"weight_decay": -1.0}], ids=str)
def test_a_groups_arguments_are_checked_like_those_of_all(member: Member, wrong: dict[str, float]):
    (name, value), *_ = wrong.items()
    params = parameters()
    with pytest.raises(ValueError, match=f"{name}={value} of a parameter group must be"):
        member.build([{"params": params[:1]}, {"params": params[1:], **wrong}])
    optimizer = member.build(params[:1])
    with pytest.raises(ValueError, match=f"{name}={value} of a parameter group must be"):
        optimizer.add_param_group({"params": params[1:], **wrong})
    assert len(optimizer.param_groups) == 1


@every_member_with("eta")
@pytest.mark.parametrize("eta", [0.0, -1.0, float("inf"), float("nan")])
def test_eta_must_be_positive(member: Member, eta: float):
    with pytest.raises(ValueError, match=f"eta={eta} must be positive"):
        member.build(parameters(), eta=eta)


@every_member_with("extra_energy")
def test_extra_energy_must_not_be_negative(member: Member):
    with pytest.raises(ValueError, match=r"extra_energy=-0.5 must be"):
        member.build(parameters(), extra_energy=-0.5)


@every_member
def test_an_empty_group_is_no_obstacle(member: Member):
    x, y = parameters(), parameters()
    expected = walk(member.build(x, lively=True), x, noisy, 20)
    optimizer = member.build([{"params": []}, {"params": y}, {"params": []}], lively=True)
    found = walk(optimizer, y, noisy, 20)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@every_member
def test_parameters_added_later_start_at_rest_and_share_the_energy(member: Member):
    """As if they had been there from the start with a gradient of zero."""
    late_start, late = 10, torch.tensor([0.3, -0.2], dtype=torch.float64)

    def loss_of(theta: Tensor, k: int) -> Tensor:
        return wavy(theta[:8]) + (0.0 if k < late_start else 1.0) * (theta[8:] - 0.1).square().sum()

    x = [*parameters(), Parameter(late.clone())]
    expected = walk(member.build([{"params": x[:3]}, {"params": x[3:]}]), x, loss_of, 30)[late_start:]

    y = parameters()
    optimizer = member.build(y)
    if member.cls is ECDq1:  # its exponent depends on the number of coordinates
        optimizer._motion.hamiltonian = _FixedDimension(member.hamiltonian.eta, n=10)
    walk(optimizer, y, wavy, late_start)
    energy = optimizer.diagnostics()["energy"]
    y.append(Parameter(late.clone()))
    optimizer.add_param_group({"params": [y[-1]], "lr": member.lr})
    found = walk(optimizer, y, loss_of, 20, start=late_start)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-12)
    assert optimizer.diagnostics()["energy"] == energy
    assert momentum(optimizer)[8:].abs().min() > 0


class _FixedDimension(type(member_of(ECDq1).hamiltonian)):
    def for_dimension(self, n: int):
        return self


def test_ecd_q1_takes_its_exponent_from_all_coordinates():
    params = parameters()
    optimizer = member_of(ECDq1).build([{"params": [p]} for p in params], eta=2.0)
    walk(optimizer, params, wavy, 1)
    assert optimizer._motion._hamiltonian(optimizer._current_shares()).k == pytest.approx(2.0 * 8 / (2 * 7))
    with pytest.raises(ValueError, match="at least 2 parameters"):
        walk(member_of(ECDq1).build(one := parameters([(1,)])), one, wavy, 1)


def test_a_group_added_before_the_first_step_is_like_one_given_at_once():
    x, y = parameters(), parameters()
    expected = walk(member_of(BBI).build(x), x, wavy, 20)
    optimizer = member_of(BBI).build(y[:1])
    optimizer.add_param_group({"params": y[1:]})
    torch.testing.assert_close(
        torch.stack(walk(optimizer, y, wavy, 20)), torch.stack(expected), rtol=0, atol=1e-13
    )
