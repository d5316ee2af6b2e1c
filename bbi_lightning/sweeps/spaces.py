"""What a hyperparameter may be: a float or integer range, or a list of choices.

A space maps the unit interval onto its values, so that one quasi-random sequence serves all of them, and two
arms that declare the same space get the same values. A space may be conditional: ``when: {optim.kind: adam}``
leaves its key out of every run in which another searched key has another value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bbi_lightning.sweeps.section import Section, SweepError, shown

Value = float | int | str | bool | None

When = tuple[tuple[str, tuple[Value, ...]], ...]
"""Another key of the same arm and the values of it that let a space be searched; all must hold."""

_DIGITS = 4  # significant digits of a sampled float: readable, and typed by hand it gives the same run


@dataclass(frozen=True)
class FloatSpace:
    """Floats in [low, high], uniform or (log) uniform in the logarithm.

    Attributes:
        low, high: the ends, both included; low < high, and low > 0 when log.
        log: whether the logarithm is spread evenly.
        points: levels of a grid; only the sampler `grid` reads it.
        when: what must hold for it to be searched.
    """

    low: float
    high: float
    log: bool = False
    points: int | None = None
    when: When = ()

    def value(self, unit: float) -> float:
        """The value at `unit` ∈ [0, 1], rounded to a thousandth of the range or finer."""
        if self.log:
            exact = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        else:
            exact = self.low + unit * (self.high - self.low)
        return self.rounded(exact)

    def unit(self, value: float) -> float:
        """The inverse of `value`, but for the rounding."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def rounded(self, exact: float) -> float:
        """The nearest value that is short to type."""
        largest = max(abs(self.low), abs(self.high))
        digits = _DIGITS + max(0, math.floor(math.log10(largest / (self.high - self.low))))
        return min(max(float(f"{exact:.{digits}g}"), self.low), self.high)

    def contains(self, value: object) -> bool:
        """Whether it may be given by hand."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values at the edges."""
        return (self.low, self.high)

    @property
    def size(self) -> int | None:
        """How many values there are; None: a continuum."""
        return None

    def levels(self) -> tuple[Value, ...]:
        """The grid's values."""
        assert self.points is not None, "the spec is checked before a grid is made"
        return tuple(self.value(i / max(self.points - 1, 1)) for i in range(self.points))

    def plain(self) -> dict[str, Any]:
        """As it is written in a description."""
        return {"low": self.low, "high": self.high, "log": self.log} | _further(self.points, self.when)


@dataclass(frozen=True)
class IntSpace:
    """Integers in [low, high], uniform or (log) uniform in the logarithm. Attributes as in `FloatSpace`."""

    low: int
    high: int
    log: bool = False
    points: int | None = None
    when: When = ()

    def value(self, unit: float) -> int:
        """The value at `unit` ∈ [0, 1]; every integer owns an equal part, in the logarithm when log."""
        if self.log:
            lowest, highest = math.log(self.low - 0.5), math.log(self.high + 0.5)
            rounded = round(math.exp(lowest + unit * (highest - lowest)))
        else:
            rounded = self.low + math.floor(unit * (self.high - self.low + 1))
        return min(max(rounded, self.low), self.high)

    def unit(self, value: int) -> float:
        """The middle of the part that the integer owns."""
        lowest, highest = self.low - 0.5, self.high + 0.5
        if self.log:
            return math.log(value / lowest) / math.log(highest / lowest)
        return (value - lowest) / (highest - lowest)

    def rounded(self, exact: float) -> int:
        """The nearest value."""
        return min(max(round(exact), self.low), self.high)

    def contains(self, value: object) -> bool:
        """Whether it may be given by hand."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values at the edges."""
        return (self.low, self.high)

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return self.high - self.low + 1

    def levels(self) -> tuple[Value, ...]:
        """The grid's values: all of them, or `points` spread evenly."""
        if self.points is None:
            return tuple(range(self.low, self.high + 1))
        spread = [i / max(self.points - 1, 1) for i in range(self.points)]
        return tuple(dict.fromkeys(self.value(unit) for unit in spread))

    def plain(self) -> dict[str, Any]:
        """As it is written in a description."""
        plain = {"type": "int", "low": self.low, "high": self.high, "log": self.log}
        return plain | _further(self.points, self.when)


