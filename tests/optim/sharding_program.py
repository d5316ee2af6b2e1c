"""Run by test_sharding.py as several processes: parameters cut into shards, beside the same ones whole.

python -m tests.optim.sharding_program RANK RANKS MEETING TASK OUT

Every process walks the whole parameters alone and the sharded ones with the others; rank 0 saves both paths.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.nn import Parameter

from bbi_lightning.optim import ECD, sharding
from bbi_lightning.training.leaving import own_exit_code

from .landscapes import Loss, flatten, noisy, parameters, quadratic
from .launch import meet
from .members import MEMBERS, Member

STEPS = 60
SAVED_AT = 23
SHAPES = ((3,), (1,), (2, 2), (5, 3), (), (7, 1))
"""With two processes: uneven parts, and one that has nothing; a scalar, which cannot be cut."""
LARGE = ((3, 70_001), (90_000,))
"""Over several blocks of random numbers, with cuts inside of them."""


def spread(params: Sequence[Tensor], mesh: DeviceMesh, placements: Sequence[Placement]) -> list[Parameter]:
    """The same parameters over the mesh; those that cannot be cut like that are replicated instead."""
    found = []
    for p in params:
        fits = [Replicate() if x.is_shard() and p.dim() <= x.dim else x for x in placements]
        found.append(Parameter(distribute_tensor(p.detach().clone(), mesh, fits)))
    return found


def whole(params: Sequence[Tensor]) -> list[Tensor]:
    return [p.full_tensor() if isinstance(p, DTensor) else p for p in params]


def walk(optimizer: ECD, params: Sequence[Tensor], loss_of: Loss, steps: range) -> tuple[Tensor, list[Any]]:
    """Return θ after each step, shape (steps, n), and the state's numbers after each."""
    positions, numbers = [], []
    theta = flatten(whole(params))
    for k in steps:
        optimizer.zero_grad()
        loss = loss_of(theta, k)
        loss.backward()
        optimizer.step(loss=loss)
        theta = flatten(whole(params))
        positions.append(theta.detach().clone())
        optimizer._settle()
        state = optimizer._motion.state
        numbers.append([state.energy, float(state.scale), float(state.momentum_sq), state.clock.bounces])
    return torch.stack(positions), numbers


def compare(
    build: Callable[[Sequence[Tensor]], ECD],
    mesh: DeviceMesh,
    placements: Sequence[Placement],
    *,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    loss_of: Loss = noisy,
    steps: int = STEPS,
) -> dict[str, Any]:
    x = parameters(shapes)
    y = spread(x, mesh, placements)
    ours, theirs = build(x), build(y)
    expected, _ = walk(ours, x, loss_of, range(steps))
    found, numbers = walk(theirs, y, loss_of, range(steps))
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, [numbers, min(p.to_local().numel() for p in y)])
    momenta = [theirs.state[p]["momentum"] for p in y]
    return {
        "expected": expected,
        "found": found,
        "ranks_agree": all(other[0] == gathered[0][0] for other in gathered),
        "bounces": theirs.diagnostics()["bounces"],
        "turn_cosine": [ours.diagnostics()["turn_cosine"], theirs.diagnostics()["turn_cosine"]],
        "like_parameters": all(
            isinstance(m, DTensor) and m.placements == p.placements and m.shape == p.shape
            for m, p in zip(momenta, y, strict=True)
        ),
        "fewest_numbers": min(fewest for _, fewest in gathered),
    }


def lively(member: Member, path: str = "build") -> Callable[[Sequence[Tensor]], ECD]:
    return lambda params: getattr(member, path)(params, lively=True, seed=11, weight_decay=0.01)


def members(mesh: DeviceMesh) -> dict[str, Any]:
    found = {}
    for member in MEMBERS:
        for path in ("build", "build_on_device"):
            found[f"{member.name}, {path}"] = compare(lively(member, path), mesh, [Shard(0)])
    return found


def cuts(mesh: DeviceMesh) -> dict[str, Any]:
    """Other cuts, and parameters larger than a block of random numbers."""
    bbi = next(m for m in MEMBERS if m.name == "BBI")
    sep = next(m for m in MEMBERS if m.name == "ECDSep")
    found = {
        "columns": compare(lively(bbi), mesh, [Shard(1)]),
        "replicated": compare(lively(bbi), mesh, [Replicate()]),
    }
    for name, placement in (("rows of large", Shard(0)), ("columns of large", Shard(1))):
        for member, path in ((bbi, "build"), (sep, "build_on_device")):
            build = lively(member, path)
            case = compare(build, mesh, [placement], shapes=LARGE, loss_of=quadratic, steps=12)
            found[f"{name}, {member.name}"] = case
    return found


