import math

import pytest
import toy_task

from bbi_lightning.sweeps.outcome import cause_of_death, failure_of, result_of
from bbi_lightning.sweeps.trial import Outcome
from bbi_lightning.tracking.run_folder import RunFolder

OBJECTIVE = toy_task.spec().objective


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run-s0"


def end(path, state, summary=None, exception=None):
    folder = RunFolder.create(path, config="{}\n")
    folder.begin_attempt()
    folder.end_attempt(state, summary=summary, exception=exception)


@pytest.mark.parametrize(
    ("summary", "outcome"),
    [
        ({"val/acc": 0.5, "val/loss": 1.5}, Outcome("finished", 0.5, 1.5)),
        ({"val/acc": 1}, Outcome("finished", 1.0)),
        ({"val/acc": 0.5, "val/loss": math.nan}, Outcome("finished", 0.5)),
        ({"val/acc": math.nan, "val/loss": 1.5}, Outcome("diverged")),
        ({"val/acc": math.inf}, Outcome("diverged")),
        (
            {"val/loss": 1.0, "steps": 3},
            Outcome("failed", error="the run reports no val/acc, only val/loss"),
        ),
        ({}, Outcome("failed", error="the run reports no val/acc, only nothing")),
    ],
    ids=str,
)
def test_a_finished_run(run, summary, outcome):
    end(run, "finished", summary)
    assert result_of(run, OBJECTIVE) == outcome


def test_a_diverged_run_is_a_result_whatever_it_reached_before(run):
    end(run, "diverged", {"val/acc": 0.99})
    assert result_of(run, OBJECTIVE) == Outcome("diverged")


def test_no_result_yet(run):
    assert result_of(run, OBJECTIVE) is None
    RunFolder.create(run, config="{}\n").begin_attempt()
    assert result_of(run, OBJECTIVE) is None
    assert failure_of(run, None) is None


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_neither_is_a_result(run, state):
    end(run, state)
    assert result_of(run, OBJECTIVE) is None


def test_the_traceback_is_kept(run):
    end(run, "failed", exception=RuntimeError("boom"))
    assert failure_of(run, None).error.splitlines()[-1] == "RuntimeError: boom"
    assert failure_of(None, "sent by the child") == Outcome("failed", error="sent by the child")
    assert failure_of(None, None) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "killed by SIGKILL"), (-200, "killed by signal 200"), (3, "ended with exit code 3")],
)
def test_the_cause_of_death(code, words):
    assert cause_of_death(code) == words
