"""The pictures of a comparison, one colour and one marker an arm in all of them.

Every function takes a comparison and returns a `Picture`, or None where the runs cannot give one yet.
Accuracies are drawn as error rates on a logarithmic axis, where 98 % and 99 % are as far apart as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bbi_lightning.comparison.figures.energy import telemetries, telemetry
from bbi_lightning.comparison.figures.forgiving import near_the_best
from bbi_lightning.comparison.figures.importance import importance, importances
from bbi_lightning.comparison.figures.maps import maps
from bbi_lightning.comparison.figures.matched import matched_loss
from bbi_lightning.comparison.figures.outcomes import differences, outcomes
from bbi_lightning.comparison.figures.over_tasks import aggregates, cost_profiles, score_profile
from bbi_lightning.comparison.figures.picture import SECTIONS, Picture
from bbi_lightning.comparison.figures.progress import progress, spread, training_loss, validation_curve
from bbi_lightning.comparison.figures.sensitivity import learning_rate, sensitivities
from bbi_lightning.comparison.figures.targets import times_to_target
from bbi_lightning.comparison.figures.tuning import tuning
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.suite import Suite

__all__ = [
    "Picture", "all_pictures", "differences", "learning_rate", "outcomes", "over_tasks", "sensitivities",
    "telemetry", "training_loss", "tuning", "validation_curve",
]  # fmt: skip


def all_pictures(compared: Comparison | Suite) -> tuple[Picture, ...]:
    """Every picture that the runs can give, in the order of a page: by section, then by importance.

    None is drawn before its `markup` is asked for. Of a suite of several tasks: those about all of them first
    (their `task` is ""), then each task's own, keys made unique by the task's place ("2-outcomes").
    """
    if isinstance(compared, Comparison):
        return tuple(picture.of_task(compared.sweep.name) for picture in _of_one(compared))
    if len(compared.comparisons) == 1:
        return all_pictures(compared.comparisons[0])
    own = (
        picture.of_task(c.sweep.name, f"{place}-")
        for place, c in enumerate(compared.comparisons, start=1)
        for picture in _of_one(c)
    )
    return (*over_tasks(compared), *own)


def over_tasks(suite: Suite) -> tuple[Picture, ...]:
    """The pictures about all tasks of a suite; none for a single task."""
    if not suite.over_tasks:
        return ()
    profile = score_profile(suite)
    return (*aggregates(suite), *((profile,) if profile else ()), *cost_profiles(suite))


def _of_one(c: Comparison) -> list[Picture]:
    known = importances(c)
    made = [
        outcomes(c),
        differences(c),
        *progress(c),
        *times_to_target(c),
        spread(c),
        tuning(c),
        near_the_best(c),
        *sensitivities(c),
        *maps(c, known),
        importance(c, known),
        *telemetries(c),
        matched_loss(c),
    ]
    pictures = _unique([picture for picture in made if picture is not None])
    return sorted(pictures, key=lambda picture: SECTIONS.index(picture.section))


def _unique(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures with a number added to a key that is taken: "a b" and "a-b" would be one file."""
    seen: Counter[str] = Counter()
    unique = []
    for picture in pictures:
        seen[picture.key] += 1
        count = seen[picture.key]
        unique.append(picture if count == 1 else replace(picture, key=f"{picture.key}-{count}"))
    return unique
