"""A sweep that is interrupted, in whatever way, ends as one that never was: every trial exactly once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_task
from toy_task import ledger, spec

from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import FINISHED, RUNNING
from bbi_lightning.tracking.run_folder import RunFolder

NAP = {"base": ["seconds=0.25"]}
PATIENCE = 120.0  # seconds


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, toy_task.__file__, str(root), json.dumps(toy_task.description(**NAP))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(root: Path) -> str:
    process = start(root)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def trials(root: Path):
    journal = root / "toy" / "journal.log"
    if not journal.exists():
        return []
    studies = Studies(journal, spec(**NAP))
    return [t for arm in studies.spec.arms for t in studies.trials(arm.name)]


def wait_until(condition, what: str):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def at_work(root: Path, ended: int = 0):
    """The trials with a live process, once so many others have ended."""
    now = trials(root)
    running = [t for t in now if t.state == RUNNING and t.run]
    return running if running and sum(t.ended for t in now) >= ended else []


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


def assert_every_trial_ran_once(root: Path, uninterrupted):
    assert ledger(root) == uninterrupted
    ended = trials(root)
    places = [(t.job.arm, *t.job.place) for t in ended]
    assert len(set(places)) == len(places) == 12
    assert {t.state for t in ended} == {FINISHED}
    for trial in ended:
        *earlier, last = RunFolder(root / "toy/runs" / trial.run).record.attempts
        assert last.reason == "finished"
        assert {a.reason for a in earlier} <= {"lost"}, "a run that had a result was started again"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    root = tmp_path_factory.mktemp("uninterrupted")
    finish(root)
    assert len(ledger(root)) == 12
    return ledger(root)


@pytest.mark.parametrize(
    ("number", "code", "ended"),
    [
        (signal.SIGINT, 130, 0),
        (signal.SIGINT, 130, 9),
        (signal.SIGTERM, 143, 3),
        (signal.SIGHUP, 129, 0),
        (signal.SIGKILL, -9, 0),
        (signal.SIGKILL, -9, 9),
    ],
)
def test_stopped_and_started_again(tmp_path, uninterrupted, number, code, ended):
    process = start(tmp_path)
    running = wait_until(lambda: at_work(tmp_path, ended), "a running trial")
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, output
    wait_until(
        lambda: all(gone(t.worker["pid"]) for t in running), "the children to end with their supervisor"
    )
    assert not all(t.ended for t in trials(tmp_path))

    finish(tmp_path)
    assert_every_trial_ran_once(tmp_path, uninterrupted)


def test_ctrl_c_goes_to_the_whole_terminal(tmp_path, uninterrupted):
    process = start(tmp_path)
    wait_until(lambda: at_work(tmp_path), "a running trial")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    finish(tmp_path)
    assert_every_trial_ran_once(tmp_path, uninterrupted)


def test_killed_and_started_again_at_once(tmp_path, uninterrupted):
    process = start(tmp_path)
    wait_until(lambda: at_work(tmp_path, ended=3), "a running trial")
    process.kill()
    finish(tmp_path)  # its children may still be there
    process.communicate()
    assert_every_trial_ran_once(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_over_and_over(tmp_path, uninterrupted):
    for ended in (1, 4, 8):
        process = start(tmp_path)
        wait_until(lambda ended=ended: at_work(tmp_path, ended), "a running trial")
        process.kill()
        process.communicate()
    finish(tmp_path)
    assert_every_trial_ran_once(tmp_path, uninterrupted)


def test_a_killed_child_is_started_again_by_the_same_supervisor(tmp_path, uninterrupted):
    process = start(tmp_path)
    victim = wait_until(lambda: at_work(tmp_path, ended=2), "a running trial")[0]
    os.kill(victim.worker["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert_every_trial_ran_once(tmp_path, uninterrupted)
    assert next(t.losses for t in trials(tmp_path) if t.key == victim.key) == 1


def test_two_at_once_share_the_work(tmp_path, uninterrupted):
    processes = [start(tmp_path), start(tmp_path)]
    for process in processes:
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
    assert_every_trial_ran_once(tmp_path, uninterrupted)
    assert {a.reason for t in trials(tmp_path) for a in attempts(tmp_path, t)} == {"finished"}
    assert len({t.worker["supervisor"] for t in trials(tmp_path)}) == 2


def test_a_killed_workers_trials_are_taken_up_by_the_other(tmp_path, uninterrupted):
    victim, other = start(tmp_path), start(tmp_path)
    wait_until(
        lambda: [t for t in at_work(tmp_path) if t.worker["supervisor"] == victim.pid], "the victim's trials"
    )
    victim.kill()
    output, _ = other.communicate(timeout=PATIENCE)
    victim.communicate()
    assert other.returncode == 0, output
    assert_every_trial_ran_once(tmp_path, uninterrupted)


def test_a_storm_of_workers_runs_everything_once(tmp_path, uninterrupted):
    processes = [start(tmp_path) for _ in range(4)]
    for victim, ended in zip(processes, (2, 5, 8), strict=False):
        wait_until(lambda ended=ended: sum(t.ended for t in trials(tmp_path)) >= ended, f"{ended} trials")
        victim.kill()
    for process in processes:
        process.communicate(timeout=PATIENCE)
    finish(tmp_path)
    assert_every_trial_ran_once(tmp_path, uninterrupted)


def test_a_worker_that_was_stopped_for_too_long_doubles_nothing_when_it_goes_on(tmp_path, uninterrupted):
    victim, other = start(tmp_path), start(tmp_path)
    wait_until(
        lambda: [t for t in at_work(tmp_path) if t.worker["supervisor"] == victim.pid], "the victim's trials"
    )
    victim.send_signal(signal.SIGSTOP)
    try:
        (beat,) = (
            file
            for file in (tmp_path / "toy" / "workers").glob("*.json")
            if json.loads(file.read_text())["pid"] == victim.pid
        )
        os.utime(beat, (time.time() - 400,) * 2)
        output, _ = other.communicate(timeout=PATIENCE)
        assert other.returncode == 0, output
        assert all(t.ended for t in trials(tmp_path)), "nobody waits for it"
    finally:
        victim.send_signal(signal.SIGCONT)
    output, _ = victim.communicate(timeout=PATIENCE)
    assert victim.returncode == 0, output
    assert_every_trial_ran_once(tmp_path, uninterrupted)


def attempts(root: Path, trial):
    return RunFolder(root / "toy/runs" / trial.run).record.attempts


def test_a_child_that_will_not_save_is_killed_after_the_grace(tmp_path):
    """`sleep` in a shell of its own ignores SIGTERM: the process group is killed all the same."""
    from bbi_lightning.sweeps import child

    context = child.fork_server(())
    process, connection = child.start(context, stubborn)
    pid = connection.recv()
    began = time.monotonic()
    child.stop([process], grace=0.5)
    assert process.exitcode == -signal.SIGKILL
    assert 0.4 < time.monotonic() - began < 5
    wait_until(lambda: gone(pid), "the grandchild to end")


def stubborn(connection):
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60"])
    connection.send(sleeper.pid)
    time.sleep(60)
