"""Very many small trials through two nodes: none is lost, none is done twice, and the status stays quick.

Some hundreds here; ten thousand, and how long they take, with `make bench`, which says so by BBI_TEST_TRIALS.
"""

from __future__ import annotations

import json
import os
import time

import pytest

from slurm.sweeps import Sweeps

TRIALS = int(os.environ.get("BBI_TEST_TRIALS", "400"))


@pytest.mark.slow
def test_very_many_trials_through_two_nodes_are_each_done_once(sweeps: Sweeps) -> None:
    file = sweeps.describe(
        search={"sampler": "random", "trials": TRIALS // 2, "seed": 0}, replicates={"count": 0}
    )
    sweeps.submit(file, "cluster.slots=2")
    started = time.perf_counter()
    sweeps.wait_until_done(seconds=60 + 0.3 * TRIALS)
    print(f"{TRIALS} trials through two nodes in {time.perf_counter() - started:.0f} s")
    trials = sweeps.assert_sound()
    assert len(trials) == TRIALS
    assert {trial.state for trial in trials} == {"finished"}

    started = time.perf_counter()
    status = json.loads(sweeps.bbi("sweep", "status", "toy", "--json"))
    assert time.perf_counter() - started < 4, "status is slow"  # under 2 on a machine that does nothing else
    assert status["done"]
