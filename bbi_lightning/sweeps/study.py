"""The sweep's memory: an Optuna study per arm (and per independent search of it) in one journal file.

Every trial is written down beforehand as a WAITING trial with its point, so that a sweep is the same whoever
runs it, in whatever order. In a search that learns the point follows when the trial is claimed, from what is
known then. Optuna's states are used so that its own tools (dashboard, samplers) read them:

    finished  COMPLETE with the objective's value
    diverged  PRUNED without a value: a sampler that learns takes the point for bad, and would ignore a FAIL
    pruned    PRUNED with intermediate values
    failed    FAIL: says nothing about the point

The details stand in the user attributes job, owner, run, losses and outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal._storage import JournalOperation  # the file's own format
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from bbi_lightning.sweeps.journal import Journal, JournalDamagedError, JournalRewoundError
from bbi_lightning.sweeps.ledger import Ledger, merit
from bbi_lightning.sweeps.points import arm_points
from bbi_lightning.sweeps.pruners import pruner_of
from bbi_lightning.sweeps.samplers import Question, ask, distribution_of, quietly
from bbi_lightning.sweeps.spec import Objective, SweepSpec
from bbi_lightning.sweeps.trial import (
    CANCELLED,
    DIVERGED,
    ENDED,
    FAILED,
    FINISHED,
    PRUNED,
    REPLICATE,
    RUNNING,
    SEARCH,
    WAITING,
    Job,
    Outcome,
    Owner,
    Trial,
)

_STATES = {
    TrialState.WAITING: WAITING,
    TrialState.RUNNING: RUNNING,
    TrialState.COMPLETE: FINISHED,
    TrialState.PRUNED: DIVERGED,
    TrialState.FAIL: FAILED,
}
_OPTUNA_STATES = {name: state for state, name in _STATES.items()} | {PRUNED: TrialState.PRUNED}


class Studies:
    """The studies of all arms of a sweep. Making one only reads; a study is created with its first trial.

    Args:
        journal: the file, created empty when it is missing.
        spec: the sweep.

    Raises:
        SweepError: the journal is damaged; one sentence with the remedy.
    """

    def __init__(self, journal: Path, spec: SweepSpec) -> None:
        self.spec = spec
        self._journal = Journal(journal, spec.lock)
        self._open()

    @property
    def repaired(self) -> list[str]:
        """A sentence for every half-written line that was dropped."""
        return self._journal.repaired

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A transaction: nobody else writes, on whatever node; what is written inside is kept as a whole.

        Raises:
            OSError: it could not be written (a full disk, say); the sweep is as it was before.
        """
        try:
            with self._journal.alone():
                self._refresh()
                yield
        except OSError:
            self._open()  # what Optuna has taken in is not on the disk
            raise

    def trials(self, arm: str) -> list[Trial]:
        """All trials of an arm in the order they were written down."""
        self._refresh()
        return [trial for ledger in self._of(arm).values() for trial in ledger.trials]

    def due(self, arm: str) -> list[Trial]:
        """The trials of an arm that count (see `trial.due`)."""
        self._refresh()
        return [trial for ledger in self._of(arm).values() for trial in ledger.due()]

    def running(self) -> list[Trial]:
        """The trials under way, of all arms."""
        self._refresh()
        return [trial for ledger in self._ledgers.values() for trial in ledger.running.values()]

    def left(self) -> int:
        """How many trials are waiting or under way, replicates to come included."""
        self._refresh()
        total = 0
        for ledger in self._ledgers.values():
            total += sum(not trial.ended for trial in ledger.due())
            total += 0 if ledger.search_is_over else self.spec.replicates.count
        return total

    def is_over(self) -> bool:
        """Whether nothing is left to run."""
        self._refresh()
        return not any(ledger.running or ledger.next_waiting() for ledger in self._ledgers.values())

    def plan(self) -> None:
        """Write down whatever trial is missing: the search, then the replicates of every arm whose search is
        over. Calling it again adds nothing."""
        with self.alone():
            for arm in self.spec.arms:
                for study, ledger in self._of(arm.name).items():
                    missing = [i for i in range(self.spec.search.trials) if not ledger.has(SEARCH, i)]
                    points = dict(enumerate(arm_points(self.spec, arm, study))) if missing else {}
                    seed = self.spec.search.seed + study
                    for i in missing:  # without a point where it depends on results
                        self.enqueue(Job(arm.name, SEARCH, i, i, seed, points.get(i, {}), study))
                self._plan_replicates(arm.name)

    def enqueue(self, job: Job) -> None:
        """Write down one more trial, waiting; at the place of an earlier one it supersedes that."""
        space = self.spec.arm(job.arm).space
        details = {"phase": job.phase, "index": job.index, "of": job.of, "seed": job.seed}
        details |= {"study": job.study} if job.study else {}
        self._study(job.arm, job.study).add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=dict(job.params),
                distributions={key: distribution_of(space[key]) for key in job.params},
                user_attrs={"job": details, "arm": job.arm},
            )
        )

    def claim(self, owner: Owner, is_alive: Callable[[Owner], bool]) -> Trial | None:
        """Take the next trial: one that this worker had in an earlier life, one that was let go or whose
        worker has vanished, or a waiting one of the arm that has had the fewest. None: there is none now.

        Args:
            owner: who takes it.
            is_alive: whether a worker is still at work; asked only about others.
        """
        with self.alone():
            begun = self.running()
            mine = [t for t in begun if t.owner and t.owner.id == owner.id and t.owner != owner]
            free = (t for t in begun if t.owner is None or (t.owner.id != owner.id and not is_alive(t.owner)))
            trial = next(iter(mine), None) or next(free, None)
            if trial is None:
                trial = self._next_waiting()
                if trial is None:
                    return None
                trial = self._with_point(trial)
                self._storage.set_trial_state_values(trial.key, TrialState.RUNNING)
            self._storage.set_trial_user_attr(trial.key, "owner", vars(owner))
            return dataclasses.replace(trial, state=RUNNING, owner=owner)

    def note_start(self, trial: Trial, run: str, worker: Mapping[str, Any]) -> None:
        """Write down which run a claimed trial is, and who runs it."""
        with self.alone():
            self._storage.set_trial_user_attr(trial.key, "run", {"name": run, **worker})

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Write down the objective of a search trial after so many epochs, 1, 2, …; again, it does nothing.

        Returns:
            Whether the description's pruner wants the trial to be stopped; `tell` it then as pruned.
        """
        pruner = pruner_of(self.spec.search.pruner)
        with self.alone():
            now = self._storage.get_trial(trial.key)
            if pruner is None or trial.job.phase != SEARCH or not self._is_still(trial):
                return False
            if epoch not in now.intermediate_values:
                self._storage.set_trial_intermediate_value(trial.key, epoch, value)
            now = self._storage.get_trial(trial.key)
            return pruner.prune(self._study(trial.job.arm, trial.job.study), now)

    def note_loss(self, trial: Trial) -> None:
        """Write down that the trial's process died without a word. Nothing if it is another's by now."""
        with self.alone():
            if self._is_still(trial):
                self._storage.set_trial_user_attr(trial.key, "losses", trial.losses + 1)

    def again(self, trial: Trial) -> None:
        """Let a failed trial run once more, at its place; let go one under way, its losses forgiven."""
        with self.alone():
            if trial.ended:
                self.enqueue(trial.job)
            else:
                self._storage.set_trial_user_attr(trial.key, "losses", 0)
                self._storage.set_trial_user_attr(trial.key, "owner", None)

    def release(self, trial: Trial) -> None:
        """Let a trial go that was begun: whoever looks next takes it up. Nothing if it is another's."""
        with self.alone():
            if self._is_still(trial):
                self._storage.set_trial_user_attr(trial.key, "owner", None)

    def tell(self, trial: Trial, outcome: Outcome) -> bool:
        """Write down how a running trial ended, and the replicates if it was the last of its search.

        Returns:
            Whether it was written: not if the trial has ended already, or is another worker's by now.
        """
        with self.alone():
            if not self._is_still(trial):
                return False
            self._end(trial, outcome)
            return True

    def cancel(self, trial: Trial) -> bool:
        """End a trial for good, whoever has it: its worker finds out and stops it. False: it had ended."""
        with self.alone():
            if _trial(self._storage.get_trial(trial.key)).ended:
                return False
            self._end(trial, Outcome(FAILED, error=CANCELLED))
            return True

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        details = {key: value for key, value in vars(outcome).items() if key != "value" and value is not None}
        values = [outcome.value] if outcome.state == FINISHED and outcome.value is not None else None
        self._storage.set_trial_user_attr(trial.key, "outcome", details)
        self._storage.set_trial_state_values(trial.key, _OPTUNA_STATES[outcome.state], values)
        self._refresh()
        self._plan_replicates(trial.job.arm)

    def _with_point(self, trial: Trial) -> Trial:
        """The trial with its point, which is chosen now if it has none."""
        job = trial.job
        if job.params or job.phase != SEARCH:
            return trial
        space = self.spec.arm(job.arm).space
        question = Question(self.spec, self.spec.arm(job.arm), job.study, job.index)
        params = ask(question, self._ledger(job.arm, job.study).history())
        for key, value in params.items():
            distribution = distribution_of(space[key])
            self._storage.set_trial_param(trial.key, key, distribution.to_internal_repr(value), distribution)
        return dataclasses.replace(trial, job=dataclasses.replace(job, params=params))

    def _is_still(self, trial: Trial) -> bool:
        now = _trial(self._storage.get_trial(trial.key))
        return now.state == RUNNING and now.owner == trial.owner

    def _next_waiting(self) -> Trial | None:
        """Of the search that has had the fewest so far: half a sweep is then a fair one too."""
        waiting = {key: ledger.next_waiting() for key, ledger in self._ledgers.items()}
        ready = [key for key, trial in waiting.items() if trial is not None]
        return waiting[min(ready, key=lambda key: self._ledgers[key].begun)] if ready else None

    def _plan_replicates(self, arm: str) -> None:
        """Write down the replicates of the best point of each of an arm's searches, once that is over. Where
        two searches have chosen the same point, the first one's replicates are the other's too."""
        chosen_before: list[str] = []
        for study, ledger in self._of(arm).items():
            if ledger.best is None or not ledger.search_is_over:
                continue
            chosen, first_seed = ledger.best.job, self.spec.replicates.first_seed
            if repr(chosen.params) in chosen_before:
                continue
            chosen_before.append(repr(chosen.params))
            for i in range(self.spec.replicates.count):
                if not ledger.has(REPLICATE, i, chosen.index):
                    self.enqueue(Job(arm, REPLICATE, i, chosen.index, first_seed + i, chosen.params, study))

    def _ledger(self, arm: str, study: int) -> Ledger:
        return self._ledgers.setdefault((arm, study), Ledger(self.spec.objective))

    def _of(self, arm: str) -> dict[int, Ledger]:
        """The searches of an arm."""
        return {study: self._ledger(arm, study) for study in range(self.spec.search.studies)}

    def _open(self) -> None:
        """Read the journal from its beginning."""
        self._ledgers: dict[tuple[str, int], Ledger] = {}
        self._arms = [arm.name for arm in self.spec.arms]
        for name in self._arms:
            self._of(name)
        self._studies: dict[tuple[str, int], optuna.Study] = {}
        self._touched: dict[int, None] = {}  # an ordered set
        self._created = 0
        self._journal.observer = self._observe
        try:
            self._storage = JournalStorage(self._journal)
        except KeyError as error:
            raise JournalDamagedError(
                f"{self._journal.file} is damaged (it speaks of {error}): restore it from a copy, or move it "
                "away and start the sweep again, which keeps every run that has finished"
            ) from None

    def _observe(self, entry: Mapping[str, Any]) -> None:
        """Note which trials an entry of the journal is about: Optuna numbers them as they come."""
        if entry.get("op_code") == JournalOperation.CREATE_TRIAL:
            self._touched[self._created] = None
            self._created += 1
        elif "trial_id" in entry:
            self._touched[entry["trial_id"]] = None

    def _refresh(self) -> None:
        """Take in what others, or we, have written since."""
        try:
            self._storage.get_all_studies()  # Optuna reads what is new
        except JournalRewoundError:
            self._open()
        touched, self._touched = self._touched, {}
        for key in touched:
            frozen = self._storage.get_trial(key)
            if "job" not in frozen.user_attrs:
                continue  # another program's
            trial = _trial(frozen)
            if trial.job.arm in self._arms:
                self._ledger(trial.job.arm, trial.job.study).update(trial)

    def _study(self, arm: str, study: int) -> optuna.Study:
        if (arm, study) not in self._studies:
            direction = StudyDirection[self.spec.objective.direction.upper()]
            with quietly():
                self._studies[arm, study] = optuna.create_study(
                    storage=self._storage,
                    study_name=f"{self.spec.name}/{arm}" + (f"/{study}" if study else ""),
                    direction=direction,
                    load_if_exists=True,
                )
        return self._studies[arm, study]


def best(trials: list[Trial], objective: Objective) -> Trial | None:
    """The best finished search trial: by the metric, then the tie breaker, then the earlier one."""
    finished = [t for t in trials if t.job.phase == SEARCH and t.state == FINISHED]
    return max(finished, key=lambda trial: merit(trial, objective), default=None)


def _trial(frozen: FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    job = Job(arm=attributes["arm"], params=dict(frozen.params), **attributes["job"])
    run = dict(attributes.get("run", {}))
    details = attributes.get("outcome", {})
    state = _STATES[frozen.state]
    if state == DIVERGED and details.get("state") == PRUNED:
        state = PRUNED
    value = frozen.value if state == FINISHED else None
    if state == PRUNED and frozen.last_step is not None:
        value = frozen.intermediate_values[frozen.last_step]
    return Trial(
        number=frozen.number,
        key=frozen._trial_id,
        job=job,
        state=state,
        outcome=Outcome(**{**details, "state": state, "value": value}) if state in ENDED else None,
        owner=Owner(**owner) if (owner := attributes.get("owner")) else None,
        run=run.pop("name", None),
        worker=run,
        losses=attributes.get("losses", 0),
    )
