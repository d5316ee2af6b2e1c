"""Rates over a run, in shares of its length."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bbi_lightning.optim import BBI
from bbi_lightning.training import schedules


def rates(schedule: Any, steps: int, optimizer_class: Any = torch.optim.SGD, **options: Any) -> list[float]:
    """The rate each step is taken with."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizer_class([parameter], lr=0.5)
    scheduler = schedule(optimizer, total_steps=steps, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        loss = (parameter**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step() if optimizer_class is torch.optim.SGD else optimizer.step(loss=loss)
        if scheduler is not None:
            scheduler.step()
    return seen


def test_constant_needs_no_scheduler() -> None:
    assert (
        schedules.constant(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), total_steps=5)
        is None
    )
    assert rates(schedules.constant, 5) == [0.5] * 5


def test_warmup_rises_linearly_from_above_zero_to_the_full_rate() -> None:
    assert rates(schedules.constant, 10, warmup=0.4) == pytest.approx([0.1, 0.2, 0.3, 0.4] + [0.5] * 6)


def test_cosine_agrees_with_its_formula_and_with_torch() -> None:
    ours = rates(schedules.cosine, 20, final=0.1)
    assert ours == pytest.approx(
        [0.05 + 0.5 * (0.5 - 0.05) * (1 + math.cos(math.pi * k / 20)) for k in range(20)]
    )
    torchs = rates(
        lambda optimizer, total_steps: torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=total_steps, eta_min=0.05
        ),
        20,
    )
    assert ours == pytest.approx(torchs)


def test_multistep_falls_at_shares_of_the_run_however_long() -> None:
    for steps in (10, 1000):
        seen = rates(schedules.multistep, steps, milestones=[0.3, 0.6, 0.8], gamma=0.1)
        changes = [k for k in range(1, steps) if seen[k] != seen[k - 1]]
        assert changes == [round(share * steps) for share in (0.3, 0.6, 0.8)]
        assert seen[-1] == pytest.approx(0.5e-3)


def test_step_falls_at_equal_distances() -> None:
    assert rates(schedules.step, 6, drops=2, gamma=0.5) == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.125, 0.125])


def test_energy_conserving_optimizers_obey() -> None:
    assert rates(schedules.cosine, 4, BBI)[-1] < 0.1


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (schedules.constant, {"warmup": 1.5}, "warmup=1.5 is not a share"),
        (schedules.cosine, {"final": -0.1}, "final=-0.1 is not a share"),
        (schedules.multistep, {"milestones": [0.5, 0.5]}, r"milestones=\[0.5, 0.5\] must rise"),
        (schedules.multistep, {"milestones": [30, 60]}, r"milestones=\[30, 60\] must rise within 0 and 1"),
        (schedules.multistep, {"gamma": 0.0}, "gamma=0.0 is not a factor"),
        (schedules.step, {"drops": 0}, "drops=0 is too small"),
    ],
)
def test_out_of_range(schedule: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(schedule, 10, **options)