@dataclass(frozen=True)
class CategoricalSpace:
    """One of some values without an order: texts, numbers, true, false or null."""

    choices: tuple[Value, ...]
    when: When = ()

    def value(self, unit: float) -> Value:
        """The choice at `unit` ∈ [0, 1]; each owns an equal part."""
        return self.choices[min(math.floor(unit * len(self.choices)), len(self.choices) - 1)]

    def contains(self, value: object) -> bool:
        """Whether it may be given by hand."""
        return is_among(value, self.choices)

    @property
    def ends(self) -> tuple[Value, ...]:
        """All choices: each of them can be wrong in its own way."""
        return self.choices

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return len(self.choices)

    def levels(self) -> tuple[Value, ...]:
        """The grid's values."""
        return self.choices

    def plain(self) -> dict[str, Any]:
        """As it is written in a description."""
        return {"choices": list(self.choices)} | _further(None, self.when)


Space = FloatSpace | IntSpace | CategoricalSpace


def is_among(value: object, values: Sequence[Value]) -> bool:
    """Whether it is one of these, where 1, 1.0 and true are different values."""
    return repr(value) in map(repr, values)


def parse_space(where: str, data: Any) -> Space:
    """A space as a description writes it.

    ``{low: 0.01, high: 1, log: true}`` is a float range, ``{type: int, low: 1, high: 8}`` an integer one,
    ``{choices: [a, b]}`` a list. Integers are asked for by name: ``{low: 0, high: 1}`` are floats. Any
    may have ``when: {another.key: value}``, or a list of values; whether that key and those values exist is
    seen where the whole arm is known.

    Raises:
        SweepError: one sentence that names the key (`where` in front), the value and the remedy.
    """
    if not isinstance(data, Mapping):
        raise SweepError(
            f"{where}={shown(data)} is not a space: "
            "write {low: 0.01, high: 1.0, log: true} or {choices: [a, b]}"
        )
    if "choices" in data:
        return _categorical(Section(where, data, ["choices", "when"]))

    section = Section(where, data, ["type", "low", "high", "log", "points", "when"])
    kind = section.one_of("type", ["float", "int"], default="float")
    log = section.flag("log")
    points = section.whole("points", at_least=2) if section.has("points") else None
    for end in ("low", "high"):
        if not section.has(end):
            raise SweepError(f"{section.name(end)} is missing: a range needs low and high")
    low, high = section.number("low"), section.number("high")
    if low >= high:
        raise SweepError(
            f"{where}: low={shown(data['low'])} is not below high={shown(data['high'])}: swap or widen them"
        )
    if log and low <= 0:
        raise SweepError(f"{where}: low={shown(data['low'])} has no logarithm: raise low above 0 or drop log")
    if kind == "float":
        return FloatSpace(low, high, log, points, _when(section))
    if low != int(low) or high != int(high):
        raise SweepError(f"{where}: low={low} and high={high} must be whole numbers, or drop type: int")
    return IntSpace(int(low), int(high), log, points, _when(section))


def _categorical(section: Section) -> CategoricalSpace:
    choices = section.get("choices")
    if not isinstance(choices, (list, tuple)) or not choices:
        raise SweepError(f"{section.name('choices')}={shown(choices)} must be a list with at least one value")
    for choice in choices:
        if not (choice is None or isinstance(choice, (str, int, float, bool))):
            raise SweepError(
                f"{section.name('choices')} holds {shown(choice)}: "
                "a choice is a text, a number, true, false or null"
            )
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise SweepError(f"{section.name('choices')}={shown(choices)} names a value twice: drop one of them")
    return CategoricalSpace(tuple(choices), _when(section))


def _when(section: Section) -> When:
    if not section.has("when"):
        return ()
    name, when = section.name("when"), section.get("when")
    if not isinstance(when, Mapping) or not when:
        raise SweepError(f"{name}={shown(when)} must be a mapping, such as {{optim.kind: adam}}")
    conditions = []
    for key, values in when.items():
        values = tuple(values) if isinstance(values, (list, tuple)) else (values,)
        if not values or not all(v is None or isinstance(v, (str, int, float, bool)) for v in values):
            raise SweepError(f"{name}.{key}={shown(when[key])} must be a value or a list of values")
        conditions.append((str(key), values))
    return tuple(conditions)


def _further(points: int | None, when: When) -> dict[str, Any]:
    plain: dict[str, Any] = {} if points is None else {"points": points}
    return plain | ({"when": {key: list(values) for key, values in when}} if when else {})
