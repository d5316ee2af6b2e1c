"""Several independent searches of an arm, and searches whose points depend on results, in the journal."""

import pytest
import toy_task

from bbi_lightning.sweeps.points import STARTUP
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import Outcome, Owner

ME = Owner("me", "1")


def planned(tmp_path, **search):
    sweep = toy_task.spec(search={"sampler": "halton", "trials": 3, "seed": 7} | search)
    studies = Studies(tmp_path / "journal.log", sweep)
    studies.plan()
    return studies


def run_all(studies):
    while trial := studies.claim(ME, lambda owner: True):
        assert studies.tell(trial, Outcome("finished", value=trial.job.params["x"]))
    assert studies.is_over()


def test_each_search_has_its_own_points_and_seed_and_replicates_its_own_best(tmp_path):
    studies = planned(tmp_path, studies=2)
    run_all(studies)
    for arm in ("plain", "wide"):
        due = studies.due(arm)
        search = [t.job for t in due if t.job.phase == "search"]
        assert {(job.study, job.seed) for job in search} == {(0, 7), (1, 8)}
        assert len({repr(job.params) for job in search}) == 6
        for study in (0, 1):
            best = max((job for job in search if job.study == study), key=lambda job: job.params["x"])
            again = [t.job for t in due if t.job.phase == "replicate" and t.job.study == study]
            assert [(job.seed, job.params) for job in again] == [(s, best.params) for s in (1000, 1001)]
        assert len({t.job.name for t in due}) == len(due)
    assert Studies(tmp_path / "journal.log", studies.spec).due("wide") == studies.due("wide")


def test_studies_can_be_added(tmp_path):
    run_all(planned(tmp_path, studies=1))
    studies = planned(tmp_path, studies=2)
    assert studies.left() == 2 * (3 + 2)
    run_all(studies)
    assert len(studies.due("plain")) == 2 * (3 + 2)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_point_that_depends_on_results_is_chosen_when_its_trial_is_claimed(tmp_path, sampler):
    studies = planned(tmp_path, sampler=sampler, trials=STARTUP + 3)
    waiting = [t.job.params for t in studies.due("wide")]
    assert all(waiting[:STARTUP])
    assert waiting[STARTUP:] == [{}] * 3
    run_all(studies)
    points = [t.job.params for t in studies.due("wide") if t.job.phase == "search"]
    assert len({repr(point) for point in points}) == STARTUP + 3
    assert all(set(point) == {"x", "y"} for point in points)
    again = Studies(tmp_path / "journal.log", studies.spec)
    assert again.due("wide") == studies.due("wide")
