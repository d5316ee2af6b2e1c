import json
import warnings

import optuna
import pytest
import toy_task
from optuna.trial import TrialState
from toy_task import begin, runnable

from bbi_lightning.sweeps.points import arm_points
from bbi_lightning.sweeps.study import Studies, best
from bbi_lightning.sweeps.trial import ADDED, REPLICATE, SEARCH, Job, Outcome, Owner, Trial, due

ME = Owner("me", "1")
OBJECTIVE = toy_task.spec().objective


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.log"


def planned(journal, **changes):
    studies = Studies(journal, toy_task.spec(**changes))
    studies.plan()
    return studies


def finish(studies, trial, value=0.5, tie=None, state="finished"):
    assert studies.tell(
        begin(studies, trial),
        Outcome(state, value=value if state == "finished" else None, tie_breaker=tie, seconds=1.0),
    )


def finish_search(studies, arm, values=(0.1, 0.4, 0.3, 0.2)):
    for trial, value in zip(runnable(studies, arm), values, strict=True):
        finish(studies, trial, value)


def test_every_point_is_written_down_beforehand(journal):
    studies = planned(journal)
    for arm in studies.spec.arms:
        trials = studies.trials(arm.name)
        assert [t.job.params for t in trials] == arm_points(studies.spec, arm)
        assert [t.job.place for t in trials] == [(SEARCH, i, i) for i in range(4)]
        assert {t.state for t in trials} == {"waiting"}
        assert {t.job.seed for t in trials} == {0}


def test_planning_again_adds_nothing(journal):
    first = planned(journal)
    before = {arm: first.trials(arm) for arm in ("plain", "wide")}
    size = journal.stat().st_size
    again = planned(journal)
    assert {arm: again.trials(arm) for arm in ("plain", "wide")} == before
    assert journal.stat().st_size == size


def test_an_onlooker_writes_nothing_even_before_the_studies_exist(journal):
    journal.touch()
    onlooker = Studies(journal, toy_task.spec())
    assert onlooker.trials("plain") == []
    assert journal.read_bytes() == b""


def test_half_a_plan_is_completed(journal):
    studies = Studies(journal, toy_task.spec())
    arm = studies.spec.arm("plain")
    studies.enqueue(Job("plain", SEARCH, 0, 0, 0, arm_points(studies.spec, arm)[0]))
    studies.plan()
    assert [t.job.index for t in studies.trials("plain")] == [0, 1, 2, 3]


def test_more_trials_are_appended_and_the_first_stay(journal):
    before = planned(journal).trials("wide")
    after = planned(journal, search={"trials": 9}).trials("wide")
    assert after[:4] == before
    assert [t.job.index for t in after] == list(range(9))


def test_replicates_come_when_the_search_is_over_with_paired_seeds(journal):
    studies = planned(journal)
    for arm in ("plain", "wide"):
        assert all(t.job.phase == SEARCH for t in runnable(studies, arm))
        finish_search(studies, arm)
        replicates = runnable(studies, arm)
        assert [(t.job.phase, t.job.of, t.job.index, t.job.seed) for t in replicates] == [
            (REPLICATE, 1, 0, 1000),
            (REPLICATE, 1, 1, 1001),
        ]
        assert {t.job.params["x"] for t in replicates} == {studies.trials(arm)[1].job.params["x"]}


def test_one_unfinished_search_trial_holds_the_replicates_back(journal):
    studies = planned(journal)
    *first, last = runnable(studies, "plain")
    for trial in first:
        finish(studies, trial)
    begin(studies, last)
    assert runnable(studies, "plain") == []
    studies.tell(last, Outcome("diverged"))
    assert len(runnable(studies, "plain")) == 2


def test_a_search_without_a_finished_trial_has_no_replicates(journal):
    studies = planned(journal)
    for trial in runnable(studies, "plain"):
        finish(studies, trial, state="diverged")
    assert len(studies.trials("plain")) == 4


