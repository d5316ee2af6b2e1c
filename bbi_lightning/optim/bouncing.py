"""What BBI, MassECD and LogECD share: a Hamiltonian of the loss itself, and bounces."""

from __future__ import annotations

from typing import ClassVar

from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.ecd import ECD, Params
from bbi_lightning.optim.hamiltonians import Hamiltonian


class BouncingECD(ECD):
    """A member that bounces when progress stalls; a subclass names its ``law``. Arguments: see ``BBI``."""

    law: ClassVar[Hamiltonian]

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        floor: float = 0.0,
        extra_energy: float = 0.0,
        patience: int | None = 3000,
        bounce_every: int = 1000,
        n_bounces: int = 1,
        weight_decay: float = 0.0,
        conserve: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            lr,
            hamiltonian=self.law,
            bounce_rule=BounceRule(patience, bounce_every, n_bounces),
            floor=floor,
            extra_energy=extra_energy,
            weight_decay=weight_decay,
            conserve=conserve,
            seed=seed,
        )
