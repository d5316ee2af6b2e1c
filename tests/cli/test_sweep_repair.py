"""`bbi sweep retry`, `extend`, `add` and `cancel`: what they change in a sweep, and what they refuse."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

SWEEPS = Path(__file__).parents[1] / "sweeps"
sys.path.insert(0, str(SWEEPS))

import toy_task  # noqa: E402

from bbi_lightning.cli import app  # noqa: E402
from bbi_lightning.sweeps.folder import SweepFolder  # noqa: E402
from bbi_lightning.sweeps.study import Studies  # noqa: E402
from bbi_lightning.sweeps.trial import Outcome, Owner  # noqa: E402
from bbi_lightning.sweeps.workers import Presence  # noqa: E402

PATIENCE = 60.0  # seconds
ALIVE = lambda owner: True  # noqa: E731


class Sweep:
    """A sweep of formulas on disk, and the verbs on it."""

    def __init__(self, root, **changes):
        self.root = root
        spec = toy_task.spec(task="toy_task:TASK", **changes)
        self.folder = SweepFolder(root / "toy")
        self.folder.write_spec(spec)
        self.studies = Studies(self.folder.journal, spec)
        self.studies.plan()

    def __call__(self, verb, *words, code=0):
        arguments = ["sweep", verb, "toy", *map(str, words), "--dir", str(self.root)]
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100", "TERM": "dumb"})
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    def end(self, name, outcome, losses=0):
        trial = toy_task.begin(self.studies, self.trial(name))
        for _ in range(losses):
            self.studies.note_loss(trial)
        assert self.studies.tell(trial, outcome)

    def trial(self, name):
        return next(trial for trial in self.trials() if trial.job.name == name)

    def trials(self):
        """Those that count, as another process reads them."""
        studies = Studies(self.folder.journal, self.folder.read_spec())
        return [trial for arm in studies.spec.arms for trial in studies.due(arm.name)]

    def states(self):
        return {trial.job.name: trial.state for trial in self.trials()}


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


@pytest.fixture
def spoiled(sweep):
    """plain/0 finished, plain/1 failed, plain/2 failed after losses, plain/3 cancelled."""
    sweep.end("plain/0", Outcome("finished", 0.9))
    sweep.end("plain/1", Outcome("failed", error="no memory"))
    sweep.end("plain/2", Outcome("failed", error="its process left no result, twice"), losses=2)
    sweep("cancel", "--trial", "plain/3")
    return sweep


def waiting(sweep):
    return {name for name, state in sweep.states().items() if state == "waiting" and "plain" in name}


def test_retry_failed_means_what_failed_and_not_what_was_cancelled(spoiled):
    replicates = {"plain/r0", "plain/r1"}
    assert waiting(spoiled) == replicates
    assert "2 trials will run once more" in spoiled("retry", "--failed")
    assert waiting(spoiled) == replicates | {"plain/1", "plain/2"}
    assert "0 trials will run once more" in spoiled("retry", "--failed")


def test_retry_lost_means_what_failed_of_losses(spoiled):
    assert "1 trial will run once more" in spoiled("retry", "--lost")
    assert spoiled.states()["plain/2"] == "waiting"
    assert spoiled.trial("plain/2").losses == 0


def test_a_cancelled_trial_runs_again_when_it_is_named(spoiled):
    spoiled("retry", "plain/3")
    assert spoiled.states()["plain/3"] == "waiting"


def test_what_is_retried_keeps_its_point_and_seed(spoiled):
    before = spoiled.trial("plain/1").job
    spoiled("retry", "plain/1")
    assert spoiled.trial("plain/1").job == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which trials are meant is missing: add --failed, --lost, or names such as sgd/3"),
        (["plain/0"], "plain/0 is finished: only a failed trial can be retried"),
        (["plain/1", "wide/0"], "wide/0 waits for its turn: there is nothing to retry"),
        (["plain/9"], "plain/9 is not there: plain has plain/0 to plain/3"),
    ],
)
def test_retry_refuses_and_changes_nothing(spoiled, words, sentence):
    before = spoiled.folder.journal.read_bytes()
    assert f"error: {sentence}" in spoiled("retry", *words, code=2)
    assert spoiled.folder.journal.read_bytes() == before


def test_a_trial_of_a_living_worker_cannot_be_retried_and_one_of_a_vanished_can(sweep):
    with Presence(sweep.folder.workers, 1) as presence:
        trial = sweep.studies.claim(presence.info.owner, ALIVE)
        name = trial.job.name
        assert f"{name} is under way: there is nothing to retry" in sweep("retry", name, code=2)
        assert "0 trials" in sweep("retry", "--lost")
        assert sweep.trial(name).owner == presence.info.owner
    assert "1 trial will run" in sweep("retry", "--lost")
    assert (sweep.trial(name).owner, sweep.states()[name]) == (None, "running"), "whoever looks takes it up"


def test_extend_adds_trials_and_leaves_those_there_are(sweep):
    before = {trial.job.name: trial.job for trial in sweep.trials()}
    assert "6 runs more" in sweep("extend", "3")
    after = {trial.job.name: trial.job for trial in sweep.trials()}
    assert len(after) == 2 * 7
    assert {name: after[name] for name in before} == before


def test_extend_adds_replicates_of_what_is_chosen_already(sweep):
    for index in range(4):
        sweep.end(f"plain/{index}", Outcome("finished", 0.5 + index / 10))
    sweep("extend", "--replicates", "2")
    chosen = [trial.job for trial in sweep.trials() if trial.job.phase == "replicate"]
    assert [(job.name, job.of, job.seed) for job in chosen] == [
        (f"plain/r{i}", 3, 1000 + i) for i in range(4)
    ]


def test_extend_adds_an_independent_search_with_points_and_a_seed_of_its_own(sweep):
    sweep("extend", "--studies", "1")
    first, second = sweep.trial("plain/0").job, sweep.trial("plain/1:0").job
    assert first.params != second.params
    assert (first.seed, second.seed) == (0, 1)
    assert len(sweep.trials()) == 2 * 2 * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "by how much is missing: give a number of trials, --replicates or --studies"),
        (["1"], "search.trials=5, but the grid of arms.plain.space has 4 points: make them equal"),
    ],
)
def test_extend_refuses_and_changes_nothing(tmp_path, words, sentence):
    grid = {"plain": {"space": {"x": {"choices": [0.1, 0.2, 0.3, 0.4]}}}}
    sweep = Sweep(tmp_path, arms=grid, search={"sampler": "grid", "trials": 4})
    files = sweep.folder.journal, sweep.folder.spec_file
    before = [file.read_bytes() for file in files]
    assert f"error: {sentence}" in sweep("extend", *words, code=2)
    assert [file.read_bytes() for file in files] == before


def test_an_added_trial_runs_with_the_searches_seed_and_is_never_the_best(sweep):
    assert "wide/a0 was added" in sweep("add", "wide", "y=0", "x=1e-2")
    sweep("add", "wide", "x=0.2", "y=-0.5")
    job = sweep.trial("wide/a0").job
    assert (list(job.params.items()), job.seed) == ([("x", 0.01), ("y", 0)], 0)
    sweep.end("wide/a0", Outcome("finished", 1.0))
    for index in range(4):
        sweep.end(f"wide/{index}", Outcome("finished", 0.1))
    assert {t.job.of for t in sweep.trials() if t.job.phase == "replicate"} == {0}
    assert sweep.states()["wide/a1"] == "waiting"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plan", "x=0.1"], "the sweep has no arm plan: did you mean plain?"),
        (["plain", "y=0.1"], "arm plain searches x: give x=VALUE"),
        (["wide", "x=0.1", "y=0", "z=1"], "arm wide does not search z: use one of x, y"),
        (["plain", "x"], "x is no part of a point: write it as optim.lr=0.1"),
        (["plain", "x=much"], "x=much is outside the space of arm plain: it goes from 0.001 to 100.0"),
        (["plain", "x=50"], "arm plain: x=50 is above 10: use less"),
    ],
)
def test_a_point_that_is_none_of_the_arms_is_refused(tmp_path, words, sentence):
    sweep = Sweep(
        tmp_path,
        arms={
            "plain": {"space": {"x": {"low": 0.001, "high": 100.0}}},
            "wide": {"space": {"x": {"low": 0.001, "high": 1.0}, "y": {"low": -1.0, "high": 1.0}}},
        },
    )
    before = sweep.folder.journal.read_bytes()
    assert f"error: {sentence}" in sweep("add", *words, code=2)
    assert sweep.folder.journal.read_bytes() == before


def test_cancelling_the_last_open_trial_of_a_search_starts_its_replicates(sweep):
    for index in range(3):
        sweep.end(f"plain/{index}", Outcome("finished", 0.5))
    assert "Cancelled: plain/3" in sweep("cancel", "--trial", "plain/3")
    assert sweep.trial("plain/3").outcome.error == "cancelled by hand"
    assert sweep.states()["plain/r0"] == "waiting"


def test_status_tells_what_was_cancelled_from_what_failed(spoiled):
    said = spoiled("status")
    assert "1 cancelled  2 failed" in said
    assert "2 of the runs failed:" in said


def test_cancel_refuses_a_trial_that_has_ended_and_leaves_the_others_of_the_command(sweep):
    sweep.end("plain/0", Outcome("finished", 0.5))
    said = sweep("cancel", "--trial", "plain/1", "--trial", "plain/0", code=2)
    assert "plain/0 is finished already: there is nothing to cancel" in said
    assert sweep.states()["plain/1"] == "waiting"


def test_a_result_that_comes_after_the_cancellation_is_not_told(sweep):
    trial = sweep.studies.claim(Owner("me", "1"), ALIVE)
    sweep("cancel", "--trial", trial.job.name)
    assert not sweep.studies.tell(trial, Outcome("finished", 1.0))
    assert sweep.trial(trial.job.name).is_cancelled


@contextlib.contextmanager
def work(sweep):
    words = [sys.executable, "-m", "bbi_lightning.cli", "sweep", "work", str(sweep.folder.path), "--slots=2"]
    environment = os.environ | {"PYTHONPATH": str(SWEEPS)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, env=environment, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def at_work(sweep):
    return [trial for trial in sweep.trials() if trial.state == "running" and trial.run]


def test_the_worker_of_a_cancelled_trial_stops_it_and_goes_on_with_the_others(tmp_path):
    slow = {"overrides": ["seconds=600"], "space": {"x": {"low": 0.1, "high": 1.0}}}
    quick = {"overrides": ["seconds=0"], "space": {"x": {"low": 0.1, "high": 1.0}}}
    search = {"trials": 1}
    sweep = Sweep(
        tmp_path, base=[], arms={"slow": slow, "quick": quick}, search=search, replicates={"count": 0}
    )
    with work(sweep) as process:
        wait_for(lambda: any(trial.job.arm == "slow" for trial in at_work(sweep)))
        sweep("cancel", "--trial", "slow/0")
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert sweep.states() == {"slow/0": "failed", "quick/0": "finished"}
    assert sweep.trial("slow/0").is_cancelled


def test_cancel_sends_the_workers_away_and_another_run_goes_on(tmp_path):
    sweep = Sweep(tmp_path, base=["seconds=0.5"])
    with work(sweep) as process:
        wait_for(lambda: at_work(sweep))
        said = sweep("cancel")
        assert "Cancelled: 1 worker left." in said
        assert "goes on" in said
        output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output.splitlines()[-1]) == (0, "stopped: cancelled")
    assert {trial.owner for trial in sweep.trials() if trial.state == "running"} <= {None}
    description = tmp_path / "toy.yaml"
    description.write_text(yaml.safe_dump(sweep.folder.read_spec().plain()))
    words = [sys.executable, "-m", "bbi_lightning.cli", "sweep", "run", f"sweep={description}", "--live"]
    environment = os.environ | {"PYTHONPATH": str(SWEEPS)}
    subprocess.run([*words, "--dir", str(tmp_path)], env=environment, check=True, timeout=PATIENCE)
    assert set(sweep.states().values()) == {"finished"}
    assert len(sweep.trials()) == 12
