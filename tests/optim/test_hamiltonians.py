"""The five functions of every Hamiltonian are those of one H(V, |π|²): checked by differentiating it."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from bbi_lightning.optim.hamiltonians import (
    BornInfeld,
    Hamiltonian,
    Isokinetic,
    LogBranch,
    LogSeparable,
    MassOverLoss,
)
from bbi_lightning.optim.scalars import Floats, Tensors

HAMILTONIANS = (
    BornInfeld(),
    MassOverLoss(),
    LogBranch(),
    LogSeparable(eta=1.0),
    LogSeparable(eta=5.0),
    LogSeparable(eta=1.5, s=0.0),
    LogSeparable(eta=1.0, s=0.01),
    Isokinetic(eta=1.0, n=2),
    Isokinetic(eta=3.0, n=1000),
)
every_hamiltonian = pytest.mark.parametrize("hamiltonian", HAMILTONIANS, ids=str)

REST_POTENTIALS = (1e-6, 1.0, 300.0)
"""V at which a particle of the tested energy rests."""
RATIOS = torch.cat([torch.logspace(-9, -0.01, 60), 1 - torch.logspace(-2, -9, 20)]).double()
"""V over that."""


def on_shell(hamiltonian: Hamiltonian, rest: float) -> tuple[Tensor, Tensor, Tensor]:
    """(V, E, |π|²) along the energy shell."""
    potential = rest * RATIOS
    energy = torch.tensor(hamiltonian.energy_at_rest(rest), dtype=torch.float64)
    unit, fraction = hamiltonian.shell(potential, energy, Tensors)
    return potential, energy, unit.square() * fraction


@every_hamiltonian
@pytest.mark.parametrize("rest", REST_POTENTIALS)
def test_kick_and_drift_are_the_derivatives_of_the_hamiltonian(hamiltonian: Hamiltonian, rest: float):
    potential, energy, momentum_sq = on_shell(hamiltonian, rest)
    v, p = potential.clone().requires_grad_(), momentum_sq.clone().requires_grad_()
    by_potential, by_momentum_sq = torch.autograd.grad(hamiltonian.energy(v, p, Tensors).sum(), (v, p))

    kick = hamiltonian.kick(potential, energy, Tensors).expand_as(v)
    drift = hamiltonian.drift(potential, energy, momentum_sq, Tensors)
    torch.testing.assert_close(kick, by_potential, rtol=1e-12, atol=0)
    torch.testing.assert_close(drift, 2 * by_momentum_sq, rtol=1e-12, atol=0)


@every_hamiltonian
def test_drift_at_any_momentum_where_it_follows_the_kick(hamiltonian: Hamiltonian):
    if not hamiltonian.drift_follows_kick:
        assert hamiltonian.drift(0.5, 0.9, None, Floats) == hamiltonian.drift(0.5, 0.9, 123.0, Floats)
        return
    for momentum_sq in (1e-8, 0.3, 40.0):
        p = torch.tensor(momentum_sq, dtype=torch.float64, requires_grad=True)
        v = torch.tensor(0.5, dtype=torch.float64)
        (slope,) = torch.autograd.grad(hamiltonian.energy(v, p, Tensors), p)
        found = hamiltonian.drift(0.5, math.nan, momentum_sq, Floats)
        assert found == pytest.approx(2 * slope.item(), rel=1e-12)


@every_hamiltonian
@pytest.mark.parametrize("rest", REST_POTENTIALS)
def test_the_shell_has_the_energy(hamiltonian: Hamiltonian, rest: float):
    potential, energy, momentum_sq = on_shell(hamiltonian, rest)
    found = hamiltonian.energy(potential, momentum_sq, Tensors)
    size = energy.abs().expand_as(found)
    if isinstance(hamiltonian, Isokinetic):  # the difference of two equal terms
        size = momentum_sq.sqrt()
    if isinstance(hamiltonian, LogSeparable):  # the sum of two logarithms
        size = 1 + 2 * hamiltonian.eta * potential.log().abs()
    assert ((found - energy).abs() <= 1e-15 * size).all()


@every_hamiltonian
def test_speed_limit_is_drift_times_momentum(hamiltonian: Hamiltonian):
    potential, energy, momentum_sq = on_shell(hamiltonian, 2.0)
    speed = hamiltonian.drift(potential, energy, momentum_sq, Tensors) * momentum_sq.sqrt()
    limit = hamiltonian.speed_limit(potential, energy, Tensors)
    torch.testing.assert_close(limit, speed, rtol=1e-12, atol=0)


@every_hamiltonian
def test_no_momentum_above_the_energy(hamiltonian: Hamiltonian):
    energy = hamiltonian.energy_at_rest(1.0)
    for potential in (1.0 + 1e-12, 2.0, 1e10):
        unit, fraction = hamiltonian.shell(potential, energy, Floats)
        always_moves = isinstance(hamiltonian, Isokinetic) or getattr(hamiltonian, "s", 1.0) == 0.0
        assert fraction == (1.0 if always_moves else 0.0)
        assert 0 < unit < math.inf
        assert 0 < hamiltonian.kick(potential, energy, Floats) < math.inf


def exact_momentum_sq(hamiltonian: Hamiltonian, potential: float, rest: float) -> Fraction | None:
    """|π|² by rational arithmetic, where the shell is rational."""
    v, e = Fraction(potential), Fraction(rest)
    if isinstance(hamiltonian, BornInfeld):
        return (e * e - v * v) / v
    if isinstance(hamiltonian, MassOverLoss):
        return (e - v) / v
    if hamiltonian == LogSeparable(eta=1.0):
        return (e - v) / v
    return None


@pytest.mark.parametrize("hamiltonian", [BornInfeld(), MassOverLoss(), LogSeparable(eta=1.0)], ids=str)
@pytest.mark.parametrize("potential", [1e-290, 1e-30, 1e-6, 0.1, 0.9])
def test_shell_is_right_from_tiny_to_large_potentials(hamiltonian: Hamiltonian, potential: float):
    unit, fraction = hamiltonian.shell(potential, hamiltonian.energy_at_rest(1.0), Floats)
    exact = exact_momentum_sq(hamiltonian, potential, 1.0)
    assert abs(Fraction(unit) ** 2 * Fraction(fraction) / exact - 1) < 1e-12


@pytest.mark.parametrize("hamiltonian", [BornInfeld(), MassOverLoss()], ids=str)
@pytest.mark.parametrize("gap", [1e-3, 1e-8, 1e-13])
@pytest.mark.parametrize("rest", [1.0, 0.3, 7e5])
def test_shell_keeps_its_digits_where_the_potential_nears_the_energy(
    hamiltonian: Hamiltonian, gap: float, rest: float
):
    potential = rest * (1 - gap)
    unit, fraction = hamiltonian.shell(potential, hamiltonian.energy_at_rest(rest), Floats)
    exact = exact_momentum_sq(hamiltonian, potential, rest)
    assert abs(Fraction(unit) ** 2 * Fraction(fraction) / exact - 1) < 1e-14


@pytest.mark.parametrize("ratio", ["1.0000001", "1.5", "10", "1e6", "1e200"])
def test_log_branch_solves_its_equation(ratio: str):
    """w - ½ log w = E/V, against bisection with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        target = Decimal(ratio)
        low, high = Decimal(1), 2 * target
        while high - low > target * Decimal("1e-40"):
            w = (low + high) / 2
            low, high = (w, high) if w - w.ln() / 2 < target else (low, w)
        exact = float(w)
        excess = float(w - 1)
    potential = 1.0 / float(ratio)
    unit, fraction = LogBranch().shell(potential, 1.0, Floats)
    assert unit / math.sqrt(potential) == pytest.approx(exact, rel=1e-14)
    assert fraction == pytest.approx(excess / exact, rel=1e-15 * float(ratio) / (float(ratio) - 1) * 4)


