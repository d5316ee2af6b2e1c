"""Sweeps on a real SLURM: submitted and left alone, they end as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from slurm.cluster import Cluster
from slurm.sweeps import Sweeps

NAP = {"base": ["seconds=0.6"]}


def test_submitted_and_left_it_ends_as_a_local_run(sweeps: Sweeps) -> None:
    file = sweeps.describe()
    said = sweeps.submit(file)
    assert "Queued 2 jobs" in said
    assert "bbi sweep status toy --watch" in said
    sweeps.wait_until_done()
    sweeps.assert_sound()
    sweeps.assert_as_if_run_here(file)
    assert {job["JobState"] for job in sweeps.slurm.jobs() if "toy" in job["JobName"]} == {"COMPLETED"}


def test_twice_and_twice_at_once_queues_nothing_new(sweeps: Sweeps) -> None:
    file = sweeps.describe(**NAP)
    words = [sys.executable, "-m", "bbi_lightning.cli", "sweep", "submit", f"sweep={file}"]
    words += ["cluster.jobs=2", f"cluster.site={sweeps.site}"]
    both = [
        subprocess.Popen(
            words,
            cwd=sweeps.root,
            env=sweeps.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert "nothing new was queued" in said[0], said
    assert "Queued 2 jobs" in said[1], said
    assert "nothing new was queued" in sweeps.submit(file)
    assert len([line for line in sweeps.slurm.queue() if "toy" in line]) == 2
    sweeps.wait_until_done()
    assert {tuple(sweeps.attempts(trial)) for trial in sweeps.assert_sound()} == {("finished",)}
    assert "Nothing is left to run" in sweeps.submit(file)


def test_preempted_by_a_higher_partition_it_goes_on(sweeps: Sweeps) -> None:
    file = sweeps.describe(base=["seconds=1.5"])
    sweeps.submit(file, "cluster.cpus=4")
    sweeps.slurm.wait_for(lambda: len(sweeps.at_work()) == 2, "two running trials")
    sweeps.slurm.preempt()
    sweeps.wait_until_done()
    trials = sweeps.assert_sound()
    sweeps.assert_as_if_run_here(file)
    assert "lost" in {reason for trial in trials for reason in sweeps.attempts(trial)}
    assert any(int(job["Restarts"]) for job in sweeps.slurm.jobs() if "toy" in job["JobName"])


def test_where_preemption_cancels_it_goes_on_too(sweeps: Sweeps) -> None:
    file = sweeps.describe(base=["seconds=1.5"])
    sweeps.submit(file, "cluster.cpus=4", "cluster.partition=cancelling")
    sweeps.slurm.wait_for(lambda: len(sweeps.at_work()) == 2, "two running trials")
    sweeps.slurm.preempt()
    sweeps.wait_until_done()
    sweeps.assert_sound()
    sweeps.assert_as_if_run_here(file)


def test_a_node_that_fails_costs_no_trial(sweeps: Sweeps) -> None:
    file = sweeps.describe(**NAP)
    sweeps.submit(file, "cluster.cpus=4")
    sweeps.slurm.wait_for(lambda: len(sweeps.at_work(ended=2)) == 2, "two running trials")
    sweeps.slurm.kill_node("n2")
    sweeps.slurm.wait_for(lambda: sweeps.ended() >= 8, "the other worker to go on")
    sweeps.slurm.start_node("n2")
    sweeps.wait_until_done()
    sweeps.assert_sound()
    sweeps.assert_as_if_run_here(file)


def test_a_controller_that_is_restarted_is_not_noticed(sweeps: Sweeps) -> None:
    file = sweeps.describe(**NAP)
    sweeps.submit(file)
    sweeps.slurm.wait_for(lambda: sweeps.at_work(ended=2), "a running trial")
    sweeps.slurm.restart_controller()
    sweeps.wait_until_done()
    assert {tuple(sweeps.attempts(trial)) for trial in sweeps.assert_sound()} == {("finished",)}


def test_a_cancelled_task_of_the_array_stays_cancelled_and_the_other_does_its_work(sweeps: Sweeps) -> None:
    file = sweeps.describe(**NAP)
    sweeps.submit(file)
    sweeps.slurm.wait_for(lambda: len(sweeps.at_work()) == 2, "two running trials")
    job = next(line.split()[0] for line in sweeps.slurm.queue() if line.split()[0].endswith("_0"))
    sweeps.slurm.ask("scancel", job)
    sweeps.wait_until_done()
    sweeps.assert_sound()
    sweeps.assert_as_if_run_here(file)
    jobs = [job for job in sweeps.slurm.jobs() if "toy" in job["JobName"]][-2:]
    assert sorted(job["JobState"] for job in jobs) == ["CANCELLED", "COMPLETED"]


def test_scancel_of_all_is_final_and_submitting_again_goes_on(sweeps: Sweeps) -> None:
    file = sweeps.describe(**NAP)
    sweeps.submit(file)
    sweeps.slurm.wait_for(lambda: sweeps.at_work(ended=2), "a running trial")
    sweeps.slurm.ask("scancel", "--user=root")
    sweeps.slurm.wait_for(lambda: not sweeps.slurm.queue(), "an empty queue")
    left = 12 - sweeps.ended()
    assert left > 0
    assert "interrupted" in sweeps.bbi("sweep", "status", "toy") or sweeps.ended() == 8
    assert "Queued" in sweeps.submit(file)
    sweeps.wait_until_done()
    sweeps.assert_sound()
    sweeps.assert_as_if_run_here(file)


def test_cancel_leaves_queue_and_study_consistent(sweeps: Sweeps) -> None:
    file = sweeps.describe(base=["seconds=2"])
    sweeps.submit(file)
    sweeps.slurm.wait_for(lambda: sweeps.at_work(), "a running trial")
    assert "Cancelled" in sweeps.bbi("sweep", "cancel", "toy")
    sweeps.slurm.wait_for(lambda: not sweeps.slurm.queue(), "an empty queue", 20)
    assert "nobody works on it" in sweeps.bbi("sweep", "status", "toy")
    assert {trial.owner for trial in sweeps.trials() if trial.state == "running"} <= {None}
    sweeps.submit(file)
    sweeps.wait_until_done()
    sweeps.assert_sound()


def test_extended_while_it_runs_it_grows(sweeps: Sweeps) -> None:
    file = sweeps.describe(**NAP)
    sweeps.submit(file)
    sweeps.slurm.wait_for(lambda: sweeps.at_work(ended=1), "a running trial")
    sweeps.bbi("sweep", "extend", "toy", "2")
    sweeps.wait_until_done()
    assert len([t for t in sweeps.assert_sound() if t.job.phase == "search"]) == 12
    assert {tuple(sweeps.attempts(trial)) for trial in sweeps.trials()} == {("finished",)}


def test_failures_of_every_kind_are_told_apart_and_hold_nobody_up(sweeps: Sweeps) -> None:
    arms = {
        "good": {"space": X},
        "raises": {"overrides": ["raise_above=0"], "space": X},
        "diverges": {"overrides": ["diverge_above=0"], "space": X},
        "eats": {"overrides": ["eat=400"], "space": X},
        "dies": {"overrides": ["kill_above=0"], "space": X},
    }
    file = sweeps.describe(arms=arms, search={"trials": 2}, replicates={"count": 1})
    sweeps.submit(file, "cluster.slots=2", "cluster.trial_memory=300M")
    sweeps.wait_until_done()
    trials = sweeps.assert_sound()
    states = {(t.job.arm, t.state) for t in trials}
    assert states == {
        ("good", "finished"),
        ("raises", "failed"),
        ("diverges", "diverged"),
        ("eats", "failed"),
        ("dies", "failed"),
    }
    errors = {t.job.arm: t.outcome.error for t in trials if t.state == "failed"}
    assert "more than I can bear" in errors["raises"]
    assert "MiB of memory, more than the 300 MiB it may" in errors["eats"]
    assert errors["dies"] == "its process left no result, twice: killed by SIGKILL"
    said = sweeps.bbi("sweep", "status", "toy")
    assert "6 of the runs failed" in said
    assert "bbi sweep logs toy raises/0" in said

    sweeps.bbi("sweep", "retry", "toy", "--failed")
    assert "Queued" in sweeps.submit(file, "cluster.trial_memory=300M")
    sweeps.wait_until_done()
    assert len(sweeps.trials()) == len(trials) + 6


def test_a_killed_worker_is_requeued_and_takes_up_its_own_trial(sweeps: Sweeps) -> None:
    file = sweeps.describe(base=["seconds=2"], search={"trials": 2}, replicates={"count": 0})
    sweeps.submit(file, "cluster.jobs=1")
    (trial,) = sweeps.slurm.wait_for(sweeps.at_work, "a running trial")
    os.kill(trial.worker["supervisor"], signal.SIGKILL)
    sweeps.wait_until_done()
    trials = {t.key: t for t in sweeps.assert_sound()}
    assert sweeps.attempts(trials[trial.key]) == ["lost", "finished"]
    assert trials[trial.key].owner.id == trial.owner.id
    assert trials[trial.key].owner.incarnation != trial.owner.incarnation


def test_a_job_that_crashes_again_and_again_gives_up_with_words(sweeps: Sweeps) -> None:
    file = sweeps.describe()
    sweeps.site.write_text("setup: ['false']\nnotice: 0\n")
    sweeps.submit(file, "cluster.jobs=1")
    sweeps.slurm.wait_for(lambda: not sweeps.slurm.queue(), "an empty queue")
    (log,) = sweeps.folder().slurm.glob("*.log")
    assert "the site's setup failed: false" in log.read_text()
    assert {trial.state for trial in sweeps.trials()} == {"waiting"}


def test_editing_the_checkout_changes_no_queued_trial(sweeps: Sweeps, slurm: Cluster) -> None:
    task = sweeps.root / "mine" / "my_task.py"
    task.parent.mkdir()
    task.write_text("from toy_task import TASK\n")
    file = sweeps.describe(search={"trials": 1}, replicates={"count": 0})
    file.write_text(file.read_text().replace("toy_task:TASK", "my_task:TASK"))
    slurm.ask("scontrol", "update", "PartitionName=low", "State=DOWN")
    try:
        environment = sweeps.environment
        path = f"{task.parent}{os.pathsep}{environment['PYTHONPATH']}"
        words = [
            sys.executable,
            "-m",
            "bbi_lightning.cli",
            "sweep",
            "submit",
            f"sweep={file}",
            "cluster.jobs=1",
        ]
        git = {"GIT_CEILING_DIRECTORIES": str(sweeps.root)}
        subprocess.run(["git", "init", "-q", task.parent], check=True)
        subprocess.run(words, cwd=task.parent, env=environment | git | {"PYTHONPATH": path}, check=True)
        task.write_text("raise RuntimeError('the checkout was edited')\n")
    finally:
        slurm.ask("scontrol", "update", "PartitionName=low", "State=UP")
    moved = Sweeps(slurm, task.parent)
    moved.wait_until_done()
    assert {t.state for t in moved.trials()} == {"finished"}


X = {"x": {"low": 0.001, "high": 1.0, "log": True}}


def test_a_crash_is_tried_again_elsewhere_and_given_up_in_the_end(sweeps: Sweeps) -> None:
    file = sweeps.describe()
    broken = {"PYTHONHOME": "/nowhere"}  # Python ends with 1 before it has read a line
    site = {"notice": 0, "crash_pause": 1, "max_crashes": 3, "bad_node_after": 2, "environment": broken}
    sweeps.site.write_text(json.dumps(site))
    sweeps.submit(file, "cluster.jobs=1")
    sweeps.slurm.wait_for(lambda: not sweeps.slurm.queue(), "an empty queue")
    said = "".join(log.read_text() for log in sweeps.folder().slurm.glob("*.log"))
    assert "crashed with code 1, 1 of 3: submitted anew in 1 s" in said
    assert "crashed with code 1, 2 of 3: submitted anew in 2 s, not on n1" in said
    assert "crashed 3 times, the last with code 1: gave up" in said
    jobs = [job for job in sweeps.slurm.jobs() if job["Command"] == str(sweeps.folder().slurm / "job.sh")]
    assert [job["JobState"] for job in jobs] == ["FAILED"] * 3
    assert sorted(job["BatchHost"] for job in jobs) == ["n1", "n1", "n2"]
    assert {trial.state for trial in sweeps.trials()} == {"waiting"}


def test_more_jobs_than_an_array_may_have_are_queued_as_several(sweeps: Sweeps) -> None:
    file = sweeps.describe(base=["seconds=1"])
    sweeps.site.write_text("max_jobs: 12\nnotice: 0\n")
    said = sweeps.submit(file, "cluster.jobs=12")
    assert "Queued 12 jobs: " in said
    assert len(said.split("Queued 12 jobs: ")[1].splitlines()[0].split(", ")) == 2
    sweeps.wait_until_done()
    assert {tuple(sweeps.attempts(trial)) for trial in sweeps.assert_sound()} == {("finished",)}
