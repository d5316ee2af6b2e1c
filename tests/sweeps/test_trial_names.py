"""Trials are found by the names that are shown."""

import pytest
import toy_task
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.sweeps import SweepError
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import ADDED, REPLICATE, SEARCH, Job
from bbi_lightning.sweeps.trial_names import TrialName, find_trials, parse_name

NUMBER = st.integers(0, 10**6)
ARM = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)


@pytest.fixture
def studies(tmp_path):
    studies = Studies(tmp_path / "journal.log", toy_task.spec(search={"trials": 3, "studies": 2}))
    studies.plan()
    studies.enqueue(Job("wide", ADDED, 0, 0, 0, {"x": 0.5, "y": 0.0}))
    return studies


@given(arm=ARM, study=NUMBER, phase=st.sampled_from([SEARCH, REPLICATE, ADDED]), index=NUMBER)
def test_a_printed_name_reads_as_what_it_was_printed_from(arm, study, phase, index):
    name = Job(arm, phase, index, 0, 0, {}, study).name
    assert parse_name(name) == TrialName(arm, study, phase, index)


def test_every_trial_is_found_by_its_name(studies):
    trials = [trial for arm in ("plain", "wide") for trial in studies.due(arm)]
    assert len(trials) == 2 * 2 * 3 + 1
    assert find_trials(studies, [trial.job.name for trial in trials]) == trials


def test_a_trial_named_twice_is_meant_once(studies):
    assert [t.job.name for t in find_trials(studies, ["wide/a0", "plain/1:2", "wide/a0"])] == [
        "wide/a0",
        "plain/1:2",
    ]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("3", "3 names no trial: write it as ARM/NUMBER, such as sgd/3, or sgd/r0 a replicate"),
        ("plain/x3", "plain/x3 names no trial"),
        ("plain/-1", "plain/-1 names no trial"),
        ("plan/0", "plan/0: the sweep has no arm plan: did you mean plain?"),
        ("plain/3", "plain/3 is not there: plain has plain/0 to plain/2"),
        ("plain/1:3", "plain/1:3 is not there: plain has plain/1:0 to plain/1:2"),
        ("plain/2:0", "plain/2:0: the arm is searched 2 times, numbered from 0: use 1 or less"),
        ("plain/r0", "plain/r0 is not there: plain has no such trials: they follow when its search is over"),
        ("plain/a0", "plain/a0 is not there: plain has no such trials"),
    ],
)
def test_a_name_that_fits_no_trial_is_answered_with_what_does(studies, word, sentence):
    with pytest.raises(SweepError) as error:
        find_trials(studies, [word])
    assert str(error.value).startswith(sentence)
