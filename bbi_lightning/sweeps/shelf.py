"""A history for Optuna's samplers to read: trials that stand ready, nothing copied, nothing locked."""

from __future__ import annotations

import datetime
from collections.abc import Container, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

_SOME_TIME = datetime.datetime(2000, 1, 1)  # Optuna wants one; no sampler looks at it


class Shelf(InMemoryStorage):
    """The storage of one study whose trials are given. What a sampler wants to write down is not kept."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trials_given = list(trials)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials, or those in some states."""
        return [trial for trial in self._trials_given if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """A sampler's note for other processes, which have the sweep's own study."""


def frozen(
    number: int,
    params: Mapping[str, Any],
    value: float | None,
    distributions: Mapping[str, BaseDistribution],
) -> FrozenTrial:
    """A trial as Optuna has it: complete with a value, running without."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
        value=value,
        datetime_start=_SOME_TIME,
        datetime_complete=None if value is None else _SOME_TIME,
        params=dict(params),
        distributions={key: distributions[key] for key in params},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
