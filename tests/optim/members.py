"""One row per optimizer of the family: the shared suite holds every row to every promise.

A new member needs a row here; test_members.py fails while an exported class has none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest
import torch

from bbi_lightning.optim import BBI, BI, ECD, ECDq1, ECDSep, LogECD, MassECD
from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.hamiltonians import (
    BornInfeld,
    Hamiltonian,
    Isokinetic,
    LogBranch,
    LogSeparable,
    MassOverLoss,
)

from . import reference
from .reference import Rule


@dataclass(frozen=True)
class Member:
    """What the suite needs to know of one optimizer class.

    lr: a step size at which the landscapes of the suite are followed well.
    quiet: arguments without bounces and chaos. lively: arguments with both (where the member has them)
    within a few steps. hamiltonian: its H. rule: the plain transcription.
    rescaling: F - F₀ → c(F - F₀) with lr → lr · c^rescaling leaves the trajectory as it is.
    """

    cls: type[ECD]
    lr: float
    hamiltonian: Hamiltonian
    rule: Rule
    rescaling: float
    quiet: Mapping[str, Any] = field(default_factory=dict)
    lively: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.cls.__name__

    def takes(self, argument: str) -> bool:
        return argument in inspect.signature(self.cls).parameters

    def build(self, params: Iterable[Any], *, lively: bool = False, **arguments: Any) -> ECD:
        settings = {"lr": self.lr, **(self.lively if lively else self.quiet), **arguments}
        return self.cls(params, **settings)

    def build_on_device(self, params: Iterable[Any], **arguments: Any) -> ECD:
        """The path on which scalars stay tensors, as on an accelerator, with the CPU as that accelerator."""
        return replace(self, cls=ON_DEVICE[self.cls]).build(params, **arguments)

    def bounce_arguments(self, *, lively: bool) -> dict[str, Any]:
        """The arguments in the words of the plain transcription."""
        settings = self.lively if lively else self.quiet
        rule = settings.get("bounce_rule")
        known = asdict(rule) if rule is not None else settings
        return {k: known[k] for k in ("patience", "bounce_every", "n_bounces", "nu") if k in known}


STILL = {"patience": None, "n_bounces": 0}
BOUNCING = {"patience": 7, "bounce_every": 5, "n_bounces": 3}

MEMBERS = (
    Member(
        ECD,
        lr=0.1,
        hamiltonian=BornInfeld(),
        rule=reference.BornInfeld(),
        rescaling=-0.5,
        quiet={"hamiltonian": BornInfeld(), "bounce_rule": BounceRule()},
        lively={"hamiltonian": BornInfeld(), "bounce_rule": BounceRule(**BOUNCING, nu=0.05)},
    ),
    Member(BI, lr=0.1, hamiltonian=BornInfeld(), rule=reference.BornInfeld(), rescaling=-0.5),
    Member(
        BBI,
        lr=0.1,
        hamiltonian=BornInfeld(),
        rule=reference.BornInfeld(),
        rescaling=-0.5,
        quiet=STILL,
        lively=BOUNCING,
    ),
    Member(
        ECDSep,
        lr=0.1,
        hamiltonian=LogSeparable(eta=1.5, s=1.0),
        rule=reference.Separable(eta=1.5, s=1.0),
        rescaling=0.0,
        quiet={"eta": 1.5, "nu": 0.0},
        lively={"eta": 1.5, "nu": 0.05},
    ),
    Member(
        ECDq1,
        lr=0.05,
        hamiltonian=Isokinetic(eta=2.0, n=8),
        rule=reference.Q1(eta=2.0),
        rescaling=0.0,
        quiet={"eta": 2.0, "nu": 0.0},
        lively={"eta": 2.0, "nu": 0.05},
    ),
    Member(
        MassECD,
        lr=0.05,
        hamiltonian=MassOverLoss(),
        rule=reference.MassOverLoss(),
        rescaling=-1.0,
        quiet=STILL,
        lively=BOUNCING,
    ),
    Member(
        LogECD,
        lr=0.1,
        hamiltonian=LogBranch(),
        rule=reference.LogBranch(),
        rescaling=-0.5,
        quiet=STILL,
        lively=BOUNCING,
    ),
)


def _on_device(cls: type[ECD]) -> type[ECD]:
    name = f"{cls.__name__}OnDevice"
    own = {"__module__": __name__, "_scalars_stay_on": lambda self, shares: torch.device("cpu")}
    globals()[name] = type(name, (cls,), own)  # a name in this module, so that it can be pickled
    return globals()[name]


ON_DEVICE = {member.cls: _on_device(member.cls) for member in MEMBERS}

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)


def every_member_with(argument: str) -> pytest.MarkDecorator:
    those = [member for member in MEMBERS if member.takes(argument)]
    return pytest.mark.parametrize("member", those, ids=lambda member: member.name)


def member_of(cls: type[ECD]) -> Member:
    return next(member for member in MEMBERS if member.cls is cls)
