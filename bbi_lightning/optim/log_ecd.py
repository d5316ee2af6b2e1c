"""LogECD: a speed limit from a logarithmic branch cut. Reference: the talk "BI for AI"."""

from __future__ import annotations

from bbi_lightning.optim.bouncing import BouncingECD
from bbi_lightning.optim.hamiltonians import LogBranch


class LogECD(BouncingECD):
    """Motion from L = -V - (V/2) log(1 - v²/V), with BBI's bounces.

    With w = 1/(1 - v²/V), π² = V w(w - 1) and H = V(w - ½ log w) = E:
        π ← π - ½ Δt (1 + w - log w) ∇F
        θ ← θ + Δt π/w,   w from the kicked π

    Arguments, errors and state as for ``BBI``. The speed never reaches √V, at any step size.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> optimizer = LogECD([x], lr=0.1)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     _ = optimizer.step(loss=loss)
        >>> bool(loss < 1e-6)
        True
    """

    law = LogBranch()
