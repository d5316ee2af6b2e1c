"""One training over two nodes of a real SLURM, from a script as a user submits it by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bbi_lightning.cluster import Job, Resources, Site, render
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from kills.comparison import assert_same
from slurm.cluster import Cluster

BBI = (sys.executable, "-m", "bbi_lightning.cli")
WORDS = (
    *("train", "model=mlp", "model.widths=[16]", "tracking=none", "trainer.max_epochs=100"),
    *("runtime.accelerator=cpu", "runtime.threads=1", "runtime.log_every=18", "checkpoint.every=1"),
)
ROOT = Path(__file__).parents[2]


def run_in(folder: Path) -> RunFolder | None:
    return next((RunFolder(path.parent) for path in folder.glob("runs/*/run.json")), None)


def rows(folder: Path) -> int:
    """How many rows of metrics there are."""
    run = run_in(folder)
    return len(list(read_metrics(run.metrics_file))) if run and run.metrics_file.exists() else 0


def rank(slurm: Cluster, number: int) -> psutil.Process:
    """The process of a rank."""
    for process in psutil.process_iter(["environ"]):
        variables = process.info["environ"] or {}
        ours = variables.get("SLURM_CONF") == str(slurm.conf) and variables.get("SLURM_STEP_ID") == "0"
        if ours and variables.get("SLURM_PROCID") == str(number) and "python" in process.name():
            return process
    raise AssertionError(f"rank {number} has no process")


@pytest.mark.slow
def test_a_lost_rank_on_one_of_two_nodes_costs_no_step(slurm: Cluster, tmp_path: Path) -> None:
    lost, whole = tmp_path / "lost", tmp_path / "whole"
    for folder in (lost, whole):
        folder.mkdir()
    words = (*BBI, *WORDS, "runtime.num_nodes=2")
    site = Site(notice=0, environment={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    resources = Resources(nodes=2, devices=1, cpus=1)
    job = Job(
        name="two-nodes",
        title="A training over two nodes",
        command=words,
        resources=resources,
        folder=str(lost),
        workdir=str(lost),
    )
    script = lost / "job.sh"
    script.write_text(render(job, site))
    number = slurm.ask("sbatch", "--parsable", str(script))
    try:
        slurm.wait_for(lambda: rows(lost) > 10, "some epochs", 90)
        os.kill(rank(slurm, 1).pid, signal.SIGKILL)
        slurm.wait_for(lambda: slurm.ended(number), "the end of the training", 150)
    except AssertionError as error:
        log = lost / f"{number}.log"
        raise AssertionError(f"{error}\n{log.read_text()[-3000:] if log.exists() else ''}") from None
    assert slurm.ended(number) == "COMPLETED", (lost / f"{number}.log").read_text()

    here = (*BBI, *WORDS, "runtime.devices=2")
    environment = slurm.environment | dict(site.environment)
    subprocess.run(here, cwd=whole, env=environment, check=True, capture_output=True, timeout=120)
    run, reference = run_in(lost), run_in(whole)
    assert run is not None
    assert reference is not None
    first, second = run.record.attempts
    assert first.reason == "lost" or "rank" in str(first.reason)
    assert second.reason == "trained to the end"
    assert second.from_step > 0
    assert_same(run, reference)
