"""What a worker does when memory, time, disk or the description change under it."""

import dataclasses
import os
import re
import time
from multiprocessing import forkserver

import pytest
import toy_task

from bbi_lightning.sweeps import Task, child, worker
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.worker import Limits, Worker

X = {"x": {"low": 0.001, "high": 1.0, "log": True}}
ARMS = {"plain": {"space": X}}


def hog(overrides, root, labels):
    """As the toy, but above x = 0.1 it holds half a GiB for a while."""
    held = b"x" * (512 << 20) if toy_task.settings(overrides)["x"] > 0.1 else b""
    if held:
        time.sleep(60)
    toy_task.run(overrides, root, labels)


def surroundings(overrides, root, labels):
    (root / "environment.txt").write_text("\n".join(sorted(os.environ)))
    toy_task.run(overrides, root, labels)


def prepared(root, sweep):
    """The sweep's folder with every trial written down, none run."""
    from bbi_lightning.sweeps.folder import SweepFolder

    folder = SweepFolder(root / "toy")
    folder.runs.mkdir(parents=True)
    folder.write_spec(sweep)
    Studies(folder.journal, sweep).plan()
    return folder


def work(folder, task=toy_task.TASK, report=lambda studies, running: None, **limits):
    return Worker(folder, task, child.fork_server(()), Limits(**limits), report).work()


def states(folder):
    return {t.key: t for t in Studies(folder.journal, folder.read_spec()).trials("plain")}


def test_a_trial_that_uses_too_much_memory_fails_in_words_and_the_others_go_on(tmp_path):
    sweep = toy_task.spec(arms=ARMS, replicates={"count": 0})
    folder = prepared(tmp_path, sweep)
    task = Task(run=hog, run_name=toy_task.run_name, validate=toy_task.validate)
    assert work(folder, task, memory=400 << 20, places=(child.threads(1),) * 2) == "done"
    trials = states(folder).values()
    big = [t for t in trials if t.job.params["x"] > 0.1]
    assert big
    assert {t.state for t in trials if t not in big} == {"finished"}
    for trial in big:
        assert trial.state == "failed"
        used = re.fullmatch(r"used (\d+) MiB of memory, more than the 400 MiB it may", trial.outcome.error)
        assert used  # seen while it still grows, or at its full half GiB
        assert int(used[1]) >= 400


def test_a_worker_whose_time_is_up_lets_its_trials_go(tmp_path):
    sweep = toy_task.spec(arms=ARMS, base=["seconds=60"], replicates={"count": 0})
    folder = prepared(tmp_path, sweep)
    began = time.monotonic()
    assert work(folder, deadline=began + 3.0, grace=2.0) == "time"
    assert time.monotonic() - began < 20
    trials = list(states(folder).values())
    assert {t.state for t in trials} == {"waiting", "running"}
    assert {t.owner for t in trials} == {None}, "whoever looks next takes them up"


def test_a_stop_file_makes_a_worker_leave_and_keeps_what_has_no_result(tmp_path):
    sweep = toy_task.spec(arms=ARMS, base=["seconds=60"], replicates={"count": 0})
    folder = prepared(tmp_path, sweep)

    def stop(studies, running):
        if any(slot.run for slot in running):
            folder.stop_file.touch()

    assert work(folder, report=stop, grace=2.0) == "cancelled"
    assert not any(t.ended or t.owner for t in states(folder).values())


def test_a_sweep_that_grows_while_a_worker_runs_is_run_to_its_new_end(tmp_path):
    sweep = toy_task.spec(arms=ARMS, base=["seconds=1"], search={"trials": 3}, replicates={"count": 0})
    folder = prepared(tmp_path, sweep)
    grown = dataclasses.replace(sweep, search=dataclasses.replace(sweep.search, trials=5))

    def grow(studies, running):
        if running and folder.read_spec() != grown:
            folder.write_spec(grown)
            Studies(folder.journal, grown).plan()

    assert work(folder, report=grow) == "done"
    assert sorted(t.job.index for t in states(folder).values()) == [0, 1, 2, 3, 4]
    assert {t.state for t in states(folder).values()} == {"finished"}


@pytest.mark.filterwarnings("ignore:the sweep's journal cannot be written")
def test_a_full_disk_delays_an_outcome_and_does_not_lose_it(tmp_path, monkeypatch):
    sweep = toy_task.spec(arms=ARMS, replicates={"count": 0})
    folder = prepared(tmp_path, sweep)
    tell, refused = Studies.tell, []

    def full(self, trial, outcome):
        if len(refused) < 2:
            refused.append(trial.key)
            raise OSError(28, "No space left on device")
        return tell(self, trial, outcome)

    monkeypatch.setattr(Studies, "tell", full)
    monkeypatch.setattr(worker, "_PATIENCE", (0.01, 0.02))
    assert work(folder) == "done"
    assert len(refused) == 2
    assert {t.state for t in states(folder).values()} == {"finished"}


@pytest.fixture
def fresh_server():
    """Children see the environment in which their server was started."""
    kill_server_and_wait()
    yield
    kill_server_and_wait()


def kill_server_and_wait():
    pid = forkserver._forkserver._forkserver_pid
    if pid is not None:
        child.kill_server()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # left for multiprocessing to reap


@pytest.mark.usefixtures("fresh_server")
def test_a_trial_is_no_task_of_the_job_step_its_worker_is(tmp_path, monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_ID", "SLURM_JOB_END_TIME"):
        monkeypatch.setenv(name, "1")
    sweep = toy_task.spec(arms=ARMS, search={"trials": 1}, replicates={"count": 0})
    folder = prepared(tmp_path, sweep)
    task = Task(run=surroundings, run_name=toy_task.run_name, validate=toy_task.validate)
    assert work(folder, task) == "done"
    seen = [n for n in (folder.runs / "environment.txt").read_text().split() if n.startswith("SLURM_")]
    assert seen == ["SLURM_JOB_END_TIME"]
