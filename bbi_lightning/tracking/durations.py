"""Durations in words."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Seconds in the two units a person would use: "12 s", "3 min 20 s", "2 h 05 min", "1 d 04 h"."""
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{minutes} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24:02d} h"
