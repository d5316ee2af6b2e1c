"""Where a sweep stands is told from its trials and from who is at work."""

import json

import pytest
import toy_task
from toy_task import begin, runnable

from bbi_lightning.sweeps.status import read_status
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import ADDED, Job, Outcome, Owner
from bbi_lightning.sweeps.workers import WorkerInfo

ALIVE = WorkerInfo(Owner("alive", "1"), "here", 1, None, slots=3, since="2026-01-01T00:00:00+00:00")
GONE = Owner("gone", "1")


@pytest.fixture
def studies(tmp_path):
    studies = Studies(tmp_path / "journal.log", toy_task.spec())
    studies.plan()
    return studies


def end(studies, trial, state="finished", **details):
    outcome = Outcome(state, value=0.5 if state == "finished" else None, **{"seconds": 2.0} | details)
    assert studies.tell(begin(studies, trial), outcome)


def arm(status, name="plain"):
    return next(arm for arm in status.arms if arm.arm.name == name)


def test_every_trial_is_counted_in_its_state(studies):
    one, two, three, _ = runnable(studies, "plain")
    end(studies, one)
    end(studies, two, "diverged")
    end(studies, three, "pruned")
    end(studies, runnable(studies, "wide")[0], "failed", error="ValueError: no")
    status = read_status(studies)
    plain, wide = arm(status), arm(status, "wide")
    assert (plain.searched, plain.diverged, plain.pruned, plain.failed) == (3, 1, 1, 0)
    assert (wide.searched, wide.diverged, wide.pruned, wide.failed) == (1, 0, 0, 1)
    assert (status.ended, status.total, status.done) == (4, 12, False)


def test_what_nobody_living_has_is_interrupted(studies):
    for owner in (ALIVE.owner, GONE, GONE):
        assert studies.claim(owner, lambda _: True)
    status = read_status(studies, living=[ALIVE])
    assert sum(arm.running for arm in status.arms) == status.running == 1
    assert sum(arm.interrupted for arm in status.arms) == 2
    earlier_life = WorkerInfo(**{**vars(ALIVE), "owner": Owner("alive", "2")})
    assert read_status(studies, living=[earlier_life]).running == 0


def test_a_trial_by_hand_is_counted_and_is_never_the_best(studies):
    studies.enqueue(Job("plain", ADDED, 0, 0, 0, {"x": 0.5}))
    (added,) = [trial for trial in studies.due("plain") if trial.job.phase == ADDED]
    assert (arm(read_status(studies)).added_in_all, arm(read_status(studies)).added) == (1, 0)
    end(studies, added)
    status = read_status(studies)
    assert (arm(status).added, arm(status).best, status.total, status.ended) == (1, None, 13, 1)


def test_the_time_left_is_told_from_measured_durations_and_living_slots(studies):
    assert read_status(studies).eta is None
    end(studies, runnable(studies, "plain")[0], seconds=6.0)
    assert read_status(studies, living=[ALIVE]).eta == 11 * 6.0 / 3
    assert read_status(studies, living=[ALIVE, ALIVE]).eta == 11 * 6.0 / 6
    assert read_status(studies).eta == 11 * 6.0 / 2, "nobody is at work: as many as the description says"
    claimed = studies.claim(ALIVE.owner, lambda _: True)
    assert read_status(studies, {claimed.key: 4.0}, living=[ALIVE]).eta == (11 * 6.0 - 4.0) / 3


def test_a_trial_told_without_running_does_not_make_the_others_look_fast(studies):
    first, second, *_ = runnable(studies, "plain")
    end(studies, first, seconds=0.0)
    end(studies, second, seconds=6.0)
    assert arm(read_status(studies)).seconds == 6.0


def test_failures_are_grouped_by_the_last_line_of_the_traceback(studies):
    errors = ["Traceback\n  line 3\nValueError: no\n", "ValueError: no", "KeyError: 'x'", None]
    for trial, error in zip(runnable(studies, "plain"), errors, strict=True):
        end(studies, trial, "failed", error=error)
    groups = read_status(studies).failure_groups()
    assert [(line, len(trials)) for line, trials in groups] == [
        ("ValueError: no", 2),
        ("KeyError: 'x'", 1),
        ("unknown", 1),
    ]
    assert groups[0][1][0].job.name == "plain/0"


def test_a_blank_error_does_not_break_the_status(studies):
    end(studies, runnable(studies, "plain")[0], "failed", error=" \n")
    assert [line for line, _ in read_status(studies).failure_groups()] == ["unknown"]


def test_a_failed_trial_that_runs_again_is_no_failure(studies):
    end(studies, runnable(studies, "plain")[0], "failed", error="ValueError: no")
    studies.again(studies.due("plain")[0])
    assert (read_status(studies).failures, read_status(studies).ended) == ((), 0)


def test_all_is_done_when_the_replicates_have_ended_too(studies):
    for name in ("plain", "wide"):
        for trial in runnable(studies, name):
            end(studies, trial)
        assert not read_status(studies).done
        for trial in runnable(studies, name):
            end(studies, trial)
    status = read_status(studies)
    assert (status.done, status.ended, status.total, status.eta) == (True, 12, 12, 0.0)


def test_a_search_without_a_result_leaves_nothing_to_replicate(studies):
    for trial in runnable(studies, "plain"):
        end(studies, trial, "diverged")
    assert (arm(read_status(studies)).replicates, read_status(studies).total) == (0, 10)


def test_the_plain_form_is_json_and_says_the_same(studies):
    end(studies, runnable(studies, "plain")[0])
    end(studies, runnable(studies, "wide")[0], "failed", error="ValueError: no")
    studies.claim(ALIVE.owner, lambda _: True)
    plain = json.loads(json.dumps(read_status(studies, living=[ALIVE]).plain()))
    assert (plain["total"], plain["ended"], plain["running"], plain["done"]) == (12, 2, 1, False)
    assert plain["arms"]["plain"]["best"]["value"] == 0.5
    assert plain["arms"]["wide"]["failures"][0]["error"] == "ValueError: no"
    assert plain["arms"]["wide"]["failures"][0]["trial"] == "wide/0"
    assert plain["workers"][0]["owner"] == {"id": "alive", "incarnation": "1"}