def test_a_longer_search_with_a_better_point_gets_fresh_replicates(journal):
    studies = planned(journal)
    finish_search(studies, "plain")
    finish(studies, runnable(studies, "plain")[0])  # one of the two old replicates

    studies = planned(journal, search={"trials": 5})
    assert [t.job.place for t in runnable(studies, "plain")] == [(SEARCH, 4, 4)], "the search comes first"
    finish(studies, runnable(studies, "plain")[0], 0.9)
    assert [t.job.place for t in runnable(studies, "plain")] == [(REPLICATE, 4, 0), (REPLICATE, 4, 1)]
    assert len(studies.due("plain")) == 7


def test_a_longer_search_without_a_better_point_keeps_its_replicates(journal):
    studies = planned(journal)
    finish_search(studies, "plain")
    finish(studies, runnable(studies, "plain")[0])

    studies = planned(journal, search={"trials": 5}, replicates={"count": 3})
    finish(studies, runnable(studies, "plain")[0], 0.1)
    assert [t.job.place for t in runnable(studies, "plain")] == [(REPLICATE, 1, 1), (REPLICATE, 1, 2)]


def test_a_trial_is_claimed_once(journal):
    one, other = planned(journal), planned(journal)
    taken = [
        studies.claim(Owner(name, "1"), lambda owner: True) for studies, name in ((one, "a"), (other, "b"))
    ]
    assert taken[0].key != taken[1].key
    assert [t.owner for t in Studies(journal, one.spec).running()] == [Owner("a", "1"), Owner("b", "1")]


def test_claims_are_fair_between_arms(journal):
    studies = planned(journal)
    taken = [studies.claim(ME, lambda owner: True) for _ in range(8)]
    assert [t.job.arm for t in taken] == ["plain", "wide"] * 4
    assert studies.claim(ME, lambda owner: True) is None


def test_a_trial_that_was_let_go_is_taken_before_a_waiting_one(journal):
    studies = planned(journal)
    trial = studies.claim(ME, lambda owner: True)
    studies.release(trial)
    again = studies.claim(Owner("other", "1"), lambda owner: True)
    assert (again.key, again.owner) == (trial.key, Owner("other", "1"))


def test_a_trial_is_left_to_the_living_and_taken_from_the_vanished(journal):
    studies = planned(journal)
    trial = studies.claim(ME, lambda owner: True)
    other = Owner("other", "1")
    assert studies.claim(other, lambda owner: True).key != trial.key
    assert studies.claim(other, lambda owner: owner != ME).key == trial.key


def test_a_worker_takes_up_what_it_had_in_an_earlier_life_even_if_that_seems_alive(journal):
    studies = planned(journal)
    mine = studies.claim(ME, lambda owner: True)
    assert studies.claim(Owner(ME.id, "2"), lambda owner: True).key == mine.key


def test_who_has_lost_a_trial_cannot_tell_it_or_let_it_go(journal):
    studies = planned(journal)
    mine = studies.claim(ME, lambda owner: True)
    theirs = studies.claim(Owner("other", "1"), lambda owner: False)
    assert theirs.key == mine.key
    before = journal.read_bytes()
    assert not studies.tell(mine, Outcome("finished", 0.5))
    studies.release(mine)
    assert journal.read_bytes() == before
    assert studies.tell(theirs, Outcome("finished", 0.5))
    assert not studies.tell(theirs, Outcome("finished", 0.7)), "told once"
    assert studies.trials(mine.job.arm)[0].outcome.value == 0.5


def test_a_trial_by_hand_runs_in_the_search_and_is_never_selected(journal):
    studies = planned(journal)
    studies.enqueue(Job("plain", ADDED, 0, 0, 0, {"x": 0.5}))
    for trial in runnable(studies, "plain"):
        finish(studies, trial, 0.1)
    (added,) = [t for t in studies.due("plain") if t.job.phase == ADDED]
    assert (added.state, added.job.name) == ("waiting", "plain/a0")
    replicates = [t for t in studies.due("plain") if t.job.phase == REPLICATE]
    finish(studies, added, 0.9)
    assert [t.job.of for t in replicates] == [t.job.of for t in runnable(studies, "plain")]
    assert len(replicates) == 2


