"""Parameters and gradients of every kind: missing, zero, sparse, frozen, strided, empty, complex."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from bbi_lightning.optim import BBI, ECDSep
from bbi_lightning.optim.scalars import Floats

from .landscapes import flatten, momentum, noisy, parameters, quadratic, walk, wavy
from .members import Member, every_member, every_member_with, member_of

both_paths = pytest.mark.parametrize("path", ["build", "build_on_device"], ids=["floats", "tensors"])


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-13) -> None:
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=tolerance)


def walk_with(optimizer, params: list[Tensor], steps: range, prepare: Callable[[int], None]) -> list[Tensor]:
    """``walk`` in ``wavy``, but ``prepare`` may change the gradients before each step."""
    path = []
    for k in steps:
        optimizer.zero_grad()
        loss = wavy(flatten(params), k)
        loss.backward()
        prepare(k)
        optimizer.step(loss=loss)
        path.append(flatten(params).detach().clone())
    return path


@every_member
@both_paths
def test_a_missing_gradient_is_zero_and_the_parameter_coasts(member: Member, path: str):
    x, y = parameters(), parameters()

    def zero(k: int) -> None:
        if k % 3 == 2:
            x[1].grad = torch.zeros_like(x[1])

    def missing(k: int) -> None:
        if k % 3 == 2:
            y[1].grad = None

    expected = walk_with(getattr(member, path)(x, lively=True), x, range(20), zero)
    found = walk_with(getattr(member, path)(y, lively=True), y, range(20), missing)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert any(not torch.equal(found[k][3:7], found[k - 1][3:7]) for k in range(2, 20, 3))


@every_member
@both_paths
def test_a_parameter_that_never_had_a_gradient_rests(member: Member, path: str):
    x, extra = parameters(), Parameter(torch.ones(5, dtype=torch.float64))
    y = parameters()
    expected = walk(getattr(member, path)(y, lively=True), y, noisy, 20)
    optimizer = getattr(member, path)([x[0], extra, *x[1:]], lively=True)
    assert_same(walk(optimizer, x, noisy, 20), expected)
    assert torch.equal(extra, torch.ones(5, dtype=torch.float64))
    assert not optimizer.state[extra]


@every_member
def test_a_parameter_joins_at_its_first_gradient(member: Member):
    params = parameters()
    optimizer = member.build(params, lively=True)

    def withhold(k: int) -> None:
        if k < 7:
            params[1].grad = None

    path = walk_with(optimizer, params, range(20), withhold)
    assert torch.equal(path[6][3:7], path[0][3:7])
    assert (path[19][3:7] != path[6][3:7]).all()
    measured = momentum(optimizer).square().sum().item()
    assert optimizer.diagnostics()["momentum_sq"] == pytest.approx(measured, rel=1e-13)


@every_member
@both_paths
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_parameter_frozen_on_the_way_rests(member: Member, path: str, set_to_none: bool):
    params = parameters()
    optimizer = getattr(member, path)(params, lively=True)
    walk(optimizer, params, noisy, 9)
    params[1].requires_grad_(False)
    at = params[1].detach().clone()
    for k in range(9, 30):
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = noisy(flatten(params), k)
        loss.backward()
        optimizer.step(loss=loss)
        assert torch.equal(params[1], at)
        moving = [momentum_of(optimizer, p) for p in (params[0], params[2])]
        measured = sum(m.square().sum().item() for m in moving)
        assert optimizer.diagnostics()["momentum_sq"] == pytest.approx(measured, rel=1e-13)


@every_member
@both_paths
def test_the_others_take_over_the_energy_of_a_parameter_that_leaves(member: Member, path: str):
    """Without a force, the next step has the full length that the energy gives."""
    params = parameters()
    optimizer = getattr(member, path)(params)
    walk(optimizer, params, wavy, 9)
    params[1].requires_grad_(False)
    for p in params:
        p.grad = torch.zeros_like(p)
    before = flatten(params).detach().clone()
    optimizer.step(loss=0.3)
    moved = (flatten(params).detach() - before).norm().item()
    speed = member.hamiltonian.speed_limit(0.3, optimizer.diagnostics()["energy"], Floats)
    assert moved == pytest.approx(member.lr * speed, rel=1e-9)


def momentum_of(optimizer, p: Tensor) -> Tensor:
    return optimizer.state[p]["momentum"].double() * float(optimizer._motion.state.scale)


@every_member
def test_freezing_survives_a_resume(member: Member):
    def path(resume: bool) -> list[Tensor]:
        params = parameters()
        optimizer = member.build(params, lively=True)
        walk(optimizer, params, noisy, 9)
        params[1].requires_grad_(False)
        optimizer.zero_grad()
        if resume:
            saved = optimizer.state_dict()
            optimizer = member.build(params, lively=True)
            optimizer.load_state_dict(saved)
        return walk(optimizer, params, noisy, 11, start=9)

    assert all(torch.equal(a, b) for a, b in zip(path(True), path(False), strict=True))


@every_member
def test_joining_right_after_a_resume_is_like_never_stopped(member: Member):
    def path(resume: bool) -> list[Tensor]:
        params = parameters()
        params[1].requires_grad_(False)
        optimizer = member.build(params, lively=True)
        walk(optimizer, params, noisy, 9)
        params[1].requires_grad_(True)
        if resume:
            saved = optimizer.state_dict()
            optimizer = member.build(params, lively=True)
            optimizer.load_state_dict(saved)
        return walk(optimizer, params, noisy, 11, start=9)

    assert all(torch.equal(a, b) for a, b in zip(path(True), path(False), strict=True))


@every_member
def test_no_gradient_at_all_is_an_error(member: Member):
    optimizer = member.build(parameters())
    with pytest.raises(RuntimeError, match=r"No parameter has a gradient: call loss.backward\(\)"):
        optimizer.step(loss=1.0)


@every_member
@both_paths
def test_zeroed_and_deleted_gradients_are_alike(member: Member, path: str):
    paths = []
    for set_to_none in (True, False):
        params = parameters()
        optimizer = getattr(member, path)(params, lively=True)
        positions = []
        for k in range(15):
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = noisy(flatten(params), k)
            loss.backward()
            optimizer.step(loss=loss)
            positions.append(flatten(params).detach().clone())
        paths.append(positions)
    assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))


@every_member
@both_paths
def test_sparse_gradients_are_made_dense(member: Member, path: str):
    def positions(sparse: bool) -> list[Tensor]:
        torch.manual_seed(3)
        embedding = torch.nn.Embedding(6, 3, sparse=sparse, dtype=torch.float64)
        optimizer = getattr(member, path)(embedding.parameters(), lively=True)
        found = []
        for k in range(15):
            optimizer.zero_grad()
            loss = (embedding(torch.tensor([k % 6, 1, 1])) - 0.5).square().sum() + 0.1
            loss.backward()
            assert embedding.weight.grad.is_sparse == sparse
            optimizer.step(loss=loss)
            found.append(embedding.weight.detach().clone().reshape(-1))
        return found

    assert_same(positions(True), positions(False))


@every_member_with("extra_energy")
@both_paths
def test_a_zero_first_gradient_gives_a_random_direction(member: Member, path: str):
    params = parameters()
    before = flatten(params).detach().clone()
    optimizer = getattr(member, path)(params, extra_energy=1.0)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(loss=1.0)
    moved = flatten(params).detach() - before
    assert moved.isfinite().all()
    assert (moved != 0).all()
    assert optimizer.diagnostics()["speed_over_limit"] == pytest.approx(1.0, rel=1e-9)


@every_member_with("extra_energy")
@both_paths
def test_a_zero_first_gradient_at_rest_stays_at_rest_until_there_is_one(member: Member, path: str):
    x = parameters(dtype=torch.float32)
    before = flatten(x).detach().clone()
    optimizer = getattr(member, path)(x, lively=True)
    for p in x:
        p.grad = torch.zeros_like(p)
    optimizer.step(loss=1.0)
    assert torch.equal(flatten(x), before)
    walk(optimizer, x, wavy, 5)
    assert flatten(x).isfinite().all()
    assert (flatten(x) != before).all()


def test_complex_parameters_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"complex parameter.*torch\.view_as_real"):
        member_of(BBI).build([Parameter(torch.zeros(2, dtype=torch.complex64))])


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "part of a larger one": lambda x: torch.cat([x, x])[2:],
    "shifted": lambda x: torch.cat([torch.zeros(1, dtype=x.dtype), x.reshape(-1)])[1:].reshape(x.shape),
}


@every_member
@both_paths
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient", ["of the parameter", "contiguous", "channels_last"])
def test_memory_formats_make_no_difference(member: Member, path: str, layout: str, gradient: str):
    base = torch.randn(2, 3, 2, 2, dtype=torch.float64)

    def positions(x: Tensor, like: str) -> list[Tensor]:
        p = Parameter(x)
        optimizer = getattr(member, path)([p])
        found = []
        for k in range(15):
            optimizer.zero_grad()
            loss = noisy(p.reshape(-1), k)
            (g,) = torch.autograd.grad(loss, p)
            formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
            p.grad = (
                g.contiguous(memory_format=formats[like]) if like in formats else torch.empty_like(p).copy_(g)
            )
            optimizer.step(loss=loss)
            found.append(p.detach().reshape(-1).clone())
        return found

    strided = LAYOUTS[layout](base.clone())
    assert torch.equal(strided, base)
    assert_same(positions(strided, gradient), positions(base.clone(), "of the parameter"), 1e-12)


@every_member
@both_paths
def test_scalars_and_empty_tensors_are_parameters_like_any_other(member: Member, path: str):
    x = [
        Parameter(torch.tensor(0.7, dtype=torch.float64)),
        Parameter(torch.tensor(-1.2, dtype=torch.float64)),
    ]
    y = [Parameter(torch.tensor([0.7, -1.2], dtype=torch.float64)), Parameter(torch.empty(0, 3).double())]
    expected = walk(getattr(member, path)(x), x, wavy, 20)
    optimizer = getattr(member, path)([y[1], y[0]])
    y[1].grad = torch.zeros_like(y[1])
    assert_same(walk(optimizer, y, wavy, 20), expected)


@every_member
@both_paths
def test_a_group_of_nothing_but_empty_tensors(member: Member, path: str):
    x, y, empty = parameters(), parameters(), Parameter(torch.empty(0, 3).double())
    expected = walk(getattr(member, path)(x, lively=True, weight_decay=0.1), x, wavy, 20)
    empty.grad = torch.zeros_like(empty)
    groups = [{"params": [empty]}, {"params": y}]
    optimizer = getattr(member, path)(groups, lively=True, weight_decay=0.1)
    assert_same(walk(optimizer, [*y, empty], wavy, 20), expected)


@every_member
def test_dtypes_may_be_mixed(member: Member):
    dtypes = [torch.float64, torch.bfloat16, torch.float32]
    params = [Parameter(p.detach().to(dtype)) for p, dtype in zip(parameters(), dtypes, strict=True)]
    optimizer = member.build(params, lively=True)

    before = [p.detach().clone() for p in params]
    for k in range(30):
        optimizer.zero_grad()
        loss = noisy(flatten([p.double() for p in params]), k)
        loss.backward()
        optimizer.step(loss=loss)
    assert all(not torch.equal(p, b) and p.isfinite().all() for p, b in zip(params, before, strict=True))
    assert [optimizer.state[p]["momentum"].dtype for p in params] == dtypes
    measured = momentum(optimizer).square().sum().item()
    assert optimizer.diagnostics()["momentum_sq"] == pytest.approx(measured, rel=1e-6)


@every_member
@both_paths
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 0.02), (torch.bfloat16, 0.1)]
)
def test_lower_precision_follows_float64(member: Member, path: str, dtype: torch.dtype, tolerance: float):
    x, y = parameters(dtype=dtype), [Parameter(p.detach().double()) for p in parameters(dtype=dtype)]
    found = walk(getattr(member, path)(x), x, quadratic_with_floor, 15)
    expected = walk(getattr(member, path)(y), y, quadratic_with_floor, 15)
    torch.testing.assert_close(found[-1].double(), expected[-1], rtol=0, atol=tolerance)


@every_member_with("nu")
@both_paths
def test_momenta_stay_within_float16(member: Member, path: str):
    """Every turn of the chaos element lengthens the stored momenta; they are brought back in time."""
    params = parameters(dtype=torch.float16)
    optimizer = getattr(member, path)(params, nu=0.3)
    largest = 0.0
    for k in range(300):
        for p in params:
            p.grad = 0.01 * p.detach()
        optimizer.step(loss=0.5 if k else 1.0)
        largest = max(largest, *(optimizer.state[p]["momentum"].abs().max().item() for p in params))
    assert 10 < largest < 20_000
    assert flatten(params).isfinite().all()


def quadratic_with_floor(theta: Tensor, k: int) -> Tensor:
    return quadratic(theta) + 0.1


def test_large_tensors_cut_into_runs_equal_small_ones():
    """A tensor above the size of a run, next to small ones, against the same numbers in many tensors."""
    torch.manual_seed(2)
    base = [torch.randn(n) for n in (10, 1_700_000, 300_000, 7, 400_000)]

    def positions(cut: int) -> Tensor:
        params = [Parameter(part.clone()) for b in base for part in b.split(cut)]
        optimizer = member_of(ECDSep).build(params, lr=1.0)
        for _ in range(4):
            optimizer.zero_grad()
            loss = 0.5 * sum(p.square().sum() for p in params)
            loss.backward()
            optimizer.step(loss=loss.double())
        return flatten(params).detach()

    torch.testing.assert_close(positions(10**9), positions(50_000), rtol=1e-5, atol=1e-6)
