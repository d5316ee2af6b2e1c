"""MassECD: a two-derivative action whose mass grows as 1/loss. Reference: the talk "BI for AI"."""

from __future__ import annotations

from bbi_lightning.optim.bouncing import BouncingECD
from bbi_lightning.optim.hamiltonians import MassOverLoss


class MassECD(BouncingECD):
    """Motion that slows near the floor because its mass is 1/(2V), with BBI's bounces.

    H = Vπ² + V = E:
        |π|² = E/V - 1   (restored at every step)
        π ← π - Δt (E/V) ∇F
        θ ← θ + 2 Δt V π

    Arguments, errors and state as for ``BBI``. The speed is 2√(V(E - V)).

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> optimizer = MassECD([x], lr=0.01)
        >>> for _ in range(500):
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     _ = optimizer.step(loss=loss)
        >>> bool(loss < 1e-6)
        True
    """

    law = MassOverLoss()
