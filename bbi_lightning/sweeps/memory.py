"""How much memory a trial uses, with all the processes it has started."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import psutil

from bbi_lightning.sweeps.section import SweepError


def resident_bytes(pid: int) -> int:
    """Bytes of RAM that a process and its descendants hold; 0 if it is gone.

    Memory that they share is counted once for each: an upper bound.
    """
    return _over_the_family(pid, lambda process: process.memory_info().rss)


def own_bytes(pid: int) -> int:
    """Bytes of RAM that would be free without a process and its descendants; 0 if it is gone.

    What it shares with the server it was forked from is not its own: this is what one more trial costs.
    """
    return _over_the_family(pid, lambda process: process.memory_full_info().uss)


def _over_the_family(pid: int, measured: Callable[[psutil.Process], int]) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # ended meanwhile
                total += measured(process)
    except psutil.Error:
        return total
    return total


def bytes_of(text: str) -> float:
    """Bytes in "4G", "500M", "64K" or "1T" (binary multiples), or in a plain number.

    Raises:
        SweepError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text.strip())
    if match is None:
        raise SweepError(f"memory={text} is not a size: write it as 4G or 500M")
    return float(match[1]) * 1024 ** " KMGT".index(match[2] or " ")


def size(count: float) -> str:
    """Bytes for people: 3.1 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
