"""How a metric is named, which direction is better, and how its values and differences are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bbi_lightning.comparison.statistics import Direction, Estimate


@dataclass(frozen=True)
class Metric:
    """A metric's name, its better direction, and how its values are written.

    Accuracies are shares: written in per cent, their differences in percentage points ("points").
    """

    name: str
    direction: Direction

    @property
    def is_share(self) -> bool:
        """Whether values lie in [0, 1] and are written in per cent."""
        return self.name.rsplit("/", 1)[-1] in ("acc", "accuracy")

    @property
    def label(self) -> str:
        """In words: "test accuracy"."""
        words = {"val": "validation", "train": "training", "acc": "accuracy"}
        return " ".join(words.get(part, part) for part in self.name.split("/"))

    @property
    def unit(self) -> str:
        """The unit of a value as written: "%" or nothing."""
        return "%" if self.is_share else ""

    @property
    def scale(self) -> float:
        """A value times this is the number as written."""
        return 100.0 if self.is_share else 1.0

    @property
    def sign(self) -> int:
        """+1 when more is better, −1 when less is."""
        return 1 if self.direction == "maximize" else -1

    def number(self, value: float, *, signed: bool = False) -> str:
        """A value or a difference without its unit; a dash for NaN, a true minus sign."""
        if not math.isfinite(value):
            return "–"
        value = value * self.scale
        text = f"{value:{'+' if signed else ''}.{2 if self.is_share else 4}f}"
        return text.replace("-", "−")

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.number(value)} {self.unit}".strip()

    def interval(self, estimate: Estimate, *, signed: bool = False) -> str:
        """An interval without its unit, or why there is none."""
        if not estimate.has_interval:
            return "no interval"
        low, high = (self.number(end, signed=signed) for end in (estimate.low, estimate.high))
        return f"{low} to {high}"
