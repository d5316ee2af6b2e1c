"""Learning-rate schedules, advanced after every optimizer step, in shares of the whole run.

Each is a function of (optimizer, total_steps): a milestone of 0.5 is half-way through the run, however long.
`warmup` is the share of the run during which the rate rises linearly from near 0 to the optimizer's own `lr`.
Any torch scheduler can be a `_target_` too: it is advanced after every step, and gets `total_steps` if it
takes that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer, *, total_steps: int, warmup: float = 0.0) -> LambdaLR | None:
    """The optimizer's own rate throughout; without a warm-up no scheduler is needed, and none is returned.

    Args:
        optimizer: whose rate is scheduled.
        total_steps: optimizer steps of the whole run.
        warmup: share of the run, in [0, 1].

    Raises:
        ValueError: `warmup` is out of range.
    """
    _check_share("warmup", warmup)
    if warmup == 0:
        return None
    return LambdaLR(optimizer, functools.partial(_warm, total_steps=total_steps, warmup=warmup))


def cosine(optimizer: Optimizer, *, total_steps: int, warmup: float = 0.0, final: float = 0.0) -> LambdaLR:
    """From the optimizer's rate to `final` times it, along half a cosine.

    Args:
        optimizer: whose rate is scheduled.
        total_steps: optimizer steps of the whole run.
        warmup: share of the run, in [0, 1].
        final: last rate over first rate, in [0, 1].

    Raises:
        ValueError: `warmup` or `final` is out of range.
    """
    _check_share("warmup", warmup)
    _check_share("final", final)

    def factor(step: int) -> float:
        start = warmup * total_steps
        progress = min(1.0, max(0.0, (step - start) / max(1.0, total_steps - start)))
        falling = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
        return falling * _warm(step, total_steps, warmup)

    return LambdaLR(optimizer, factor)


def multistep(
    optimizer: Optimizer,
    *,
    total_steps: int,
    milestones: Sequence[float] = (0.3, 0.6, 0.8),
    gamma: float = 0.2,
    warmup: float = 0.0,
) -> LambdaLR:
    """The rate is multiplied by `gamma` at each milestone.

    Args:
        optimizer: whose rate is scheduled.
        total_steps: optimizer steps of the whole run.
        milestones: shares of the run, rising, in (0, 1).
        gamma: factor at each milestone, > 0.
        warmup: share of the run, in [0, 1].

    Raises:
        ValueError: an argument is out of range, or the milestones do not rise.
    """
    _check_share("warmup", warmup)
    _check_gamma(gamma)
    inside = all(0 < m < 1 for m in milestones)
    if not inside or list(milestones) != sorted(set(milestones)):
        raise ValueError(f"milestones={list(milestones)} must rise within 0 and 1: give shares of the run")

    def factor(step: int) -> float:
        # counted in steps, so that 0.3 × 10 (2.9999…) is passed at step 3
        passed = sum(step >= round(m * total_steps) for m in milestones)
        return gamma**passed * _warm(step, total_steps, warmup)

    return LambdaLR(optimizer, factor)


def step(
    optimizer: Optimizer, *, total_steps: int, drops: int = 3, gamma: float = 0.1, warmup: float = 0.0
) -> LambdaLR:
    """The rate is multiplied by `gamma` after each of `drops` equal parts of the run; one more part follows.

    Args:
        optimizer: whose rate is scheduled.
        total_steps: optimizer steps of the whole run.
        drops: how often the rate falls, ≥ 1.
        gamma: factor each time, > 0.
        warmup: share of the run, in [0, 1].

    Raises:
        ValueError: an argument is out of range.
    """
    if drops < 1:
        raise ValueError(f"drops={drops} is too small: give 1 or more, or use scheduler=constant")
    milestones = [k / (drops + 1) for k in range(1, drops + 1)]
    return multistep(optimizer, total_steps=total_steps, milestones=milestones, gamma=gamma, warmup=warmup)


def _warm(step: int, total_steps: int, warmup: float) -> float:
    """Factor of a linear warm-up; step 0 has a rate above 0, so no step is wasted."""
    length = round(warmup * total_steps)
    return 1.0 if step >= length else (step + 1) / (length + 1)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is not a share of the run: give a number from 0 to 1")


def _check_gamma(gamma: float) -> None:
    if not gamma > 0:
        raise ValueError(f"gamma={gamma} is not a factor: give a number above 0")
