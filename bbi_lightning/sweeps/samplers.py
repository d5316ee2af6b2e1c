"""Samplers that learn: the next point of a search from the results there are.

A point is a pure function of the description, the trial's number and the history, whichever process asks.
What has diverged, or was stopped early without a value, counts as bad as the worst that finished: it must not
be tried again. What failed says nothing. What is running counts as disappointing, so that several workers do
not ask for the same point (the constant liar).

tpe and gp are Optuna's; cmaes is the package of that name.
Reference: N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bbi_lightning.sweeps.conditions import Params, point_of
from bbi_lightning.sweeps.points import STARTUP, point_sequence
from bbi_lightning.sweeps.spaces import CategoricalSpace, FloatSpace, Space, Value
from bbi_lightning.sweeps.spec import Arm, SweepSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

_TRIES = 8  # of a sampler to find a point that nobody has; then the next quasi-random one is taken
_STEP = 0.2  # CMA-ES's first standard deviation, of a unit cube
_EDGE = 0.05  # how near an edge of it the first mean may be


@dataclass(frozen=True)
class Seen:
    """A trial of the history, by its number.

    Attributes:
        number: its place in the search, 0, 1, …; those added by hand come after all others.
        params: its point.
        value: the objective; None without one.
        running: whether a worker has it; otherwise, without a value, it diverged.
    """

    number: int
    params: Params
    value: float | None = None
    running: bool = False


@dataclass(frozen=True)
class Question:
    """Which point is asked for.

    Attributes:
        spec: the sweep, whose sampler learns.
        arm: one of its arms.
        study: which of the arm's searches.
        number: the trial's place in the search.
    """

    spec: SweepSpec
    arm: Arm
    study: int
    number: int

    def seed(self, attempt: int = 0) -> int:
        """A number of its own for each trial and attempt."""
        parts = [self.spec.search.seed + self.study, self.number, attempt]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])


def ask(question: Question, history: Sequence[Seen]) -> Params:
    """The point of one trial. Floats are rounded as everywhere: typed by hand they give the same run.

    Args:
        question: whose point.
        history: what is known of the others in this search: ended or running, and none that failed.
    """
    spec, arm, number = question.spec, question.arm, question.number
    tried = {repr(seen.params) for seen in history}
    ended = sum(not seen.running for seen in history)
    learns = ended >= STARTUP and any(seen.value is not None for seen in history)
    point: Params = {}
    if learns:
        for attempt in range(_TRIES):
            point = (_cma if spec.search.sampler == "cmaes" else _optuna)(question, attempt, history)
            if repr(point) not in tried:
                return point
    points = point_sequence(spec, arm, question.study, number + 1)
    later = itertools.islice(points, number, None) if not learns else points
    return next((point for point in later if repr(point) not in tried), point)


def sampler_of(spec: SweepSpec, seed: int) -> BaseSampler | None:
    """Optuna's sampler for one question; None: this sweep's points are known beforehand, or CMA-ES's."""
    from optuna import samplers

    with quietly():
        tpe = samplers.TPESampler(
            seed=seed, n_startup_trials=0, multivariate=True, group=True, constant_liar=True
        )
        if spec.search.sampler == "gp":  # TPE for the conditional keys
            return samplers.GPSampler(seed=seed, n_startup_trials=0, independent_sampler=tpe)
    return tpe if spec.search.sampler == "tpe" else None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Optuna without its announcements of new studies and of its own experimental parts."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def distribution_of(space: Space) -> BaseDistribution:
    """The space in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, CategoricalSpace):
        return CategoricalDistribution(space.choices)
    if isinstance(space, FloatSpace):
        return FloatDistribution(space.low, space.high, log=space.log)
    return IntDistribution(space.low, space.high, log=space.log)


def _optuna(question: Question, attempt: int, history: Sequence[Seen]) -> Params:
    """What TPE or the Gaussian process would try."""
    from optuna import Study
    from optuna.study import StudyDirection

    from bbi_lightning.sweeps.shelf import Shelf, frozen

    spaces = question.arm.space
    told = _told(question, history)
    distributions = {key: distribution_of(space) for key, space in spaces.items()}
    sampler = sampler_of(question.spec, question.seed(attempt))
    assert sampler is not None
    with quietly():
        shelf = Shelf([frozen(i, s.params, s.value, distributions) for i, s in enumerate(told)])
        shelf.create_new_study([StudyDirection[question.spec.objective.direction.upper()]], "shelf")
        study = Study("shelf", shelf, sampler=sampler)
        this = frozen(len(told), {}, None, {})
        together = sampler.sample_relative(study, this, sampler.infer_relative_search_space(study, this))

        def choose(key: str, space: Space) -> Value:
            if key in together:
                value = together[key]
            else:
                value = sampler.sample_independent(study, this, key, distributions[key])
            return value if isinstance(space, CategoricalSpace) else space.rounded(value)

        return point_of(spaces, choose)


def _cma(question: Question, attempt: int, history: Sequence[Seen]) -> Params:
    """What CMA-ES would try: it begins at the best of the quasi-random points, and takes those behind them in
    the order of their numbers, a generation as soon as all of it has ended."""
    import cmaes  # type: ignore[import-untyped]

    spaces: dict[str, Any] = dict(question.arm.space)  # floats and integers: the description is checked
    sign = -question.spec.objective.sign  # it minimizes

    def solution(seen: Seen) -> tuple[np.ndarray, float]:
        assert seen.value is not None
        unit = np.array([space.unit(seen.params[key]) for key, space in spaces.items()])
        return unit, sign * seen.value

    told = _told(question, history)
    beginning = [seen for seen in told if seen.number < STARTUP and not seen.running]
    beginning = beginning or [seen for seen in told if not seen.running]
    begin, _ = min((solution(seen) for seen in beginning), key=lambda pair: pair[1])
    bounds = np.array([[0.0, 1.0]] * len(spaces))
    mean = np.clip(begin, _EDGE, 1 - _EDGE)
    optimizer = cmaes.CMA(mean=mean, sigma=_STEP, bounds=bounds, seed=question.seed(attempt))
    later = [seen for seen in told if seen.number >= STARTUP]
    for first in range(0, len(later), optimizer.population_size):
        generation = later[first : first + optimizer.population_size]
        if len(generation) < optimizer.population_size or any(seen.running for seen in generation):
            break
        optimizer.tell([solution(seen) for seen in generation])
    coordinates = dict(zip(spaces, optimizer.ask(), strict=True))
    return point_of(spaces, lambda key, space: space.value(float(coordinates[key])))


def _told(question: Question, history: Sequence[Seen]) -> list[Seen]:
    """The history with a value for all that has ended, in the order of the numbers."""
    sign = question.spec.objective.sign
    worst = min((sign * seen.value for seen in history if seen.value is not None), default=0.0)
    return [
        seen if seen.running or seen.value is not None else Seen(seen.number, seen.params, sign * worst)
        for seen in sorted(history, key=lambda seen: seen.number)
    ]
