"""SLURM's way of writing a duration."""

from __future__ import annotations

import re

_FORM = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


def seconds_of(text: str) -> float | None:
    """Seconds in ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``; None if it is none of these.

    Example:
        >>> seconds_of("1-12:00:00"), seconds_of("90"), seconds_of("UNLIMITED")
        (129600.0, 5400.0, None)
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return float(int(match["days"] or 0) * 86400 + hours * 3600 + minutes * 60 + seconds)


def written(seconds: float) -> str:
    """Seconds as ``[D-]HH:MM:SS``, rounded up to a whole second."""
    whole = -int(-seconds // 1)
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
