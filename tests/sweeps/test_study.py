import json
import warnings

import optuna
import pytest
import toy_task
from optuna.trial import TrialState

from bbi_lightning.sweeps.points import arm_points
from bbi_lightning.sweeps.study import Studies, best, repair_journal
from bbi_lightning.sweeps.trial import REPLICATE, SEARCH, Job, Outcome, Trial, due

OBJECTIVE = toy_task.spec().objective


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.log"


def planned(journal, **changes):
    studies = Studies(journal, toy_task.spec(**changes))
    studies.plan()
    return studies


def finish(studies, trial, value=0.5, tie=None, state="finished"):
    assert studies.claim(trial)
    studies.tell(
        trial, Outcome(state, value=value if state == "finished" else None, tie_breaker=tie, seconds=1.0)
    )


def finish_search(studies, arm, values=(0.1, 0.4, 0.3, 0.2)):
    for trial, value in zip(studies.runnable()[arm], values, strict=True):
        finish(studies, trial, value)
    studies.plan_replicates(arm)


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
        assert all(t.job.phase == SEARCH for t in studies.runnable()[arm])
        finish_search(studies, arm)
        replicates = studies.runnable()[arm]
        assert [(t.job.phase, t.job.of, t.job.index, t.job.seed) for t in replicates] == [
            (REPLICATE, 1, 0, 1000),
            (REPLICATE, 1, 1, 1001),
        ]
        assert {t.job.params["x"] for t in replicates} == {studies.trials(arm)[1].job.params["x"]}


def test_one_unfinished_search_trial_holds_the_replicates_back(journal):
    studies = planned(journal)
    *first, last = studies.runnable()["plain"]
    for trial in first:
        finish(studies, trial)
    assert studies.claim(last)
    studies.plan_replicates("plain")
    assert studies.runnable()["plain"] == []
    studies.tell(last, Outcome("diverged"))
    studies.plan_replicates("plain")
    assert len(studies.runnable()["plain"]) == 2


def test_a_search_without_a_finished_trial_has_no_replicates(journal):
    studies = planned(journal)
    for trial in studies.runnable()["plain"]:
        finish(studies, trial, state="diverged")
    studies.plan_replicates("plain")
    assert len(studies.trials("plain")) == 4


def test_a_longer_search_with_a_better_point_gets_fresh_replicates(journal):
    studies = planned(journal)
    finish_search(studies, "plain")
    finish(studies, studies.runnable()["plain"][0])  # one of the two old replicates

    studies = planned(journal, search={"trials": 5})
    assert [t.job.place for t in studies.runnable()["plain"]] == [(SEARCH, 4, 4)], "the search comes first"
    finish(studies, studies.runnable()["plain"][0], 0.9)
    studies.plan_replicates("plain")
    assert [t.job.place for t in studies.runnable()["plain"]] == [(REPLICATE, 4, 0), (REPLICATE, 4, 1)]
    assert len(studies.due("plain")) == 7


def test_a_longer_search_without_a_better_point_keeps_its_replicates(journal):
    studies = planned(journal)
    finish_search(studies, "plain")
    finish(studies, studies.runnable()["plain"][0])

    studies = planned(journal, search={"trials": 5}, replicates={"count": 3})
    finish(studies, studies.runnable()["plain"][0], 0.1)
    studies.plan_replicates("plain")
    assert [t.job.place for t in studies.runnable()["plain"]] == [(REPLICATE, 1, 1), (REPLICATE, 1, 2)]


def test_a_trial_is_claimed_once(journal):
    one, other = planned(journal), planned(journal)
    trial = one.runnable()["plain"][0]
    assert one.claim(trial)
    assert not other.claim(trial)
    assert trial.key not in {t.key for t in other.runnable()["plain"]}


def test_what_is_told_is_read_by_others_and_by_optuna(journal):
    studies = planned(journal)
    good, bad, broken, _ = studies.runnable()["plain"]
    for trial in (good, bad, broken):
        assert studies.claim(trial)
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
    return Trial(number, number, job, state, Outcome(state, value, tie), None, {}, 0)


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


def test_a_torn_last_line_is_dropped(journal):
    studies = planned(journal)
    whole = journal.read_bytes()
    for torn in (b'{"op_code":6,"trial', b"\x00\x00\x00\n", b'{"op_code":6\n'):
        journal.write_bytes(whole + torn)
        sentence = repair_journal(journal)
        assert sentence == f"{journal}: dropped a half-written last line of {len(torn)} bytes"
        assert journal.read_bytes() == whole
    assert repair_journal(journal) is None
    assert Studies(journal, studies.spec).trials("plain") == studies.trials("plain")


@pytest.mark.parametrize("content", [None, b"", b"{", b"\n"])
def test_a_journal_that_holds_nothing_is_no_harm(journal, content):
    if content is not None:
        journal.write_bytes(content)
    repair_journal(journal)
    assert len(planned(journal).trials("plain")) == 4


def test_the_lock_of_a_killed_writer_is_taken_away(journal):
    planned(journal)
    journal.with_name("journal.log.lock").symlink_to(journal)
    repair_journal(journal)
    assert len(planned(journal, search={"trials": 5}).trials("plain")) == 5


def test_damage_in_the_middle_is_one_sentence(journal):
    spec = planned(journal).spec
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:20] + b"\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"journal.log is damaged .* restore it from a copy, or delete it"):
        Studies(journal, spec)


def test_the_journal_is_plain_json(journal):
    planned(journal)
    assert all(isinstance(json.loads(line), dict) for line in journal.read_text().splitlines())
