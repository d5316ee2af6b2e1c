"""Near a quadratic minimum V = ½m²θ² the motion is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bbi_lightning.optim import BI, ECD, ECDSep

from .landscapes import Loss, walk
from .members import member_of

DEEP = 1e8
"""Extra energy that makes the motion late from the start: V ≪ E."""


def valley(m: float) -> Loss:
    return lambda theta, k: 0.5 * m**2 * theta.square().sum()


def descend(cls: type[ECD], m: float, steps: int, start: float = 1.0, **arguments: float) -> Tensor:
    """θ after 0, 1, …, steps steps in one dimension."""
    x = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = member_of(cls).build([x], **arguments)
    return torch.cat([torch.tensor([start]).double(), *walk(optimizer, [x], valley(m), steps)])


@pytest.mark.parametrize("m", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("m_lr", [0.1, 0.5, 0.873])
def test_born_infeld_does_not_overshoot_below_the_bound(m: float, m_lr: float):
    theta = descend(BI, m, steps=20, lr=m_lr / m, extra_energy=DEEP * m**2)
    a = m_lr / math.sqrt(2)
    assert (theta > 0).all()
    torch.testing.assert_close(
        theta[1:] / theta[:-1], torch.full((20,), 1 - a - a**2).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("m", [0.1, 1.0, 30.0])
def test_born_infeld_overshoots_above_the_bound_and_is_driven_out_again(m: float):
    theta = descend(BI, m, steps=12, lr=0.876 / m, extra_energy=DEEP * m**2)
    a = 0.876 / math.sqrt(2)
    assert theta[1] < 0
    outward = theta[2:] / theta[1:-1]
    torch.testing.assert_close(outward, torch.full((11,), 1 + a - a**2).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("lr", [1e-2, 1.0, 1e3, 1e8])
def test_ecdsep_never_overshoots_late(lr: float):
    """The factor of a step is 1/(1 + 2b) with b = Δt/(θ|π|)."""
    theta = descend(ECDSep, m=2.0, steps=30, lr=lr, eta=1.0, extra_energy=DEEP)
    assert (theta > 0).all()
    b = lr / math.sqrt(DEEP / 2)
    assert theta[1].item() == pytest.approx(1 / (1 + 2 * b), rel=1e-6)


@pytest.mark.parametrize("extra_energy", [0.0, 1.0, 1e3])
def test_the_loss_falls_no_faster_than_its_curvature_allows(extra_energy: float):
    """V(t) ≥ V(0) exp(-√(2L) t) in the continuum, for a Hessian with eigenvalues up to L."""
    stiffness = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    x = torch.nn.Parameter(torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64))
    start = 0.5 * (stiffness * x.detach().square()).sum()
    optimizer = member_of(BI).build([x], lr=1e-3, extra_energy=extra_energy)
    theta = torch.stack(walk(optimizer, [x], lambda t, k: 0.5 * (stiffness * t.square()).sum(), 2000))
    potential = 0.5 * (stiffness * theta.square()).sum(dim=1)
    time = 1e-3 * torch.arange(1, 2001).double()
    assert (potential >= 0.99 * start * torch.exp(-math.sqrt(2 * 4.0) * time)).all()


@pytest.mark.parametrize("m", [0.1, 1.0, 20.0])
def test_born_infeld_from_rest_falls_as_sech(m: float):
    """V(t) = E sech(√2 m t)."""
    lr, steps = 1e-3 / m, 3000
    theta = descend(BI, m, steps, lr=lr)
    time = lr * torch.arange(steps + 1).double()
    expected = 1 / torch.cosh(math.sqrt(2) * m * time)
    torch.testing.assert_close(theta.square(), expected, rtol=0.01, atol=0)


@pytest.mark.parametrize("m", [0.1, 10.0])
@pytest.mark.parametrize("start", [0.5, 1.0])
def test_ecdsep_with_eta_1_falls_at_a_rate_independent_of_the_curvature(m: float, start: float):
    """θ(t) = θ₀ sech(2t/θ₀)."""
    lr, steps = 1e-3 * start, 2000
    theta = descend(ECDSep, m, steps, start=start, lr=lr, eta=1.0)
    time = lr * torch.arange(steps + 1).double()
    torch.testing.assert_close(theta, start / torch.cosh(2 * time / start), rtol=0.01, atol=0)


@pytest.mark.parametrize("eta", [1.5, 2.0, 3.0])
def test_ecdsep_with_larger_eta_falls_algebraically(eta: float):
    """θ ~ t^(-1/(η-1)): late, θ^(1-η) grows linearly, at the rate 2(η-1)/θ₀^η."""
    lr, steps = 0.01, 4000
    theta = descend(ECDSep, 1.0, steps, lr=lr, eta=eta)
    late = theta[steps // 4 :]
    rate = torch.diff(late.pow(1 - eta)) / lr
    torch.testing.assert_close(rate, torch.full_like(rate, 2 * (eta - 1)), rtol=0.01, atol=0)
