"""ECDq1: motion at unit speed. Reference: arXiv:2501.18419 (q = 1); used at scale in arXiv:2601.22257."""

from __future__ import annotations

from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.ecd import ECD, Params
from bbi_lightning.optim.hamiltonians import Isokinetic


class ECDq1(ECD):
    """Energy-conserving descent with H = |π| - (F - F₀)^(-ηn/(2(n-1))) at E = 0; u = π/|π|.

        |u|² = 1   (restored at every step)
        u ← u - Δt ηn/(2(n - 1)) (g - u(u·g))/(F - F₀)
        θ ← θ + Δt u
        chaos element: u ← (u + νz)/|u + νz|, z normal

    It never slows: it needs a ``floor`` well below what is reached (the papers use F_min - 1) or a
    decaying ``lr`` to end.

    Args:
        params: parameters or groups (``lr`` and ``weight_decay`` may differ by group); n ≥ 2 numbers.
        lr: Δt > 0: the length of a step, up to the bend of the kick (a factor 1 + O(Δt²)).
        eta: η > 0; the measure is (F - F₀)^(-ηn/2). In many dimensions it concentrates only for η > 1.
        nu: ν ≥ 0, the chaos element, see ``ECDSep``.
        floor, weight_decay, seed: as for ``BBI``. There is no extra energy: E = 0 by definition.

    Raises:
        ValueError: an argument out of range, fewer than 2 parameters, or a first loss below ``floor``.
        TypeError: ``step`` without a loss.

    Differences from the published code: u·g is taken over all tensors (tensor by tensor samples another
    measure); Δt and ν are not divided by √η and √n behind your back.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> optimizer = ECDq1([x], lr=0.01, eta=2.0, nu=0.0, floor=-1.0)
        >>> losses = []
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     losses.append(optimizer.step(loss=loss).item())
        >>> min(losses) < 1e-3
        True
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        eta: float = 2.0,
        nu: float = 1e-5,
        floor: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 < eta < float("inf"):
            raise ValueError(f"eta={eta} must be positive: it is the exponent of the potential.")
        super().__init__(
            params,
            lr,
            hamiltonian=Isokinetic(eta),
            bounce_rule=BounceRule(nu=nu),
            floor=floor,
            weight_decay=weight_decay,
            seed=seed,
        )
