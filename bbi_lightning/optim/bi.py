"""BI: Born-Infeld dynamics without bounces. Reference: arXiv:2201.11137, section 2."""

from __future__ import annotations

from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.ecd import ECD, Params
from bbi_lightning.optim.hamiltonians import BornInfeld


class BI(ECD):
    """Frictionless Born-Infeld motion: BBI that never bounces.

    H = √(V(V + π²)) = E. See ``BBI`` for the equations and the arguments.

    Without bounces a symmetric landscape conserves angular momenta: the particle spirals in more slowly, and
    orbits for ever where ``floor`` lies below the minimum; use ``BBI`` unless that is what you study.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> optimizer = BI([x], lr=0.1)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     _ = optimizer.step(loss=loss)
        >>> bool(loss < 1e-6)
        True
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        floor: float = 0.0,
        extra_energy: float = 0.0,
        weight_decay: float = 0.0,
        conserve: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            lr,
            hamiltonian=BornInfeld(),
            bounce_rule=BounceRule(),
            floor=floor,
            extra_energy=extra_energy,
            weight_decay=weight_decay,
            conserve=conserve,
            seed=seed,
        )
