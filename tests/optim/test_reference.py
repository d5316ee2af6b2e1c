"""Agreement with the plain transcription of each published rule (reference.py), step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bbi_lightning.optim import ECDSep

from .landscapes import SHAPES, Loss, flatten, noisy, normals, parameters, walk, wavy
from .members import Member, every_member, every_member_with, member_of
from .reference import Particle, Separable

STEPS = 400


def loss_and_gradient(loss_of: Loss):
    def evaluate(theta: np.ndarray, k: int) -> tuple[float, np.ndarray]:
        x = torch.tensor(theta, requires_grad=True)
        loss = loss_of(x, k)
        loss.backward()
        return loss.item(), x.grad.numpy()

    return evaluate


def assert_agree(optimizer, params: list[Tensor], particle: Particle, loss_of: Loss) -> None:
    start = flatten(params).detach().numpy().copy()
    expected = particle.trajectory(start, loss_and_gradient(loss_of), STEPS)
    found = torch.stack(walk(optimizer, params, loss_of, STEPS)).numpy()
    np.testing.assert_allclose(found, expected[1:], rtol=0, atol=1e-10)
    assert np.abs(found[-1] - start).max() > 0.1
    assert optimizer.diagnostics()["bounces"] == len(particle.bounced_at)


@every_member
@pytest.mark.parametrize("loss_of", [wavy, noisy])
@pytest.mark.parametrize("lively", [False, True], ids=["quiet", "lively"])
def test_agrees_with_the_published_rule(member: Member, loss_of: Loss, lively: bool):
    params = parameters()
    draw = normals(SHAPES, seed=5)
    particle = Particle(
        member.rule,
        lr=member.lr,
        floor=-0.2,
        normals=lambda: draw().numpy(),
        **member.bounce_arguments(lively=lively),
    )
    optimizer = member.build(params, lively=lively, floor=-0.2, seed=5)
    assert_agree(optimizer, params, particle, loss_of)
    if lively and member.takes("patience"):
        assert len(particle.bounced_at) > 10


@every_member_with("extra_energy")
def test_agrees_when_it_starts_with_extra_energy(member: Member):
    params = parameters()
    particle = Particle(member.rule, lr=member.lr, extra_energy=0.7)
    assert_agree(member.build(params, extra_energy=0.7), params, particle, wavy)


@pytest.mark.parametrize(("eta", "s", "lr"), [(5.0, 1.0, 0.1), (1.0, 0.0, 0.02), (2.0, 0.3, 0.1)])
def test_agrees_for_every_exponent_and_regularization(eta: float, s: float, lr: float):
    params = parameters()
    particle = Particle(Separable(eta, s), lr=lr, extra_energy=0.1)
    optimizer = member_of(ECDSep).build(params, eta=eta, s=s, lr=lr, extra_energy=0.1)
    assert_agree(optimizer, params, particle, wavy)
