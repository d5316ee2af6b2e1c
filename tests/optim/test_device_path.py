"""The path of accelerators, on which the step's scalars stay tensors: the same motion, without waiting.

It is run here with the CPU as the accelerator; the test at the end needs a real one.
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from .kernels import operations, resnet_sized, synchronisations
from .landscapes import Loss, flatten, noisy, parameters, walk, wavy
from .members import Member, every_member, every_member_with

STEPS = 100


def with_unusable_losses(theta: Tensor, k: int) -> Tensor:
    """``noisy`` with losses (and gradients) that are no number, infinite, or below the floor in between."""
    wrong = {3: math.nan, 4: math.inf, 11: -5.0, 12: 0.0, 30: math.nan, 31: -math.inf}
    return noisy(theta, k) * wrong.get(k, 1.0)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-12)


def assert_same_diagnostics(found: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-10, nan_ok=True), name


@every_member
@pytest.mark.parametrize("loss_of", [wavy, noisy, with_unusable_losses])
@pytest.mark.parametrize("lively", [False, True], ids=["quiet", "lively"])
def test_agrees_with_the_path_of_floats(member: Member, loss_of: Loss, lively: bool):
    x, y = parameters(), parameters()
    arguments = {"lively": lively, "weight_decay": 0.01}
    floats, tensors = member.build(x, **arguments), member.build_on_device(y, **arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="F - floor")
        expected, found = walk(floats, x, loss_of, STEPS), walk(tensors, y, loss_of, STEPS)
    assert_same(found, expected)
    assert_same_diagnostics(tensors.diagnostics(), floats.diagnostics())
    assert tensors._motion.state.draws == floats._motion.state.draws


@every_member
def test_diagnostics_agree_at_every_step(member: Member):
    x, y = parameters(), parameters()
    floats, tensors = member.build(x, lively=True), member.build_on_device(y, lively=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="F - floor")
        for k in range(35):
            walk(floats, x, with_unusable_losses, 1, start=k)
            walk(tensors, y, with_unusable_losses, 1, start=k)
            assert_same_diagnostics(tensors.diagnostics(), floats.diagnostics())


@every_member_with("conserve")
def test_agrees_without_the_projection(member: Member):
    x, y = parameters(), parameters()
    arguments = {"conserve": False, "extra_energy": 0.5, "lr": 0.02}
    expected = walk(member.build(x, **arguments), x, wavy, STEPS)
    assert_same(walk(member.build_on_device(y, **arguments), y, wavy, STEPS), expected)


@every_member
@pytest.mark.parametrize("saved_at", [1, 5, 17])
@pytest.mark.parametrize("to_device", [False, True])
def test_a_state_moves_from_one_path_to_the_other(member: Member, saved_at: int, to_device: bool):
    x, y = parameters(), parameters()
    first, second = (member.build, member.build_on_device)[:: 1 if to_device else -1]
    never_stopped = walk(first(x, lively=True), x, noisy, 40)
    before = first(y, lively=True)
    walk(before, y, noisy, saved_at)
    after = second(y, lively=True)
    after.load_state_dict(before.state_dict())
    assert_same(walk(after, y, noisy, 40 - saved_at, start=saved_at), never_stopped[saved_at:])


@every_member
@pytest.mark.parametrize("nu", [0.0, 0.1])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_no_step_after_the_first_waits_for_the_device(member: Member, nu: float, weight_decay: float):
    params = resnet_sized()
    arguments = {"weight_decay": weight_decay} | ({"nu": nu} if member.takes("nu") else {})
    optimizer = member.build_on_device(params, **arguments)
    optimizer.step(loss=torch.tensor(1.0))
    for k in range(20):
        loss = torch.tensor(1.0 - 0.04 * k)
        assert synchronisations(lambda loss=loss: optimizer.step(loss=loss)) == []
        optimizer.hand_over(loss)
        assert synchronisations(lambda: optimizer.step()) == []


@every_member_with("patience")
def test_a_bounce_does_not_wait_for_the_device(member: Member):
    params = resnet_sized()
    optimizer = member.build_on_device(params, patience=None, bounce_every=1, n_bounces=1000)
    optimizer.step(loss=torch.tensor(1.0))
    for k in range(1, 20):
        loss = torch.tensor(1.0 - 0.04 * k)
        assert synchronisations(lambda loss=loss: optimizer.step(loss=loss)) == []
    assert optimizer.diagnostics()["bounces"] == 20


def test_the_watch_for_synchronisations_sees_them():
    x = torch.ones(3)
    assert synchronisations(lambda: float(x.sum())) == ["_local_scalar_dense"]
    assert synchronisations(lambda: bool(x[0] > 0)) == ["_local_scalar_dense"]
    assert synchronisations(lambda: x.sum() + 1) == []
    assert operations(lambda: x[1:].mul_(2)) == ["mul_"]


@every_member
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_is_right_in_every_dtype(member: Member, dtype: torch.dtype):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(n).to(dtype)) for n in (3, 1000, 20_000)]
    optimizer = member.build_on_device(params, lr=1e-4)
    for k in range(3):
        for p in params:
            p.grad = (p.detach().float() * 1e-3).to(dtype)
        optimizer.step(loss=1.0 - 0.1 * k)
        stored = flatten([optimizer.state[p]["momentum"].double() for p in params]).square().sum().item()
        assert float(optimizer._motion.state.momentum_sq) == pytest.approx(stored, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_member
def test_on_cuda_as_on_the_cpu_and_without_synchronisation(member: Member):
    x = parameters()
    y = [torch.nn.Parameter(p.detach().cuda()) for p in x]
    expected = walk(member.build(x), x, wavy, STEPS)
    optimizer = member.build(y)
    found = []
    for k in range(STEPS):
        optimizer.zero_grad()
        loss = wavy_on_device(flatten(y))
        loss.backward()
        torch.cuda.set_sync_debug_mode("error" if k > 1 else "default")
        try:
            optimizer.step(loss=loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found.append(flatten(y).detach().cpu())
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-10)
    assert optimizer.diagnostics()["potential"] == pytest.approx(loss.item())

    saved = optimizer.state_dict()
    fresh = member.build(y)
    fresh.load_state_dict(saved)
    fresh.step(loss=loss)
    assert all(p.isfinite().all() for p in y)


def wavy_on_device(theta: Tensor) -> Tensor:
    with theta.device:
        return wavy(theta)
