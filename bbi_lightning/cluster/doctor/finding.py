"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what, in a word or two.
        level: ok; note (worth knowing); warning (it will cost something); error (it will not work).
        says: what was found, in a sentence.
        remedy: what to do about it; empty where there is nothing to do.
    """

    about: str
    level: Level
    says: str
    remedy: str = ""
