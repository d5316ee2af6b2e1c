"""One training over two nodes: submitted, torn apart, and finished as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from kills.comparison import assert_same

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from slurm.sweeps import Sweeps

WORDS = (
    "model=mlp",
    "tracking=none",
    "trainer.max_epochs=300",
    "runtime.accelerator=cpu",
    "checkpoint.every=1",
)
TWO_NODES = ("cluster.nodes=2", "cluster.cpus=4")


def run_of(root: Path) -> RunFolder | None:
    return next((RunFolder(file.parent) for file in root.glob("runs/*/run.json")), None)


def ranks(sweeps: Sweeps) -> dict[str, int]:
    """The process of the run on each node."""
    found = {}
    for process in psutil.process_iter():
        try:
            words, variables = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if (
            "train" in words
            and "srun" not in words[0]
            and variables.get("SLURM_CONF") == str(sweeps.slurm.conf)
        ):
            found[variables["SLURMD_NODENAME"]] = process.pid
    return found


@pytest.mark.slow
def test_a_run_over_two_nodes_survives_a_killed_rank_and_is_the_one_that_was_never_killed(
    sweeps: Sweeps,
) -> None:
    submit = ("submit", *WORDS, *TWO_NODES, f"cluster.site={sweeps.site}")
    assert "Queued job" in sweeps.bbi(*submit)

    def well_under_way() -> dict[str, int] | None:
        run = run_of(sweeps.root)
        rows = len(list(read_metrics(run.metrics_file))) if run and run.metrics_file.exists() else 0
        return ranks(sweeps) if rows > 5 and len(ranks(sweeps)) == 2 else None

    found = sweeps.slurm.wait_for(well_under_way, "training on both nodes", 90)
    assert isinstance(found, dict)
    os.kill(found["n2"], signal.SIGKILL)
    assert "nothing new was queued" in sweeps.bbi(*submit)

    def is_finished() -> bool:
        run = run_of(sweeps.root)
        return run is not None and run.record.state == "finished"

    sweeps.slurm.wait_for(is_finished, "the run's end", 120)
    sweeps.slurm.wait_for(lambda: not sweeps.slurm.queue(), "an empty queue")
    assert "has finished already" in sweeps.bbi(*submit)
    run = run_of(sweeps.root)
    assert run is not None
    assert len(run.record.attempts) == 2
    (job,) = [job for job in sweeps.slurm.jobs() if job["JobName"].startswith(f"bbi-{run.name}")]
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")

    here = sweeps.root / "here"
    sweeps.bbi("train", *WORDS, "runtime.devices=2", f"runtime.root={here / 'runs'}")
    whole = run_of(here)
    assert whole is not None
    assert_same(run, whole)


def test_what_follows_from_the_job_cannot_be_said_otherwise(sweeps: Sweeps) -> None:
    said = sweeps.bbi("submit", "runtime.devices=4", "cluster.gpus=2", check=False)
    assert "runtime.devices=4 follows from what the job asks for: say cluster.devices instead" in said
    assert not (sweeps.root / "runs").exists()
