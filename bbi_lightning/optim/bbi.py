"""BBI: bouncing Born-Infeld optimization. Reference: G. B. De Luca, E. Silverstein, arXiv:2201.11137."""

from __future__ import annotations

from bbi_lightning.optim.bouncing import BouncingECD
from bbi_lightning.optim.hamiltonians import BornInfeld


class BBI(BouncingECD):
    """Frictionless motion with a speed limit √V, turned at random when progress stalls.

    With V = F - F₀ (eqs. 2.10 and section 2.3 of the paper):
        E = V(θ₀) + ΔE,   |π|² = E²/V - V   (restored at every step)
        π ← π - ½ Δt (V/E + E/V) ∇F
        θ ← θ + Δt (V/E) π
        bounce: π ← |π| · (isotropic random direction)

    Args:
        params: parameters or parameter groups (``lr`` and ``weight_decay`` may differ by group).
        lr: Δt, the time step, > 0. It sets how finely the motion is followed: 0.05 to 0.5 is usual for
            networks. Near a minimum with curvature m² it overshoots for m·Δt > 0.874.
        floor: F₀ (ΔV in the paper), a lower bound of the loss. The motion slows as F approaches it.
        extra_energy: ΔE (δE in the paper), ≥ 0, unit of the loss: lets the particle climb above its start.
        patience: T₁ (threshold1), bounce after this many steps without a new lowest loss; None never.
        bounce_every: T₀ (threshold0), steps between fixed bounces.
        n_bounces: N_b (n_fixed_bounces), how many fixed bounces; 0 none.
        weight_decay: λ, adds ½λ|θ|² to F, in loss and gradient.
        conserve: restore E at every step (default).
        seed: of the bounces; the same on every rank.

    Raises:
        ValueError: an argument out of range, or a first loss below ``floor``.
        TypeError: ``step`` without a loss.

    State:
        Momenta per parameter; energy, best loss, counters and number of random draws in the first group.

    Differences from the published code: norms, energy and clocks are global over tensors and groups;
    |π₀|² is E²/V₀ - V₀ in total; where V > E the particle is at rest (momentum dropped, V/E taken as 1)
    instead of being flung away at V/E > 1 times the speed limit; directions are isotropic and seeded;
    a bounce costs no gradient; everything is in ``state_dict()``.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> optimizer = BBI([x], lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(200):
        ...     loss = optimizer.step(closure)
        >>> bool(loss < 1e-6)
        True
    """

    law = BornInfeld()
