"""The points a search visits: a pure function of the description, the same on every machine.

A longer search starts with the points of a shorter one. Arms that declare the same space for the same key
get the same coordinates there, so that they are compared at equal learning rates, not at lucky ones. A search
that learns begins with such points too, the same in all arms; the others depend on results (see `samplers`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from bbi_lightning.sweeps.conditions import Params, ends, grid, point_of
from bbi_lightning.sweeps.spaces import Space
from bbi_lightning.sweeps.spec import Arm, SweepSpec

STARTUP = 10
"""A search that learns begins with so many quasi-random points."""

_PATIENCE = 1000  # draws for each known point before a finite space is taken to hold no other


def arm_points(spec: SweepSpec, arm: Arm, study: int = 0) -> list[Params]:
    """The points of one arm that are known beforehand, in the order they are run: all `search.trials`, or the
    first few when the sampler learns.

    Args:
        spec: the sweep.
        arm: one of its arms.
        study: which of the arm's independent searches, 0 … search.studies − 1.
    """
    if spec.search.sampler == "grid":
        return grid(arm.space)
    trials = spec.search.trials
    count = min(trials, STARTUP) if spec.search.is_adaptive else trials
    return list(itertools.islice(point_sequence(spec, arm, study, count), count))


def point_sequence(spec: SweepSpec, arm: Arm, study: int, count: int) -> Iterator[Params]:
    """The arm's points without an end, drawn `count` at first. A finite space gives no point twice (it would
    be a wasted run), and ends."""
    columns = shared_columns(spec)
    finite = all(space.size is not None for space in arm.space.values())
    known: set[str] = set()
    fruitless = 0
    for row in _growing(spec, max(columns.values()) + 1, study, count):
        point = point_of(arm.space, lambda key, space: space.value(float(row[columns[key, space]])))  # noqa: B023
        if not finite:
            yield point
        elif (name := repr(point)) not in known:  # repr: 1, 1.0 and true are different choices
            known.add(name)
            fruitless = 0
            yield point
        elif (fruitless := fruitless + 1) > _PATIENCE * (len(known) + 1):
            return


def edge_points(arm: Arm) -> list[Params]:
    """Points that together visit both ends of every range and every choice: all must be valid at a start."""
    return ends(arm.space)


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
    """Points of the unit cube, (count, width) float64 in [0, 1): random, sobol, or halton for any other."""
    generator = np.random.default_rng(seed)
    if sampler == "random":
        return generator.random((count, width))
    from scipy.stats import qmc  # a second of import that only a new or longer search has to pay

    if sampler == "sobol":
        power = (
            count - 1
        ).bit_length()  # whole powers of two keep its balance; of these, the first are taken
        return np.asarray(qmc.Sobol(width, scramble=True, seed=generator).random_base2(power))[:count]
    return np.asarray(qmc.Halton(width, scramble=True, seed=generator).random(count))


def _growing(spec: SweepSpec, width: int, study: int, count: int) -> Iterator[np.ndarray]:
    """The sequence without an end, drawn in longer and longer pieces."""
    done = 0
    for doubling in itertools.count():
        total = count * 2**doubling
        yield from unit_points(spec.search.sampler, total, width, spec.search.seed + study)[done:]
        done = total
