"""The scalar arithmetic of a step, on Python floats or on tensors.

A step of the family is governed by a handful of scalars (potential, energy, norm of the momentum).
On a CPU they are Python floats, which cost nothing; on an accelerator they stay 0-dim float64 tensors
on the device, so that no step waits for the host. The formulas are written once, with one of these two
namespaces as ``xp``; tensors of shape ``(trials,)`` work as well as 0-dim ones.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = Any
"""A Python float or a float64 tensor: whatever the namespace ``xp`` works on."""

Namespace: TypeAlias = Any
"""``Floats`` or ``Tensors``."""

LARGEST_EXPONENT = 700.0
"""exp() of more than this is no float64; arguments are clipped to it."""


class Floats:
    """Arithmetic on Python floats."""

    sqrt = staticmethod(math.sqrt)
    log = staticmethod(math.log)
    maximum = staticmethod(max)

    @staticmethod
    def exp(x: float) -> float:
        """Return e^x, clipped below overflow."""
        return math.exp(min(x, LARGEST_EXPONENT))

    @staticmethod
    def where(condition: bool, x: float, y: float) -> float:
        """Return x where the condition holds, else y; both must be computable."""
        return x if condition else y

    @staticmethod
    def expm1(x: float) -> float:
        """Return e^x - 1, clipped below overflow."""
        return math.expm1(min(x, LARGEST_EXPONENT))

    @staticmethod
    def is_usable(potential: float) -> bool:
        """Return whether a step can be taken at this potential: finite and above zero."""
        return 0.0 < potential < math.inf

    @staticmethod
    def number(condition: bool) -> float:
        """Return 1 where the condition holds, else 0."""
        return float(condition)


class Tensors:
    """The same arithmetic on float64 tensors, without a host synchronisation."""

    sqrt = staticmethod(torch.sqrt)
    log = staticmethod(torch.log)
    where = staticmethod(torch.where)

    @staticmethod
    def maximum(x: Tensor, floor: float) -> Tensor:
        """Return x, but at least ``floor``."""
        return torch.clamp_min(x, floor)

    @staticmethod
    def exp(x: Tensor) -> Tensor:
        """Return e^x, clipped below overflow."""
        return torch.exp(torch.clamp_max(x, LARGEST_EXPONENT))

    @staticmethod
    def expm1(x: Tensor) -> Tensor:
        """Return e^x - 1, clipped below overflow."""
        return torch.expm1(torch.clamp_max(x, LARGEST_EXPONENT))

    @staticmethod
    def is_usable(potential: Tensor) -> Tensor:
        """Return whether a step can be taken at this potential: finite and above zero."""
        return (potential > 0) & torch.isfinite(potential)

    @staticmethod
    def number(condition: Tensor) -> Tensor:
        """Return 1 where the condition holds, else 0, as float64."""
        return condition.double()
