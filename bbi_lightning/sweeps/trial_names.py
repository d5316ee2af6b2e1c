"""Trials as users name them: sgd/12 in the search, sgd/r3 a replicate, sgd/a0 by hand, sgd/1:12 in the arm's
second search. `Job.name` prints a name; here one is read, and its trial found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bbi_lightning.sweeps.section import SweepError, did_you_mean
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import ADDED, REPLICATE, SEARCH, Trial

_PHASES = {"": SEARCH, "r": REPLICATE, "a": ADDED}
_NAME = re.compile(r"(?P<arm>[^/]+)/(?:(?P<study>\d+):)?(?P<letter>[ra]?)(?P<index>\d+)")


@dataclass(frozen=True)
class TrialName:
    """What a trial's name says.

    Attributes:
        arm: the arm's name.
        study: which of the arm's independent searches, 0, 1, …
        phase: search, replicate or added.
        index: 0, 1, … within its phase.
    """

    arm: str
    study: int
    phase: str
    index: int


def parse_name(word: str) -> TrialName:
    """Read a trial's name.

    Raises:
        SweepError: it is none.
    """
    found = _NAME.fullmatch(word)
    if found is None:
        raise SweepError(
            f"{word} names no trial: write it as ARM/NUMBER, such as sgd/3, or sgd/r0 a replicate"
        )
    return TrialName(found["arm"], int(found["study"] or 0), _PHASES[found["letter"]], int(found["index"]))


def find_trials(studies: Studies, words: Sequence[str]) -> list[Trial]:
    """The trials with these names, each once, in the order they are given.

    Raises:
        SweepError: one of them is not there; the sentence says which there are.
    """
    return list({(trial := _find(studies, word)).key: trial for word in words}.values())


def _find(studies: Studies, word: str) -> Trial:
    name = parse_name(word)
    arms = [arm.name for arm in studies.spec.arms]
    if name.arm not in arms:
        raise SweepError(f"{word}: the sweep has no arm {name.arm}: {did_you_mean(name.arm, arms)}")
    searches = studies.spec.search.studies
    if name.study >= searches:
        raise SweepError(
            f"{word}: the arm is searched {searches} times, numbered from 0: use {searches - 1} or less"
        )
    alike = [t for t in studies.due(name.arm) if (t.job.study, t.job.phase) == (name.study, name.phase)]
    for trial in alike:
        if trial.job.index == name.index:
            return trial
    if not alike:
        soon = ": they follow when its search is over" if name.phase == REPLICATE else ""
        raise SweepError(f"{word} is not there: {name.arm} has no such trials{soon}")
    first, last = alike[0].job.name, alike[-1].job.name
    raise SweepError(f"{word} is not there: {name.arm} has {first} to {last}")
