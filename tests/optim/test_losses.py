"""Losses the formulas leave open (at the floor, not finite, above the energy), and how to give one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bbi_lightning.optim import BBI, ECD, LogECD
from bbi_lightning.optim.hamiltonians import Isokinetic

from .landscapes import flatten, momentum, noisy, parameters, walk, wavy
from .members import Member, every_member, member_of

Build = Callable[..., ECD]

both_paths = pytest.mark.parametrize("path", ["build", "build_on_device"], ids=["floats", "tensors"])
unusable = pytest.mark.parametrize("value", [0.0, -0.3, math.nan, math.inf, -math.inf])


def step_with(optimizer: ECD, params: list[Tensor], loss: float, gradient: float = 1.0) -> None:
    for p in params:
        p.grad = torch.full_like(p, gradient)
    optimizer.step(loss=torch.tensor(loss, dtype=params[0].dtype))


def step_and_read(optimizer: ECD, loss: Tensor) -> dict[str, float]:
    """Reading ends the step also where its numbers are still on their way from the device."""
    optimizer.step(loss=loss)
    return optimizer.diagnostics()


@every_member
@both_paths
@unusable
@pytest.mark.parametrize("gradient", [0.0, 1.0, math.nan, math.inf])
def test_an_unusable_loss_is_a_step_not_taken(member: Member, path: str, value: float, gradient: float):
    """Counted and said once; before and after, everything is as if it had not been."""
    x, y = parameters(), parameters()
    expected = walk(getattr(member, path)(x), x, noisy, 20)

    optimizer = getattr(member, path)(y)
    found = walk(optimizer, y, noisy, 10)
    counter, said = (
        ("at_floor", "at or below the floor") if math.isfinite(value) else ("skipped", "not finite")
    )
    before = flatten(y).detach().clone()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for times in (1, 2, 3):
            step_with(optimizer, y, value, gradient)
            assert torch.equal(flatten(y), before)
            assert optimizer.diagnostics()[counter] == times
    (only,) = warned
    assert said in str(only.message)
    found += walk(optimizer, y, noisy, 10, start=10)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-13)
    other = "skipped" if counter == "at_floor" else "at_floor"
    assert optimizer.diagnostics()[other] == 0


@every_member
@both_paths
@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_the_first_usable_loss_starts_the_motion(member: Member, path: str, value: float):
    x, y = parameters(), parameters()
    expected = walk(getattr(member, path)(x), x, noisy, 10)
    optimizer = getattr(member, path)(y)
    with pytest.warns(UserWarning, match="F - floor ="):
        step_with(optimizer, y, value)
    assert math.isnan(optimizer.diagnostics()["energy"])
    assert all(torch.equal(a, b) for a, b in zip(walk(optimizer, y, noisy, 10), expected, strict=True))


@every_member
@both_paths
def test_a_first_loss_below_the_floor_is_refused(member: Member, path: str):
    params = parameters()
    optimizer = getattr(member, path)(params, floor=0.5)
    before = flatten(params).detach().clone()
    with pytest.raises(
        ValueError, match=r"floor=0\.5 is above the loss 0\.31.*pass a lower bound of the loss"
    ):
        step_with(optimizer, params, 0.31)
    assert torch.equal(flatten(params), before)


@both_paths
def test_a_cross_entropy_that_underflows_to_zero_stops_the_motion_and_no_more(path: str):
    """A float32 cross entropy of a sure and right prediction is exactly 0, and so is its gradient."""
    logits = torch.nn.Parameter(torch.tensor([[30.0, -100.0]]))
    labels = torch.tensor([0])
    optimizer = getattr(member_of(BBI), path)([logits], lr=0.1)
    step_with(optimizer, [logits], 0.7)

    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    assert loss.item() == 0.0
    before = logits.detach().clone()
    with pytest.warns(UserWarning, match="at or below the floor stops the motion"):
        found = step_and_read(optimizer, loss)
    assert torch.equal(logits, before)
    assert found["at_floor"] == 1
    step_with(optimizer, [logits], 0.3)
    assert logits.isfinite().all()
    assert not torch.equal(logits, before)


@every_member
@both_paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_potentials_of_any_size_keep_everything_finite(member: Member, path: str, dtype: torch.dtype):
    params = parameters(dtype=dtype)
    optimizer = getattr(member, path)(params, lively=True)
    tiny = 1e-37 if isinstance(member.hamiltonian, Isokinetic) else 1e-44  # it never slows: ∝ 1/V
    for loss in (1.0, 1e-7, 1e-30, tiny, 0.5, 1 - 1e-7, 1e-20, 1.5, 1.0, 0.9):
        step_with(optimizer, params, loss, gradient=min(loss, 1.0))
        assert flatten(params).isfinite().all()
        found = optimizer.diagnostics()
        assert all(
            math.isfinite(x) for name, x in found.items() if name not in ("turn_cosine", "speed_over_limit")
        )
        assert momentum(optimizer).isfinite().all()


@every_member
@both_paths
def test_a_zero_gradient_above_the_energy_does_not_end_the_motion(member: Member, path: str):
    """V ≥ E drops the momentum; without a force nothing would start it again, so chance does."""
    params = parameters(dtype=torch.float32)
    optimizer = getattr(member, path)(params, lively=True)
    walk(optimizer, params, wavy, 5)
    rest = optimizer._motion.state.rest_potential
    step_with(optimizer, params, 2 * rest, gradient=0.0)
    for _ in range(3):
        step_with(optimizer, params, 0.5 * rest, gradient=0.0)
    before = flatten(params).detach().clone()
    step_with(optimizer, params, 0.5 * rest, gradient=0.0)
    assert not torch.equal(flatten(params), before)
    assert flatten(params).isfinite().all()


@every_member
def test_the_loss_handed_over_wins_over_argument_and_closure(member: Member):
    def one_step(act: Callable[[ECD, Callable[[], Tensor]], Any]) -> Tensor:
        params = parameters()
        optimizer = member.build(params)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = wavy(flatten(params))
            loss.backward()
            return loss

        act(optimizer, closure)
        return optimizer.diagnostics()["potential"]

    closure_loss = wavy(flatten(parameters())).item()
    assert one_step(lambda o, c: o.step(c)) == pytest.approx(closure_loss)
    assert one_step(lambda o, c: (c(), o.step(loss=3.0))) == 3.0
    assert one_step(lambda o, c: o.step(c, loss=3.0)) == 3.0
    assert one_step(lambda o, c: (o.hand_over(2.0), o.step(c, loss=3.0))) == 2.0
    assert one_step(lambda o, c: (o.hand_over(torch.tensor(2.0)), o.step(c))) == 2.0
    assert one_step(lambda o, c: (c(), o.hand_over(2.0), o.step())) == 2.0
    assert one_step(lambda o, c: (c(), o.hand_over(9.0), o.hand_over(2.0), o.step())) == 2.0
    assert one_step(lambda o, c: o.step(lambda: c() * 0 + 5)) == 5.0


@every_member
def test_a_loss_handed_over_serves_one_step(member: Member):
    params = parameters()
    optimizer = member.build(params)
    optimizer.hand_over(2.0)
    walk(optimizer, params, wavy, 1)
    loss = wavy(flatten(params)).item()
    walk(optimizer, params, wavy, 1)
    assert optimizer.diagnostics()["potential"] == pytest.approx(loss)


@every_member
def test_step_returns_what_it_was_given(member: Member):
    params = parameters()
    optimizer = member.build(params)
    loss = wavy(flatten(params))
    loss.backward()
    assert optimizer.step(loss=loss) is loss
    assert optimizer.step(loss=1.5) == 1.5
    assert optimizer.step(lambda: loss) is loss
    optimizer.hand_over(1.0)
    assert optimizer.step() is None


@every_member
def test_the_closure_has_gradients_enabled_and_the_step_has_not(member: Member):
    params = parameters()
    optimizer = member.build(params)
    enabled = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        enabled.append(torch.is_grad_enabled())
        loss = wavy(flatten(params))
        loss.backward()
        return loss

    with torch.no_grad():
        optimizer.step(closure)
    assert enabled == [True]
    assert all(p.grad_fn is None and p.is_leaf for p in params)


@every_member
def test_no_loss_is_an_error_that_says_how_to_pass_one(member: Member):
    params = parameters()
    optimizer = member.build(params)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match=rf"{member.name} needs the value of the loss: call step\(closure\)"):
        optimizer.step()
    with pytest.raises(TypeError, match="needs the value of the loss"):
        optimizer.step(lambda: None)


@every_member
def test_no_loss_is_fine_while_every_lr_is_zero(member: Member):
    """torch.distributed.checkpoint makes such a step to create the state."""
    params = parameters()
    optimizer = member.build(params, lr=0.0)
    for p in params:
        p.grad = torch.zeros_like(p)
    before = flatten(params).detach().clone()
    optimizer.step(closure=None)
    assert torch.equal(flatten(params), before)
    assert set(optimizer.state[params[0]]) == {"momentum"}


@every_member
@both_paths
def test_a_loss_must_be_one_number(member: Member, path: str):
    params = parameters()
    optimizer = getattr(member, path)(params)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"must be one number, got shape \(4,\): take its mean"):
        optimizer.step(loss=torch.ones(4))
    optimizer.step(loss=torch.ones(1, 1))
    assert optimizer.diagnostics()["potential"] == 1.0


@pytest.mark.parametrize("loss", [2, 2.0, torch.tensor(2), torch.tensor(2.0).bfloat16(), torch.tensor([2.0])])
@both_paths
def test_a_loss_may_be_any_real_number(loss: Any, path: str):
    params = parameters()
    optimizer = getattr(member_of(LogECD), path)(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step(loss=loss)
    assert optimizer.diagnostics()["potential"] == 2.0
