"""Spaces that are only searched where another key has certain values: ``when: {optim.kind: adam}``.

A key that is not searched is in no point and in no run's overrides: the run has what its config says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from bbi_lightning.sweeps.section import SweepError, did_you_mean, shown
from bbi_lightning.sweeps.spaces import FloatSpace, IntSpace, Space, Value, is_among

Params = dict[str, Value]
Spaces = Mapping[str, Space]


def is_active(space: Space, params: Mapping[str, Value]) -> bool:
    """Whether a point that has these values so far has one of this space too."""
    return all(key in params and is_among(params[key], values) for key, values in space.when)


def point_of(spaces: Spaces, choose: Callable[[str, Space], Value]) -> Params:
    """A point of the active keys, in the order of the description.

    Args:
        spaces: key to space; a key stands after those that its `when` names.
        choose: (key, space) gives the value; only asked about active keys.
    """
    params: Params = {}
    for key, space in spaces.items():
        if is_active(space, params):
            params[key] = choose(key, space)
    return params


def grid(spaces: Spaces) -> list[Params]:
    """All combinations of the levels, the last key varying fastest."""
    points: list[Params] = [{}]
    for key, space in spaces.items():
        levels = space.levels()
        points = [
            longer
            for point in points
            for longer in ([point | {key: v} for v in levels] if is_active(space, point) else [point])
        ]
    return points


def ends(spaces: Spaces) -> list[Params]:
    """Points that together visit both ends of every range and every choice, conditional ones included."""
    unconditional = {key: space.ends for key, space in spaces.items()}
    count = max(len(values) for values in unconditional.values())
    points = [_pinned(spaces, {}, turn) for turn in range(count)]
    for key, space in spaces.items():
        if space.when:
            pins = _pins(spaces, space)
            points += [_pinned(spaces, pins | {key: value}, 0) for value in space.ends]
    return list({repr(point): point for point in points}.values())


def count_points(spaces: Spaces) -> int | None:
    """How many different points there are; None: a continuum."""
    if any(space.size is None for space in spaces.values()):
        return None
    return _count(spaces, lambda space: space.size or 0, lambda space, value: space.contains(value))


def count_levels(spaces: Spaces) -> int:
    """How many points the grid has."""
    return _count(
        spaces, lambda space: len(space.levels()), lambda space, value: is_among(value, space.levels())
    )


def check_conditions(where: str, spaces: Spaces) -> None:
    """Whether every `when` can be decided.

    Args:
        where: the key of the arm's space.
        spaces: the arm's key to space.

    Raises:
        SweepError: it names a key that is not searched, comes later or is a float range; or a value that the
            key never has.
    """
    before: list[str] = []
    for key, space in spaces.items():
        for other, values in space.when:
            name = f"{where}.{key}.when: {other}"
            if other not in spaces:
                hint = did_you_mean(other, list(before)) if before else "it needs a key above it"
                raise SweepError(f"{name} is not searched by this arm: {hint}")
            if other not in before:
                raise SweepError(f"{name} comes later in the space: write it above {key}")
            if isinstance(spaces[other], FloatSpace):
                raise SweepError(f"{name} is a range of floats: only choices and integers can be a condition")
            for value in values:
                if not spaces[other].contains(value):
                    raise SweepError(f"{name} is never {shown(value)}: use a value of its space")
        before.append(key)


def check_point(arm: str, spaces: Spaces, params: Mapping[str, Value]) -> None:
    """Whether a point given by hand is one of the arm's.

    Raises:
        SweepError: a key is missing, unknown or not active, or a value is outside; one sentence.
    """
    known: Params = {}
    for key, space in spaces.items():
        if not is_active(space, known):
            if key in params:
                when = " and ".join(f"{k}={'|'.join(shown(v) for v in values)}" for k, values in space.when)
                raise SweepError(f"{key} is only searched when {when}: drop it")
            continue
        if key not in params:
            raise SweepError(f"arm {arm} searches {', '.join(spaces)}: give {key}=VALUE")
        if not space.contains(params[key]):
            raise SweepError(f"{key}={shown(params[key])} is outside the space of arm {arm}: {_shown(space)}")
        known[key] = params[key]
    for key in params:
        if key not in spaces:
            raise SweepError(f"arm {arm} does not search {key}: {did_you_mean(key, list(spaces))}")


def _shown(space: Space) -> str:
    if isinstance(space, (FloatSpace, IntSpace)):
        return f"it goes from {shown(space.low)} to {shown(space.high)}"
    return f"use one of {', '.join(shown(choice) for choice in space.choices)}"


def _pins(spaces: Spaces, space: Space) -> Params:
    """Values of other keys with which the space is active."""
    pins: Params = {}
    for key, values in space.when:
        pins |= _pins(spaces, spaces[key]) | {key: values[0]}
    return pins


def _pinned(spaces: Spaces, pins: Params, turn: int) -> Params:
    return point_of(
        spaces, lambda key, space: pins[key] if key in pins else space.ends[turn % len(space.ends)]
    )


def _count(spaces: Spaces, size: Callable[[Space], int], has: Callable[[Space, Value], bool]) -> int:
    """Counts without making the points: of a key that decides, only the values that matter are told apart."""
    deciding: dict[str, dict[str, Value]] = {}
    for space in spaces.values():
        for key, values in space.when:
            deciding.setdefault(key, {}).update({repr(value): value for value in values})
    cases: list[tuple[Params, int]] = [({}, 1)]
    for key, space in spaces.items():
        cases = [
            longer
            for case, count in cases
            for longer in (
                _split(case, count, key, size(space), _kept(space, deciding.get(key, {}).values(), has))
                if is_active(space, case)
                else [(case, count)]
            )
        ]
    return sum(count for _, count in cases)


def _kept(space: Space, values: Collection[Value], has: Callable[[Space, Value], bool]) -> list[Value]:
    return [value for value in values if has(space, value)]


def _split(
    case: Params, count: int, key: str, size: int, told_apart: list[Value]
) -> list[tuple[Params, int]]:
    """One case for each value that matters, and one for all the others."""
    rest = size - len(told_apart)
    cases = [(case | {key: value}, count) for value in told_apart]
    return [*cases, (case, count * rest)] if rest else cases
