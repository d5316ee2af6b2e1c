"""Numbers, durations, bars and curves in few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = ".:-=+*#@"
NOT_A_NUMBER = "×"
_ABSURD = 1e150  # as good as infinite, and its differences still are numbers


def short_duration(seconds: float | None) -> str:
    """`8 s`, `3m20`, `2h05`, `4d07h`."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


def short_number(value: float | None) -> str:
    """At most seven characters: `2.303`, `0.0214`, `2.4e-07`, `nan`."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = abs(value)
    if 0.001 <= size < 10_000:
        digits = max(0, 3 - math.floor(math.log10(size)))
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.1e}"


def short_count(value: float | None) -> str:
    """At most six characters: `0.8`, `12`, `940`, `14.9k`, `2.1M`."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            value /= 1e3 if letter == "k" else size
            return f"{value:.1f}{letter}" if value < 100 else f"{value:.0f}{letter}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def metric_value(name: str, value: float | None) -> str:
    """An accuracy in per cent, anything else as a number."""
    if value is None:
        return "–"
    if name.rsplit("/", 1)[-1] in ("acc", "accuracy") and math.isfinite(value):
        return f"{100 * value:.2f} %"
    return short_number(value)


def sparkline(values: Sequence[float], width: int, *, plain: bool = False) -> str:
    """A curve in `width` characters, logarithmic where all values are positive; × where one is not a number.

    Args:
        values: in order; fewer than `width` make a shorter line.
        width: characters.
        plain: only ASCII.
    """
    blocks = _PLAIN_BLOCKS if plain else _BLOCKS
    points, low, high = _scaled(values, width)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    missing = "x" if plain else NOT_A_NUMBER
    return "".join(missing if math.isnan(point) else blocks[round((point - low) * scale)] for point in points)


def chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """A curve as `height` lines of at most `width` characters, the highest first; else as `sparkline`."""
    points, low, high = _scaled(values, width)
    steps = len(_BLOCKS) * height - 1
    scale = steps / (high - low) if high > low else 0.0
    levels = [None if math.isnan(point) else round((point - low) * scale) + 1 for point in points]
    lines = []
    for row in reversed(range(height)):
        filled = (0 if level is None else min(8, max(0, level - 8 * row)) for level in levels)
        line = "".join(" " if not eighths else _BLOCKS[eighths - 1] for eighths in filled)
        if row == 0:
            line = "".join(
                NOT_A_NUMBER if level is None else c for level, c in zip(levels, line, strict=True)
            )
        lines.append(line)
    return lines


def _scaled(values: Sequence[float], width: int) -> tuple[list[float], float, float]:
    """At most `width` points, logarithms where all are positive; NaN where one is none; least and largest."""
    points = [point if abs(point) < _ABSURD else math.nan for point in _resampled(values, width)]
    finite = [point for point in points if not math.isnan(point)]
    if finite and min(finite) > 0:
        points = [math.log(point) for point in points]  # of NaN it is NaN
        finite = [math.log(point) for point in finite]
    return points, min(finite, default=0.0), max(finite, default=0.0)


def bar(share: float | None, width: int, *, plain: bool = False) -> tuple[str, str]:
    """A bar as its full and its empty part, together `width` characters."""
    full, empty = ("#", "-") if plain else ("━", "─")
    filled = 0 if share is None else min(width, max(0, math.floor(share * width + 1e-9)))
    return full * filled, empty * (width - filled)


def elided(text: str, width: int, *, plain: bool = False) -> str:
    """At most `width` characters, the middle left out."""
    if len(text) <= width:
        return text
    mark = "~" if plain else "…"
    end = (width - 1) // 2
    return text[: width - 1 - end] + mark + (text[-end:] if end else "")


def _resampled(values: Sequence[float], width: int) -> list[float]:
    """At most `width` means of neighbours; NaN where one of them is not a number."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    parts = (values[a:b] for a, b in pairwise(edges))
    return [sum(part) / len(part) if all(map(math.isfinite, part)) else math.nan for part in parts]
