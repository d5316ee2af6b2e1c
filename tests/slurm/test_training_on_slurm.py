"""Real training on a real SLURM, stopped where it is least convenient: it ends as if it never had been."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from kills.comparison import assert_same

from bbi_lightning.tracking.run_folder import RunFolder
from slurm.held import VARIABLE
from slurm.sweeps import TESTS, Sweeps

BASE = ["data=digits", "model=mlp", "model.widths=[16]", "scheduler=constant", "tracking=none"]
DESCRIPTION: dict[str, Any] = {
    "base": [*BASE, "trainer.max_epochs=4", "checkpoint.every=0", "runtime.log_every=2"],
    "search": {"sampler": "halton", "trials": 1, "seed": 0},
    "replicates": {"count": 0},
    "arms": {"sgd": {"overrides": ["optim=sgd"], "space": {"optim.lr": {"low": 0.01, "high": 0.2}}}},
}


class Held(Sweeps):
    """Sweeps of one training, held at moments that a test names."""

    moments: tuple[str, ...] = ()

    @property
    def holds(self) -> Path:
        """The folder that says where."""
        return self.root / "holds"

    @property
    def environment(self) -> dict[str, str]:
        """Of a login shell whose jobs are held."""
        above = super().environment
        return above | {VARIABLE: str(self.holds), "PYTHONPATH": f"{TESTS}{os.pathsep}{above['PYTHONPATH']}"}

    def describe_training(self, *moments: str) -> Path:
        """A sweep of one training, of which one attempt after the other is held at these moments."""
        self.holds.mkdir()
        for number, moment in enumerate(moments, start=1):
            (self.holds / f"{number} {moment}").touch()
        file = self.root / "training.yaml"
        file.write_text(json.dumps({**self.description(), **DESCRIPTION}))
        return file

    @staticmethod
    def description() -> dict[str, Any]:
        """What toy trials and trainings have in common."""
        import toy_task

        return toy_task.description(name="training", task="slurm.held:TASK")

    def wait_until_held(self, moment: str) -> None:
        """Wait until an attempt is held there."""
        self.slurm.wait_for((self.holds / f"{moment}.reached").exists, f"a job held at {moment}", 60)

    def assert_same_run(self, file: Path) -> list[str]:
        """The run is the one that was trained here without a break; how its attempts ended."""
        self.bbi("sweep", "run", f"sweep={file}", "--dir", self.root / "here")
        (trial,) = self.assert_sound("training")
        assert trial.run is not None
        run = RunFolder(self.folder("training").runs / trial.run)
        assert_same(run, RunFolder(self.root / "here" / "training" / "runs" / trial.run))
        return self.attempts(trial, "training")


@pytest.fixture
def held(sweeps: Sweeps) -> Held:
    return Held(sweeps.slurm, sweeps.root)


def preempt(sweeps: Sweeps) -> None:
    """A job of a higher partition takes both nodes for a moment."""
    words = ("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 0.5", "--output=/dev/null")
    sweeps.slurm.ask("sbatch", *words)


@pytest.mark.slow
def test_preempted_at_every_bad_moment_it_is_the_run_that_nobody_disturbed(held: Held) -> None:
    moments = ("import of the worker", "import of the server", "in forward", "in validation")
    moments = (*moments, "in the middle of a file")
    file = held.describe_training(*moments)
    held.submit(file, "cluster.jobs=1")
    for moment in moments:
        held.wait_until_held(moment)
        preempt(held)
    held.wait_until_done("training")
    reasons = held.assert_same_run(file)
    assert reasons[-1] == "trained to the end"
    assert reasons.count("SIGTERM") == 3, reasons


@pytest.mark.slow
def test_three_time_limits_later_it_is_the_run_that_had_all_the_time(held: Held) -> None:
    file = held.describe_training("in forward", "in validation", "after the optimizer")
    held.submit(file, "cluster.jobs=1", "cluster.time=1:00")
    held.wait_until_done("training", 280)
    reasons = held.assert_same_run(file)
    assert reasons[-1] == "trained to the end"
    assert len(reasons) == 4, reasons
