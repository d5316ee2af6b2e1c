"""Saved at any step and loaded is the same as never stopped, to the last bit."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from bbi_lightning.optim import BBI, BI, ECDSep

from .landscapes import copies, noisy, parameters, walk
from .members import Member, every_member

STEPS = 16
DTYPES = [torch.float32, torch.float64, torch.bfloat16]

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
every_path = pytest.mark.parametrize("on_device", [False, True], ids=["floats", "tensors"])


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def build(member: Member, params: Any, on_device: bool, seed: int = 7):
    make = member.build_on_device if on_device else member.build
    return make(params, lively=True, seed=seed, weight_decay=0.01)


def assert_equal_states(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit, dtypes included."""
    for a, b in zip(
        torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        if isinstance(b, Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a.view(torch.uint8) if a.dim() else a, b.view(torch.uint8) if b.dim() else b)
        else:
            assert a == b


@every_member
@every_dtype
@every_path
def test_saved_at_any_step_and_loaded_equals_never_stopped(
    member: Member, dtype: torch.dtype, on_device: bool
):
    params = parameters(dtype=dtype)
    never_stopped = walk(build(member, params, on_device), params, noisy, STEPS)

    params = parameters(dtype=dtype)
    optimizer = build(member, params, on_device)
    for k in range(STEPS):
        resumed = copies(params)
        fresh = build(member, resumed, on_device, seed=99)
        fresh.load_state_dict(through_a_file(optimizer.state_dict()))
        rest = walk(fresh, resumed, noisy, STEPS - k, start=k)
        assert all(torch.equal(a, b) for a, b in zip(rest, never_stopped[k:], strict=True))
        walk(optimizer, params, noisy, 1, start=k)
    assert_equal_states(fresh.state_dict(), optimizer.state_dict())


@every_member
@every_dtype
def test_numbers_keep_their_dtypes_and_bits(member: Member, dtype: torch.dtype):
    params = parameters(dtype=dtype)
    optimizer = build(member, params, on_device=False)
    walk(optimizer, params, noisy, 13)
    saved = optimizer.state_dict()
    numbers = saved["param_groups"][0]["ecd"]
    assert {x.dtype for x in numbers.values()} == {torch.float64, torch.int64}
    assert {x.dim() for x in numbers.values()} == {0}
    assert {entry["momentum"].dtype for entry in saved["state"].values()} == {dtype}

    params = copies(params)
    fresh = build(member, params, on_device=False)
    fresh.load_state_dict(through_a_file(saved))
    assert_equal_states(fresh.state_dict(), saved)


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(3, 4, dtype=dtype), nn.Linear(4, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def train(net: Net, optimizer, steps: range) -> None:
    dtype = net.first.weight.dtype
    for k in steps:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(k)).to(dtype)
        optimizer.zero_grad()
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean() + 0.1
        loss.backward()
        optimizer.step(loss=loss)


@every_member
@every_dtype
@pytest.mark.parametrize("saved_at", [0, 1, 11])
def test_through_distributed_checkpoint_functions(member: Member, dtype: torch.dtype, saved_at: int):
    never_stopped, net = Net(dtype), Net(dtype)
    train(never_stopped, build(member, never_stopped.parameters(), False), range(STEPS))

    optimizer = build(member, net.parameters(), False)
    train(net, optimizer, range(saved_at))
    resumed = copy.deepcopy(net)
    fresh = build(member, resumed.parameters(), False, seed=99)
    set_optimizer_state_dict(resumed, fresh, through_a_file(get_optimizer_state_dict(net, optimizer)))
    train(resumed, fresh, range(saved_at, STEPS))
    assert_equal_states(resumed.state_dict(), never_stopped.state_dict())

    train(net, optimizer, range(saved_at, STEPS))  # asking for the state did not disturb the run
    assert_equal_states(net.state_dict(), never_stopped.state_dict())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@every_member
def test_through_a_distributed_checkpoint_on_disk(member: Member, tmp_path: Path):
    never_stopped, net = Net(torch.float32), Net(torch.float32)
    train(never_stopped, build(member, never_stopped.parameters(), False), range(STEPS))

    optimizer = build(member, net.parameters(), False)
    train(net, optimizer, range(11))
    dcp.save(
        {"net": net.state_dict(), "optimizer": get_optimizer_state_dict(net, optimizer)},
        checkpoint_id=tmp_path,
    )

    resumed = Net(torch.float32)
    fresh = build(member, resumed.parameters(), False, seed=99)
    states = {"net": resumed.state_dict(), "optimizer": get_optimizer_state_dict(resumed, fresh)}
    dcp.load(states, checkpoint_id=tmp_path)
    resumed.load_state_dict(states["net"])
    set_optimizer_state_dict(resumed, fresh, states["optimizer"])
    train(resumed, fresh, range(11, STEPS))
    assert_equal_states(resumed.state_dict(), never_stopped.state_dict())


@every_member
@every_path
@pytest.mark.parametrize("saved_at", [0, 1, 11])
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_copies_go_their_own_identical_way(member: Member, on_device: bool, saved_at: int, duplicate):
    params = parameters(dtype=torch.float32)
    optimizer = build(member, params, on_device)
    walk(optimizer, params, noisy, saved_at)
    twin, twin_params = duplicate((optimizer, params))
    assert twin_params[0] is twin.param_groups[0]["params"][0]
    rest = walk(optimizer, params, noisy, STEPS - saved_at, start=saved_at)
    twin_rest = walk(twin, twin_params, noisy, STEPS - saved_at, start=saved_at)
    assert all(torch.equal(a, b) for a, b in zip(rest, twin_rest, strict=True))
    assert twin.diagnostics() == pytest.approx(optimizer.diagnostics(), rel=0, abs=0, nan_ok=True)


@every_member
@pytest.mark.parametrize("other", [torch.optim.SGD, torch.optim.AdamW])
def test_the_state_of_another_kind_of_optimizer_is_refused(member: Member, other: type):
    params = parameters()
    stranger = other(params, lr=0.1)
    walk(member.build(params), params, noisy, 1)
    stranger.step()
    optimizer = member.build(params)
    with pytest.raises(ValueError, match=f"holds no energy, so {member.name} cannot continue from it"):
        optimizer.load_state_dict(stranger.state_dict())
    walk(optimizer, params, noisy, 3)


def test_the_state_of_another_member_is_refused_and_of_the_same_hamiltonian_taken():
    params = parameters()
    bbi = BBI(params, lr=0.01)
    walk(bbi, params, noisy, 2)
    with pytest.raises(ValueError, match="ECDSep cannot continue from the state of another member"):
        ECDSep(params, lr=0.01).load_state_dict(bbi.state_dict())
    BI(params, lr=0.01).load_state_dict(bbi.state_dict())


@every_member
def test_a_state_of_other_parameters_is_refused(member: Member):
    params = parameters()
    saved = member.build(params).state_dict()
    with pytest.raises(ValueError, match="parameter group"):
        member.build(params[:1]).load_state_dict(saved)


@every_member
def test_a_scheduler_resumes_with_the_optimizer(member: Member):
    def pair(params):
        optimizer = member.build(params, lively=True)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)

    def steps(params, optimizer, scheduler, numbers: range) -> list[Tensor]:
        path = []
        for k in numbers:
            path += walk(optimizer, params, noisy, 1, start=k)
            scheduler.step()
        return path

    params = parameters()
    never_stopped = steps(params, *pair(params), range(STEPS))
    params = parameters()
    optimizer, scheduler = pair(params)
    steps(params, optimizer, scheduler, range(10))
    saved = through_a_file({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})

    optimizer, scheduler = pair(params)
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    rest = steps(params, optimizer, scheduler, range(10, STEPS))
    assert all(torch.equal(a, b) for a, b in zip(rest, never_stopped[10:], strict=True))