def test_eta_5_neither_overflows_nor_underflows():
    hamiltonian = LogSeparable(eta=5.0)
    energy = hamiltonian.energy_at_rest(2.0)
    for potential in (1e-44, 1e-30, 1e-10):
        unit, fraction = hamiltonian.shell(potential, energy, Floats)
        assert math.log(unit) == pytest.approx(2.5 * math.log(2.0 / potential), rel=1e-14)
        assert fraction == 1.0


@every_hamiltonian
def test_floats_and_tensors_agree(hamiltonian: Hamiltonian):
    """Also above the energy, and on tensors of many trials at once."""
    energy = hamiltonian.energy_at_rest(1.0)
    potentials = torch.cat([RATIOS, torch.tensor([1.0, 1.5, 1e6], dtype=torch.float64)])
    for momentum_sq in (0.0, 0.7, 1e20):
        for name, arguments in (
            ("energy", (momentum_sq,)),
            ("shell", (energy,)),
            ("kick", (energy,)),
            ("drift", (energy, momentum_sq)),
            ("speed_limit", (energy,)),
        ):
            if name == "energy" and momentum_sq == 0.0 and getattr(hamiltonian, "s", 1.0) == 0.0:
                continue  # log 0
            if name == "drift" and momentum_sq == 0.0 and getattr(hamiltonian, "s", 1.0) == 0.0:
                continue  # 1/0
            function = getattr(hamiltonian, name)
            many = [torch.tensor(a, dtype=torch.float64) for a in arguments]
            found = function(potentials, *many, Tensors)
            found = found if isinstance(found, tuple) else (found,)
            for i, potential in enumerate(potentials.tolist()):
                expected = function(potential, *arguments, Floats)
                expected = expected if isinstance(expected, tuple) else (expected,)
                for a, b in zip(found, expected, strict=True):
                    assert a.expand_as(potentials)[i].item() == pytest.approx(b, rel=1e-13, abs=1e-300), name


def test_only_ecd_q1_depends_on_the_dimension():
    assert Isokinetic(eta=2.0).for_dimension(5).k == pytest.approx(2.0 * 5 / (2 * 4))
    with pytest.raises(ValueError, match="at least 2 parameters"):
        Isokinetic().for_dimension(1)
    for hamiltonian in HAMILTONIANS[:-2]:
        assert hamiltonian.for_dimension(5) == replace(hamiltonian)