def two_dimensions() -> dict[str, Any]:
    """Four processes: two replicas of two shards, and shards in both dimensions."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
    found = {}
    for member in MEMBERS:
        if member.name in ("BBI", "ECDq1"):
            found[f"replicas, {member.name}"] = compare(lively(member), mesh, [Replicate(), Shard(0)])
            found[f"both, {member.name}"] = compare(lively(member), mesh, [Shard(1), Shard(0)])
    return found


class Counted:
    """Counts the collectives of the optimizer."""

    def __init__(self) -> None:
        self.calls = 0
        self._real = dist.all_reduce

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._real(*args, **kwargs)


def collectives(mesh: DeviceMesh) -> dict[str, int]:
    """Collectives of one step."""
    found = {}
    for member in MEMBERS:
        for decay in (0.0, 0.01):
            params = spread(parameters(((4,), (6, 2))), mesh, [Shard(0)])
            optimizer = member.build(params, weight_decay=decay)
            walk(optimizer, params, quadratic, range(2))
            counted = Counted()
            sharding.dist.all_reduce = counted
            try:
                optimizer.step(loss=0.1)
            finally:
                sharding.dist.all_reduce = counted._real
            found[f"{member.name}, {decay}"] = counted.calls
    return found


def odd_ones(mesh: DeviceMesh) -> dict[str, Any]:
    """A sum that was not carried out is no parameter; a gradient placed otherwise is brought into place."""
    bbi = next(m for m in MEMBERS if m.name == "BBI")
    partial = Parameter(DTensor.from_local(torch.ones(3), mesh, [Partial()]))
    try:
        bbi.build([partial])
        refusal = ""
    except TypeError as error:
        refusal = str(error)

    paths = {}
    for name in ("sharded", "replicated", "partial"):
        (p,) = spread(parameters([(5, 2)]), mesh, [Shard(0)])
        optimizer = bbi.build([p])
        for k in range(5):
            value = whole([p])[0].detach()
            gradient = torch.cos(value + k)
            share = gradient * [0.25, 0.75][dist.get_rank()]
            p.grad = {
                "sharded": lambda g=gradient: distribute_tensor(g, mesh, [Shard(0)]),
                "replicated": lambda g=gradient: distribute_tensor(g, mesh, [Replicate()]),
                "partial": lambda s=share: DTensor.from_local(s, mesh, [Partial()]),
            }[name]()
            optimizer.step(loss=1.0 - 0.1 * k)
        paths[name] = whole([p])[0].detach()

    (p,) = spread(parameters([(5, 2)]), mesh, [Shard(0)])
    optimizer = bbi.build([p])
    p.grad = torch.ones_like(p)
    share_of_loss = torch.tensor([0.25, 0.75][dist.get_rank()], dtype=torch.float64)
    optimizer.step(loss=DTensor.from_local(share_of_loss, mesh, [Partial()]))
    paths["potential"] = optimizer.diagnostics()["potential"]
    return {"refusal": refusal, **paths}


class Cut(nn.Module):
    """A module with the parameters of ``SHAPES`` that can be cut."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self.all = nn.ParameterList(spread(parameters(SHAPES), mesh, [Shard(0)]))


def save(mesh: DeviceMesh, folder: Path) -> dict[str, Any]:
    """Save at a step, of every member; go on to the end."""
    found = {}
    for member in MEMBERS:
        model = Cut(mesh)
        optimizer = lively(member)(list(model.all))
        walk(optimizer, list(model.all), noisy, range(SAVED_AT))
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / member.name)
        found[member.name] = walk(optimizer, list(model.all), noisy, range(SAVED_AT, STEPS))[0]
    return found


def resume(mesh: DeviceMesh, folder: Path) -> dict[str, Any]:
    found = {}
    for member in MEMBERS:
        model = Cut(mesh)
        optimizer = lively(member)(list(model.all))
        weights, state = get_state_dict(model, optimizer)
        states = {"model": weights, "optimizer": state}
        dcp.load(states, checkpoint_id=folder / member.name)
        set_state_dict(
            model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"]
        )
        found[member.name] = walk(optimizer, list(model.all), noisy, range(SAVED_AT, STEPS))[0]
    return found


def from_whole(mesh: DeviceMesh) -> dict[str, Any]:
    """A state saved without shards is cut when it is loaded."""
    found = {}
    for member in MEMBERS:
        x = parameters(SHAPES)
        ours = lively(member)(x)
        walk(ours, x, noisy, range(SAVED_AT))
        y = spread(x, mesh, [Shard(0)])
        theirs = lively(member)(y)
        theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
        rest = range(SAVED_AT, STEPS)
        found[member.name] = {
            "expected": walk(ours, x, noisy, rest)[0],
            "found": walk(theirs, y, noisy, rest)[0],
        }
    return found


def new_memory(mesh: DeviceMesh) -> dict[str, Any]:
    """A shard that is given other memory on the way, as loading weights into it may do."""
    bbi = next(m for m in MEMBERS if m.name == "BBI")
    x = parameters(SHAPES)
    expected, _ = walk(lively(bbi)(x), x, noisy, range(STEPS))
    y = spread(parameters(SHAPES), mesh, [Shard(0)])
    optimizer = lively(bbi)(y)
    walk(optimizer, y, noisy, range(SAVED_AT))
    for p in y:
        p._local_tensor = p._local_tensor.clone()
    return {"expected": expected[SAVED_AT:], "found": walk(optimizer, y, noisy, range(SAVED_AT, STEPS))[0]}


def main(rank: int, ranks: int, meeting: str, task: str, out: Path) -> None:
    meet(rank, ranks, meeting)
    mesh = init_device_mesh("cpu", (ranks,))
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "members": lambda: members(mesh),
        "cuts": lambda: cuts(mesh),
        "two_dimensions": two_dimensions,
        "collectives": lambda: collectives(mesh),
        "odd_ones": lambda: odd_ones(mesh),
        "save": lambda: save(mesh, out),
        "resume": lambda: resume(mesh, out),
        "from_whole": lambda: from_whole(mesh),
        "new_memory": lambda: new_memory(mesh),
    }
    for name in task.split(","):
        found = tasks[name]()
        if rank == 0:
            torch.save(found, out / f"{name}-{ranks}.pt")
    dist.barrier()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with own_exit_code():
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5]))
