"""Each baseline is its library's arithmetic, saves all it needs, and says what it cannot do."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import pytorch_optimizer
import schedulefree
import torch
from torch import Tensor, nn

from bbi_lightning.baselines.muon import Muon
from bbi_lightning.baselines.sam import SAM
from bbi_lightning.baselines.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD

Make = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
OURS: dict[str, Make] = {
    "schedule_free_adamw": lambda p: ScheduleFreeAdamW(p, lr=0.01, weight_decay=0.1, warmup_steps=5),
    "schedule_free_sgd": lambda p: ScheduleFreeSGD(p, lr=0.1, weight_decay=0.01),
    "muon": lambda p: Muon(p, lr=0.02, weight_decay=0.1, rest_lr=0.01),
    "sam": lambda p: SAM(p, lr=0.05, rho=0.1),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(27, 2)
    )


def closure_of(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Callable[[], Tensor]:
    images = torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(number))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(images).square().mean() + model(images)[:, 0].mean()
        loss.backward()
        return loss

    return closure


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: Iterable[int]) -> None:
    for number in numbers:
        optimizer.step(closure_of(model, optimizer, number))


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("judged", [False, True], ids=["in training", "while judged"])
def test_saved_and_loaded_is_as_if_never_stopped(name: str, judged: bool) -> None:
    model, other = net(), net()
    optimizer = OURS[name](model.parameters())
    steps(model, optimizer, range(4))
    if judged and hasattr(optimizer, "eval"):
        optimizer.eval()
    state = saved([model.state_dict(), optimizer.state_dict()])
    if hasattr(optimizer, "train"):
        optimizer.train()
    steps(model, optimizer, range(4, 8))

    again = OURS[name](other.parameters())
    other.load_state_dict(state[0])
    again.load_state_dict(state[1])
    if hasattr(again, "train"):
        again.train()
    steps(other, again, range(4, 8))
    assert same(weights(model), weights(other))


@pytest.mark.parametrize("name", OURS)
def test_a_schedule_changes_every_rate(name: str) -> None:
    model, frozen = net(), net()
    for one, factor in ((model, 1.0), (frozen, 0.0)):
        optimizer = OURS[name](one.parameters())
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step, f=factor: f)
        steps(one, optimizer, range(3))
    moved = zip(weights(model), weights(net()), strict=True)
    assert not any(torch.equal(a, b) for a, b in moved)
    # SAM goes to w + ε and back through a copy; the others do not leave
    assert same(weights(frozen), weights(net()))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_schedule_free_takes_the_librarys_steps(kind: str) -> None:
    mine, theirs = net(), net()
    if kind == "adamw":
        ours: Any = ScheduleFreeAdamW(mine.parameters(), lr=0.01, weight_decay=0.1, warmup_steps=3)
        reference: Any = schedulefree.AdamWScheduleFree(
            theirs.parameters(), lr=0.01, weight_decay=0.1, warmup_steps=3
        )
    else:
        ours = ScheduleFreeSGD(mine.parameters(), lr=0.1, weight_decay=0.01)
        reference = schedulefree.SGDScheduleFree(theirs.parameters(), lr=0.1, weight_decay=0.01)
    reference.train()
    for number in range(6):
        steps(mine, ours, [number])
        steps(theirs, reference, [number])
        assert same(weights(mine), weights(theirs))
        before = weights(mine)
        ours.eval()
        result = weights(mine)
        ours.train()
        assert same(weights(mine), before)
    reference.eval()
    assert same(result, weights(theirs))
    assert not same(result, before)


def test_schedule_free_result_is_the_mean_of_the_plain_iterates() -> None:
    """With β → its definition: x is the mean of z₁ … z_k where the rate is constant (eq. 5, c = 1/k)."""
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = ScheduleFreeSGD([w], lr=0.1)
    iterates = []
    for _ in range(5):
        optimizer.zero_grad()
        (w**2).sum().backward()
        optimizer.step()
        iterates.append(optimizer.state[w]["z"].clone())
    optimizer.eval()
    torch.testing.assert_close(w.detach(), torch.stack(iterates).mean(0))


def test_exchanging_twice_is_exchanging_once() -> None:
    model = net()
    optimizer = ScheduleFreeSGD(model.parameters(), lr=0.1)
    steps(model, optimizer, range(2))
    optimizer.train()
    at_y = weights(model)
    optimizer.eval()
    at_x = weights(model)
    optimizer.eval()
    assert same(weights(model), at_x)
    optimizer.train()
    assert same(weights(model), at_y)


def test_a_step_while_judged_is_refused() -> None:
    model = net()
    optimizer = ScheduleFreeSGD(model.parameters(), lr=0.1)
    steps(model, optimizer, range(1))
    optimizer.eval()
    with pytest.raises(Exception, match="not in train mode"):
        steps(model, optimizer, range(1))


def test_muon_is_torchs_muon_on_matrices_and_adamw_on_the_rest() -> None:
    mine, theirs = net(), net()
    ours = Muon(mine.parameters(), lr=0.02, weight_decay=0.1, rest_lr=0.01, rest_weight_decay=0.2)
    flat = [nn.Parameter(theirs[i].weight.detach().flatten(1).clone()) for i in (0, 2)]
    others = [theirs[0].bias, theirs[2].bias, theirs[4].weight, theirs[4].bias]
    muon = torch.optim.Muon(flat, lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW(others, lr=0.01, betas=(0.9, 0.95), weight_decay=0.2)
    for number in range(4):
        steps(mine, ours, [number])
        closure_of(theirs, adamw, number)()
        for matrix, layer in zip(flat, (theirs[0], theirs[2]), strict=True):
            matrix.grad = layer.weight.grad.flatten(1)
        muon.step()
        adamw.step()
        for matrix, layer in zip(flat, (theirs[0], theirs[2]), strict=True):
            layer.weight.data.copy_(matrix.detach().view_as(layer.weight))
            layer.weight.grad = None
    assert same(weights(mine), weights(theirs))


def test_muons_update_of_a_matrix_is_nearly_orthogonal() -> None:
    w = nn.Parameter(torch.zeros(6, 10))
    optimizer = Muon([{"params": [w], "muon": True}], lr=1.0)
    w.grad = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    lengths = torch.linalg.svdvals(w.detach())
    assert float(lengths.min()) > 0.5
    assert float(lengths.max()) < 1.5


def test_muon_leaves_output_layer_and_single_rows_to_adamw() -> None:
    token, hidden, bias = (nn.Parameter(torch.zeros(*shape)) for shape in ((1, 1, 8), (8, 8), (8,)))
    output = nn.Parameter(torch.zeros(1, 8))
    groups = Muon([token, hidden, bias, output], lr=0.1).param_groups
    assert [(group["muon"], len(group["params"])) for group in groups] == [(True, 1), (False, 3)]
    assert groups[0]["params"][0] is hidden


def test_muon_without_a_matrix_says_so() -> None:
    with pytest.warns(UserWarning, match="no hidden matrix"):
        Muon(nn.Linear(3, 2).parameters(), lr=0.1)


def test_muon_refuses_groups_that_do_not_say_who_moves_them() -> None:
    with pytest.raises(ValueError, match="'muon': True or False"):
        Muon([{"params": [nn.Parameter(torch.zeros(2, 2))]}], lr=0.1)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "muon": True}], lr=0.1)


def test_muon_refuses_weights_it_cannot_view() -> None:
    model = net().to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="channels_last will not do"):
        steps(model, Muon(model.parameters(), lr=0.1), range(1))


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_the_papers_two_passes(adaptive: bool) -> None:
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    scale = torch.tensor([3.0, 0.5], dtype=torch.float64)
    optimizer = SAM([w], lr=0.1, rho=0.2, adaptive=adaptive, momentum=0.0)

    def loss_of(point: Tensor) -> Tensor:
        return (scale * point**2).sum() / 2

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(w)
        loss.backward()
        return loss

    start = w.detach().clone()
    gradient = scale * start
    size = start.abs() if adaptive else torch.ones(2, dtype=torch.float64)
    nearby = start + 0.2 * size**2 * gradient / (size * gradient).norm()
    loss = optimizer.step(closure)
    assert loss.item() == loss_of(start).item()
    torch.testing.assert_close(w.detach(), start - 0.1 * scale * nearby)


def test_sam_takes_the_librarys_steps_and_without_radius_those_of_sgd() -> None:
    mine, theirs, small, plain = net(), net(), net(), net()
    steps(mine, SAM(mine.parameters(), lr=0.05, rho=0.1), range(4))
    reference = pytorch_optimizer.SAM(theirs.parameters(), torch.optim.SGD, rho=0.1, lr=0.05, momentum=0.9)
    for number in range(4):
        closure = closure_of(theirs, reference, number)
        closure()
        reference.step(closure)
    assert same(weights(mine), weights(theirs))
    steps(small, SAM(small.parameters(), lr=0.05, rho=0.0), range(4))
    steps(plain, torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9), range(4))
    assert same(weights(small), weights(plain))


def test_sam_needs_a_closure() -> None:
    with pytest.raises(ValueError, match=r"step\(closure\)"):
        SAM([nn.Parameter(torch.zeros(1))], lr=0.1).step()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: ScheduleFreeAdamW(p, lr=0.0), "lr=0.0"),
        (lambda p: ScheduleFreeAdamW(p, lr=0.1, betas=(1.0, 0.9)), "betas=1.0"),
        (lambda p: ScheduleFreeSGD(p, lr=0.1, momentum=0.0), "momentum=0.0"),
        (lambda p: ScheduleFreeSGD(p, lr=0.1, weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda p: Muon(p, lr=-1.0), "lr=-1.0"),
        (lambda p: Muon(p, lr=0.1, rest_lr=0.0), "rest_lr=0.0"),
        (lambda p: SAM(p, lr=0.0), "lr=0.0"),
        (lambda p: SAM(p, lr=0.1, rho=-0.1), "rho=-0.1"),
    ],
)
def test_a_value_out_of_range_is_named(make: Make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make([nn.Parameter(torch.zeros(2, 2))])


def test_a_copy_of_the_state_does_not_follow() -> None:
    model = net()
    optimizer = ScheduleFreeSGD(model.parameters(), lr=0.1)
    steps(model, optimizer, range(2))
    optimizer.eval()
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.train()
    steps(model, optimizer, range(2, 4))
    optimizer.load_state_dict(state)
    optimizer.train()
    assert same([state["state"][i]["y"] for i in range(6)], weights(model))