def test_a_failed_trial_runs_again_at_its_place(journal):
    studies = planned(journal)
    (first, *_) = runnable(studies, "plain")
    finish(studies, first, state="failed")
    studies.again(studies.due("plain")[0])
    assert [t.job.place for t in studies.due("plain")] == [(SEARCH, i, i) for i in range(4)]
    assert studies.due("plain")[0].state == "waiting"
    assert studies.due("plain")[0].key != first.key


def test_what_is_told_is_read_by_others_and_by_optuna(journal):
    studies = planned(journal)
    good, bad, broken, _ = runnable(studies, "plain")
    for trial in (good, bad, broken):
        begin(studies, trial)
        studies.note_start(trial, f"run-{trial.number}", {"host": "here", "pid": 7})
    studies.note_loss(broken)
    studies.tell(good, Outcome("finished", 0.75, 0.1, seconds=2.0))
    studies.tell(bad, Outcome("diverged", seconds=1.0))
    studies.tell(broken, Outcome("failed", error="ValueError: no"))

    trials = Studies(journal, studies.spec).trials("plain")
    assert [t.outcome for t in trials[:2]] == [
        Outcome("finished", 0.75, 0.1, seconds=2.0),
        Outcome("diverged", seconds=1.0),
    ]
    assert trials[2].outcome.error == "ValueError: no"
    assert (trials[2].losses, trials[2].run, trials[2].worker) == (1, "run-2", {"host": "here", "pid": 7})

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(storage=storage, study_name="toy/plain")
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING]
    assert [t.state for t in study.trials] == states
    assert study.best_value == 0.75
    assert study.best_params == good.job.params


def test_every_kind_of_space_survives_the_journal(journal):
    space = {
        "f": {"low": 1e-6, "high": 1.0, "log": True},
        "i": {"type": "int", "low": 1, "high": 512, "log": True},
        "c": {"choices": ["a", None, True, 0.5]},
    }
    studies = planned(journal, arms={"a": {"space": space}})
    read = Studies(journal, studies.spec).trials("a")
    expected = arm_points(studies.spec, studies.spec.arm("a"))
    assert [repr(t.job.params) for t in read] == [repr(p) for p in expected]


def test_optuna_says_nothing(journal, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned(journal)
        finish_search(planned(journal), "plain")
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO, "only silenced while we speak to it"


def trial(index, value=None, tie=None, state="finished", phase=SEARCH, number=0, of=None):
    job = Job("a", phase, index, index if of is None else of, 0, {})
    return Trial(number, number, job, state, Outcome(state, value, tie), None, None, {}, 0)


@pytest.mark.parametrize(
    ("trials", "winner"),
    [
        ([trial(0, 0.1), trial(1, 0.3), trial(2, 0.2)], 1),
        ([trial(0, 0.3, tie=0.5), trial(1, 0.3, tie=0.4)], 1),
        ([trial(0, 0.3, tie=0.5), trial(1, 0.3, tie=0.5)], 0),
        ([trial(0, 0.3), trial(1, 0.3, tie=99.0)], 1),
        ([trial(0, state="diverged"), trial(1, 0.1), trial(2, state="failed")], 1),
        ([trial(0, 0.1), trial(0, 0.9, phase=REPLICATE)], 0),
    ],
    ids=["metric", "tie", "earlier", "tie unknown", "only finished", "only searched"],
)
def test_the_best(trials, winner):
    chosen = best(trials, OBJECTIVE)
    assert (chosen.job.index, chosen.job.phase) == (winner, SEARCH)


def test_there_may_be_no_best():
    assert best([trial(0, state="diverged")], OBJECTIVE) is None


def test_the_successor_of_a_failed_trial_counts():
    failed, again = trial(0, state="failed", number=0), trial(0, 0.5, number=3)
    assert due([failed, trial(1, 0.1, number=1), again], again) == [again, trial(1, 0.1, number=1)]


def test_the_journal_is_plain_json(journal):
    planned(journal)
    assert all(isinstance(json.loads(line), dict) for line in journal.read_text().splitlines())
