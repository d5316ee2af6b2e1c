"""The sweep's memory: an Optuna study per arm in one journal file.

Every trial is written down beforehand as a WAITING trial with its point, so that a sweep is the same whoever
runs it, in whatever order. Optuna's states are used so that its own tools (dashboard, samplers) read them:

    finished  COMPLETE with the objective's value
    diverged  PRUNED without a value: a sampler that learns takes the point for bad, and would ignore a FAIL
    failed    FAIL: says nothing about the point

The details stand in the user attributes job, run, losses and outcome.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from bbi_lightning.sweeps.points import arm_points
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spaces import CategoricalSpace, FloatSpace, Space
from bbi_lightning.sweeps.spec import Objective, SweepSpec
from bbi_lightning.sweeps.trial import (
    DIVERGED,
    FAILED,
    FINISHED,
    REPLICATE,
    RUNNING,
    SEARCH,
    WAITING,
    Job,
    Outcome,
    Trial,
    due,
)

_STATES = {
    TrialState.WAITING: WAITING,
    TrialState.RUNNING: RUNNING,
    TrialState.COMPLETE: FINISHED,
    TrialState.PRUNED: DIVERGED,
    TrialState.FAIL: FAILED,
}
_OPTUNA_STATES = {name: state for state, name in _STATES.items()}


class Studies:
    """The studies of all arms of a sweep. Making one only reads; a study is created with its first trial.

    Args:
        journal: the file, created empty when it is missing.
        spec: the sweep.

    Raises:
        SweepError: the journal is damaged before its last line; one sentence with the remedy.
    """

    def __init__(self, journal: Path, spec: SweepSpec) -> None:
        self.spec = spec
        self._read: dict[int, Trial] = {}  # only a running trial changes: ten thousand others are read once
        # absolute: Optuna's lock is a symbolic link to this very path, and a relative one would dangle
        path = str(journal.resolve())
        try:
            self._storage = JournalStorage(JournalFileBackend(path, JournalFileSymlinkLock(path)))
        except (ValueError, KeyError) as error:
            raise SweepError(
                f"{journal} is damaged ({error}): restore it from a copy, or delete it and run the same "
                "command again, which keeps every run that has finished"
            ) from None
        known = set(optuna.get_all_study_names(self._storage))
        self._studies = {
            arm.name: optuna.load_study(storage=self._storage, study_name=f"{spec.name}/{arm.name}")
            for arm in spec.arms
            if f"{spec.name}/{arm.name}" in known
        }

    def trials(self, arm: str) -> list[Trial]:
        """All trials of an arm in the order they were written down."""
        if arm not in self._studies:
            return []
        return [self._trial(frozen) for frozen in self._studies[arm].get_trials(deepcopy=False)]

    def due(self, arm: str) -> list[Trial]:
        """The trials of an arm that count (see `trial.due`)."""
        trials = self.trials(arm)
        return due(trials, best(trials, self.spec.objective))

    def plan(self) -> None:
        """Write down whatever trial is missing: the search, then the replicates of every arm whose search is
        over. Calling it again adds nothing."""
        for arm in self.spec.arms:
            known = {trial.job.place for trial in self.trials(arm.name)}
            if (
                len(known & {(SEARCH, i, i) for i in range(self.spec.search.trials)})
                < self.spec.search.trials
            ):
                for index, params in enumerate(arm_points(self.spec, arm)):
                    job = Job(arm.name, SEARCH, index, index, self.spec.search.seed, params)
                    if job.place not in known:
                        self.enqueue(job)
            self.plan_replicates(arm.name)

    def plan_replicates(self, arm: str) -> None:
        """Write down the replicates of an arm's best point, once its search is over."""
        trials = self.trials(arm)
        chosen = best(trials, self.spec.objective)
        if chosen is None or not _search_over(due(trials, chosen)):
            return
        known = {trial.job.place for trial in trials}
        for i in range(self.spec.replicates.count):
            seed = self.spec.replicates.first_seed + i
            job = Job(arm, REPLICATE, i, chosen.job.index, seed, chosen.job.params)
            if job.place not in known:
                self.enqueue(job)

    def enqueue(self, job: Job) -> None:
        """Write down one more trial, waiting; at the place of an earlier one it supersedes that."""
        arm = self.spec.arm(job.arm)
        details = {"phase": job.phase, "index": job.index, "of": job.of, "seed": job.seed}
        self._study(job.arm).add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=dict(job.params),
                distributions={key: _distribution(space) for key, space in arm.space.items()},
                user_attrs={"job": details, "arm": job.arm},
            )
        )

    def runnable(self) -> dict[str, list[Trial]]:
        """The waiting trials of each arm that may start now; replicates wait for the end of the search."""
        runnable = {}
        for arm in self.spec.arms:
            trials = self.due(arm.name)
            over = _search_over(trials)
            runnable[arm.name] = [t for t in trials if t.state == WAITING and (over or t.job.phase == SEARCH)]
        return runnable

    def claim(self, trial: Trial) -> bool:
        """Take a waiting trial; False when another worker was faster."""
        return self._storage.set_trial_state_values(trial.key, TrialState.RUNNING)

    def note_start(self, trial: Trial, run: str, worker: Mapping[str, Any]) -> None:
        """Write down which run a claimed trial is, and who runs it."""
        self._storage.set_trial_user_attr(trial.key, "run", {"name": run, **worker})

    def note_loss(self, trial: Trial) -> None:
        """Write down that the trial's process died without a word."""
        self._storage.set_trial_user_attr(trial.key, "losses", trial.losses + 1)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Write down how a running trial ended."""
        details = {key: value for key, value in vars(outcome).items() if key != "value" and value is not None}
        self._storage.set_trial_user_attr(trial.key, "outcome", details)
        self._studies[trial.job.arm].tell(trial.number, outcome.value, state=_OPTUNA_STATES[outcome.state])

    def _trial(self, frozen: FrozenTrial) -> Trial:
        known = self._read.get(frozen._trial_id)
        if known is None or known.state != _STATES[frozen.state] or known.state == RUNNING:
            known = self._read[frozen._trial_id] = _trial(frozen)
        return known

    def _study(self, arm: str) -> optuna.Study:
        if arm not in self._studies:
            name = f"{self.spec.name}/{arm}"
            direction = StudyDirection[self.spec.objective.direction.upper()]
            with _quiet():
                study = optuna.create_study(storage=self._storage, study_name=name, direction=direction)
            self._studies[arm] = study
        return self._studies[arm]


def best(trials: list[Trial], objective: Objective) -> Trial | None:
    """The best finished search trial: by the metric, then the tie breaker, then the earlier one."""

    def merit(trial: Trial) -> tuple[float, float, int]:
        outcome = trial.outcome
        assert outcome is not None
        assert outcome.value is not None
        tie = float("-inf")
        if objective.tie_breaker and outcome.tie_breaker is not None:
            tie = objective.tie_breaker.sign * outcome.tie_breaker
        return (objective.sign * outcome.value, tie, -trial.job.index)

    finished = [t for t in trials if t.job.phase == SEARCH and t.state == FINISHED]
    return max(finished, key=merit, default=None)


def repair_journal(journal: Path) -> str | None:
    """Drop a half-written last line, which a killed writer left; the caller is the only writer.

    Returns a sentence about what was dropped, None when there was nothing to do.
    """
    # a writer that was killed leaves Optuna's lock behind, and the next would wait half a minute for it
    Path(f"{journal.resolve()}.lock").unlink(missing_ok=True)
    if not journal.exists():
        return None
    content = journal.read_bytes()
    kept = content[: content.rfind(b"\n") + 1]
    if kept and len(kept) == len(content):
        last = kept[kept.rfind(b"\n", 0, -1) + 1 :]
        with contextlib.suppress(ValueError):
            json.loads(last)
            return None
        kept = kept[: -len(last)]
    if len(kept) == len(content):
        return None
    with journal.open("r+b") as file:
        file.truncate(len(kept))
    return f"{journal}: dropped a half-written last line of {len(content) - len(kept)} bytes"


def _search_over(trials: list[Trial]) -> bool:
    return all(t.ended for t in trials if t.job.phase == SEARCH)


def _trial(frozen: FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    job = Job(arm=attributes["arm"], params=dict(frozen.params), **attributes["job"])
    run = dict(attributes.get("run", {}))
    details = attributes.get("outcome", {})
    state = _STATES[frozen.state]
    ended = state in (FINISHED, DIVERGED, FAILED)
    value = frozen.value if state == FINISHED else None
    return Trial(
        number=frozen.number,
        key=frozen._trial_id,
        job=job,
        state=state,
        outcome=Outcome(**{**details, "state": state, "value": value}) if ended else None,
        run=run.pop("name", None),
        worker=run,
        losses=attributes.get("losses", 0),
    )


def _distribution(space: Space) -> BaseDistribution:
    if isinstance(space, CategoricalSpace):
        return CategoricalDistribution(space.choices)
    if isinstance(space, FloatSpace):
        return FloatDistribution(space.low, space.high, log=space.log)
    return IntDistribution(space.low, space.high, log=space.log)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its announcements of new studies and of its own experimental parts."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
