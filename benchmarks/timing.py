"""Interleaved timing: every alternative once a round, so that a busy machine slows them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds of each round, in the order of the rounds."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def ratio_to(self, baseline: Timing) -> tuple[float, float, float]:
        """Return (median, lower quartile, upper quartile) of the ratio taken round by round."""
        q = np.quantile(self.seconds / baseline.seconds, [0.5, 0.25, 0.75])
        return float(q[0]), float(q[1]), float(q[2])


def interleave(
    alternatives: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """Time each alternative once a round after one unmeasured round; the default clock is process time."""
    for run in alternatives.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, run in alternatives.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: Timing(np.array(s)) for name, s in seconds.items()}


def show(ratio: tuple[float, float, float], digits: int = 2) -> str:
    """Format a ratio with its quartiles: ``1.27 (1.25–1.30)``."""
    median, low, high = ratio
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
