"""One section of a sweep's description, read with every value checked and every key accounted for."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class SweepError(ValueError):
    """The user's mistake, in one sentence that names the key, its value and the remedy."""


class Section:
    """A mapping of the description. Each reader checks one key and names it in full when it is wrong.

    Args:
        where: the section's own key, as the user writes it ("arms.sgd"); empty for the whole description.
        data: what stands there.
        known: the keys that may stand there.

    Raises:
        SweepError: `data` is not a mapping, or has a key that is not known.

    Example:
        >>> Section("search", {"trails": 4}, ["trials", "seed"])
        Traceback (most recent call last):
        ...
        bbi_lightning.sweeps.section.SweepError: search.trails is not a key of a sweep: did you mean trials?
    """

    def __init__(self, where: str, data: Any, known: Sequence[str]) -> None:
        if not isinstance(data, Mapping):
            name = where or "the sweep"
            raise SweepError(f"{name}={shown(data)} must be a mapping with the keys {', '.join(known)}")
        self.where = where
        self.data = data
        for key in data:
            if key not in known:
                hint = did_you_mean(str(key), known)
                raise SweepError(f"{self.name(str(key))} is not a key of a sweep: {hint}")

    def name(self, key: str) -> str:
        """The key in full."""
        return f"{self.where}.{key}" if self.where else key

    def has(self, key: str) -> bool:
        """Whether the key is given (a null counts as absent)."""
        return self.data.get(key) is not None

    def get(self, key: str) -> Any:
        """The raw value; SweepError when it is missing."""
        if not self.has(key):
            raise SweepError(f"{self.name(key)} is missing: every sweep needs it")
        return self.data[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty string."""
        value = default if default is not None and not self.has(key) else self.get(key)
        if not isinstance(value, str) or not value.strip():
            raise SweepError(f"{self.name(key)}={shown(value)} must be a text that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty when the key is absent."""
        value = self.data.get(key) or []
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise SweepError(
                f"{self.name(key)}={shown(value)} must be a list of overrides such as [optim=sgd]"
            )
        wrong = [item for item in value if not isinstance(item, str)]
        if wrong:
            raise SweepError(
                f"{self.name(key)} holds {shown(wrong[0])}: write each override as text, key=value"
            )
        return tuple(value)

    def one_of(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        """One of some words."""
        value, allowed = self.text(key, default), list(choices)
        if value not in allowed:
            raise SweepError(f"{self.name(key)}={value} is unknown: {did_you_mean(value, allowed)}")
        return value

    def whole(self, key: str, default: int | None = None, *, at_least: int) -> int:
        """An integer ≥ `at_least`."""
        value = default if default is not None and not self.has(key) else self.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise SweepError(f"{self.name(key)}={shown(value)} must be a whole number")
        if value < at_least:
            raise SweepError(f"{self.name(key)}={value} is too small: it must be at least {at_least}")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SweepError(f"{self.name(key)}={shown(value)} must be a finite number")
        return float(value)

    def flag(self, key: str) -> bool:
        """true or false, false when absent."""
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise SweepError(f"{self.name(key)}={shown(value)} must be true or false")
        return value


def shown(value: Any) -> str:
    """A value as it would stand in the description, cut to fit in a sentence."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The remedy for a word nobody knows: the nearest one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
