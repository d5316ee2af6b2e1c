"""ECDSep: a separable Hamiltonian with a chaos element. Reference: arXiv:2306.00352, sections 2 and 3."""

from __future__ import annotations

from bbi_lightning.optim.bounces import BounceRule
from bbi_lightning.optim.ecd import ECD, Params
from bbi_lightning.optim.hamiltonians import LogSeparable


class ECDSep(ECD):
    """Energy-conserving descent with H = log(s + π²) + η log(F - F₀).

        |π|² = e^E/V^η - s   (restored at every step)
        π ← π - Δt (η/V) ∇F
        θ ← θ + 2 Δt π/(s + π²)
        chaos element: π ← |π| (π̂ + νz)/|π̂ + νz|, z normal

    Args:
        params: parameters or parameter groups (``lr`` and ``weight_decay`` may differ by group).
        lr: Δt > 0. With s = 1 no step is longer than Δt.
        eta: η > 0, how strongly the motion concentrates near the floor: the measure is (F - F₀)^(-ηn/2).
        nu: ν ≥ 0, the chaos element; the angle per step is arccos(1/√(1 + ν²n)), so ν√n is what matters.
            It costs a normal draw per parameter and step: several SGD steps on a CPU. 0 switches it off.
        s: ≥ 0, the regularization switch: 1 gives a speed limit, 0 a scale-free kinetic term.
        floor, extra_energy, weight_decay, conserve, seed: as for ``BBI``.

    Raises:
        ValueError: an argument out of range, or a first loss below ``floor``.
        TypeError: ``step`` without a loss.

    Differences from the published code: obeys schedulers; works from log V, so η = 5 runs in float32;
    ``extra_energy`` is a loss (E = log s + η log(V₀ + ΔE)), not the first |π|²; seeded.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> optimizer = ECDSep([x], lr=0.1, eta=1.0)
        >>> for _ in range(500):
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
        eta: float = 1.0,
        nu: float = 1e-5,
        s: float = 1.0,
        floor: float = 0.0,
        extra_energy: float = 0.0,
        weight_decay: float = 0.0,
        conserve: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0 < eta < float("inf"):
            raise ValueError(f"eta={eta} must be positive: it is the exponent of the potential.")
        if not 0 <= s < float("inf"):
            raise ValueError(f"s={s} must not be negative: use 1 (speed limit) or 0 (scale-free).")
        super().__init__(
            params,
            lr,
            hamiltonian=LogSeparable(eta, s),
            bounce_rule=BounceRule(nu=nu),
            floor=floor,
            extra_energy=extra_energy,
            weight_decay=weight_decay,
            conserve=conserve,
            seed=seed,
        )
