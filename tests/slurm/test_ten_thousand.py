"""Very many small trials through two nodes: none is lost, none is done twice, and the status stays quick."""

from __future__ import annotations

import json
import time

import pytest

from slurm.sweeps import Sweeps

TRIALS = 1_000  # of each of two arms; benchmarks/sweep_cluster.py does five times as many


@pytest.mark.slow
def test_thousands_of_trials_through_two_nodes_are_each_done_once(sweeps: Sweeps) -> None:
    file = sweeps.describe(
        search={"sampler": "random", "trials": TRIALS, "seed": 0},
        replicates={"count": 0},
    )
    sweeps.submit(file, "cluster.slots=2")
    sweeps.wait_until_done(seconds=280)
    trials = sweeps.assert_sound()
    assert len(trials) == 2 * TRIALS
    assert {trial.state for trial in trials} == {"finished"}
    started = time.perf_counter()
    status = json.loads(sweeps.bbi("sweep", "status", "toy", "--json"))
    assert time.perf_counter() - started < 4, (
        "status is slow"
    )  # twice the time of a machine that has nothing else
    assert status["done"]
