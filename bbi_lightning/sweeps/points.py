"""The points a search visits: a pure function of the description, the same on every machine.

A longer search starts with the points of a shorter one. Arms that declare the same space for the same key get
the same coordinates there, so that they are compared at equal learning rates, not at lucky ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from bbi_lightning.sweeps.spaces import Space, Value
from bbi_lightning.sweeps.spec import Arm, SweepSpec

Params = dict[str, Value]


def arm_points(spec: SweepSpec, arm: Arm) -> list[Params]:
    """The `search.trials` points of one arm, in the order they are run."""
    trials = spec.search.trials
    if spec.search.sampler == "grid":
        levels = [space.levels() for space in arm.space.values()]
        return [dict(zip(arm.space, point, strict=True)) for point in itertools.product(*levels)]

    columns = shared_columns(spec)
    if all(space.size is not None for space in arm.space.values()):
        return _distinct(spec, arm.space, columns, trials)
    units = unit_points(spec.search.sampler, trials, _width(columns), spec.search.seed)
    return [_point(arm.space, columns, row) for row in units]


def edge_points(arm: Arm) -> list[Params]:
    """Points that together visit both ends of every range and every choice: all must be valid at a start."""
    ends = {key: space.ends for key, space in arm.space.items()}
    count = max(len(values) for values in ends.values())
    return [{key: values[i % len(values)] for key, values in ends.items()} for i in range(count)]


def shared_columns(spec: SweepSpec) -> dict[tuple[str, Space], int]:
    """Which coordinate of the sequence serves which (key, space).

    Equal pairs share a column over all arms. Different ones share a column too when no arm has both: few
    columns are wanted, since a Halton sequence covers its first coordinates best.
    """
    columns: dict[tuple[str, Space], int] = {}
    pairs = dict.fromkeys(pair for arm in spec.arms for pair in arm.space.items())
    for pair in pairs:
        neighbours = {other for arm in spec.arms if pair in arm.space.items() for other in arm.space.items()}
        taken = {columns[other] for other in neighbours if other in columns}
        columns[pair] = next(column for column in itertools.count() if column not in taken)
    return columns


def unit_points(sampler: str, count: int, width: int, seed: int) -> np.ndarray:
    """Points of the unit cube, (count, width) float64 in [0, 1); `sampler` is halton or random."""
    generator = np.random.default_rng(seed)
    if sampler == "random":
        return generator.random((count, width))
    from scipy.stats import qmc  # a second of import that only a new or longer search has to pay

    return np.asarray(qmc.Halton(width, scramble=True, seed=generator).random(count))


def _point(space: Mapping[str, Space], columns: Mapping[tuple[str, Space], int], row: np.ndarray) -> Params:
    return {key: s.value(float(row[columns[key, s]])) for key, s in space.items()}


def _distinct(
    spec: SweepSpec, space: Mapping[str, Space], columns: Mapping[tuple[str, Space], int], count: int
) -> list[Params]:
    """The first `count` different points of a finite space; a repeated one would be a wasted run."""
    points: dict[str, Params] = {}
    for row in _growing(spec, _width(columns), count):
        point = _point(space, columns, row)
        points.setdefault(repr(point), point)  # repr: 1, 1.0 and true are different choices
        if len(points) == count:
            break
    return list(points.values())


def _growing(spec: SweepSpec, width: int, count: int) -> Iterator[np.ndarray]:
    """The sequence without an end, drawn in longer and longer pieces."""
    done = 0
    for doubling in itertools.count(1):
        total = count * 2**doubling
        yield from unit_points(spec.search.sampler, total, width, spec.search.seed)[done:]
        done = total


def _width(columns: Mapping[tuple[str, Space], int]) -> int:
    return max(columns.values()) + 1
