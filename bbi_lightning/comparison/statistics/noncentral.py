"""Student's noncentral t: T = (Z + δ)/s with Z standard normal and ν s² a χ² of ν degrees of freedom.

P(T ≤ t) = ∫ Φ(t s − δ) f_ν(s) ds by Gauss–Legendre quadrature, which is monotone in δ and finite everywhere:
`scipy.stats.nct` returns NaN far in the tails, where an interval for δ is searched.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from bbi_lightning.comparison.statistics.intervals import Array

_NODES = 160
_TAIL = 1e-13  # of the χ² left out at either end


def noncentral_t_cdf(t: float, freedom: int, shift: ArrayLike) -> Array:
    """P(T ≤ t) for each noncentrality in `shift`, to about 1e-10."""
    s, weight = _chi_nodes(freedom)
    return np.asarray(special.ndtr(t * s - np.asarray(shift, dtype=np.float64)[..., None]) @ weight)


def noncentrality_interval(t: float, freedom: int, level: float) -> tuple[float, float]:
    """The noncentralities for which `t` is the upper and the lower (1 − level)/2 point."""
    s, _ = _chi_nodes(freedom)
    reach = abs(t) * float(s[-1]) + 10  # Φ is 0 or 1 over all of s beyond it

    def solve(share: float) -> float:
        return float(
            optimize.brentq(lambda shift: float(noncentral_t_cdf(t, freedom, shift)) - share, -reach, reach)
        )

    return solve((1 + level) / 2), solve((1 - level) / 2)


@lru_cache(maxsize=1024)
def _chi_nodes(freedom: int) -> tuple[Array, Array]:
    """Nodes of s = √(χ²/ν) and their probabilities, which sum to one."""
    low, high = np.sqrt(stats.chi2.ppf([_TAIL, 1 - _TAIL], freedom) / freedom)
    node, weight = _legendre()
    s = low + (high - low) * (node + 1) / 2
    mass = weight * s * stats.chi2.pdf(freedom * s * s, freedom)
    return s, mass / mass.sum()


@lru_cache(maxsize=1)
def _legendre() -> tuple[Array, Array]:
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    return node, weight
