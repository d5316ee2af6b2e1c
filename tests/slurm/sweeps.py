"""Sweeps as a user runs them on the cluster, and what must hold of every one of them at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import RUNNING, Trial
from bbi_lightning.tracking.run_folder import RunFolder
from slurm.cluster import Cluster

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "sweeps"))

import toy_task  # noqa: E402

SITE = {"notice": 0, "crash_pause": 1, "max_jobs": 2}


class Sweeps:
    """A folder of sweeps, on a cluster. `bbi` is run as a user would, in processes of its own."""

    def __init__(self, slurm: Cluster, root: Path) -> None:
        self.slurm = slurm
        self.root = root
        self.site = root / "site.yaml"
        self.site.write_text(yaml.safe_dump(SITE))

    def describe(self, name: str = "toy", **changes: Any) -> Path:
        """A description of toy trials, as a file."""
        file = self.root / f"{name}.yaml"
        data = toy_task.description(name=name, task="toy_task:TASK", **changes)
        file.write_text(yaml.safe_dump(data, sort_keys=False))
        return file

    def bbi(self, *words: object, check: bool = True) -> str:
        """`bbi words…`, and what it prints."""
        command = [sys.executable, "-m", "bbi_lightning.cli", *map(str, words)]
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        """Of a login shell on the cluster."""
        path = f"{TESTS / 'sweeps'}{os.pathsep}{TESTS.parent}"
        return self.slurm.environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def submit(self, file: Path, *words: str) -> str:
        """`bbi sweep submit`, two jobs of one core unless said otherwise."""
        asked = {"cluster.jobs": "2", "cluster.cpus": "1", "cluster.site": str(self.site)}
        asked |= dict(word.split("=", 1) for word in words if word.startswith("cluster."))
        rest = [word for word in words if not word.startswith("cluster.")]
        return self.bbi("sweep", "submit", f"sweep={file}", *rest, *(f"{k}={v}" for k, v in asked.items()))

    def folder(self, name: str = "toy") -> SweepFolder:
        """The sweep's folder."""
        return SweepFolder(self.root / "sweeps" / name)

    def trials(self, name: str = "toy") -> list[Trial]:
        """All trials in the study."""
        folder = self.folder(name)
        if not folder.spec_file.exists():
            return []
        studies = Studies(folder.journal, folder.read_spec())
        return [trial for arm in studies.spec.arms for trial in studies.trials(arm.name)]

    def ended(self, name: str = "toy") -> int:
        """How many trials have ended."""
        return sum(trial.ended for trial in self.trials(name))

    def at_work(self, ended: int = 0, name: str = "toy") -> list[Trial]:
        """The trials that are being trained, once so many others have ended."""
        now = self.trials(name)
        running = [trial for trial in now if trial.state == RUNNING and self.attempts(trial, name)]
        return running if sum(trial.ended for trial in now) >= ended else []

    def attempts(self, trial: Trial, name: str = "toy") -> list[str]:
        """How the attempts of a trial's run ended; an empty text while one goes on."""
        run = RunFolder(self.folder(name).runs / (trial.run or "none"))
        return [attempt.reason or "" for attempt in run.record.attempts] if run.exists else []

    def wait_until_done(self, name: str = "toy", seconds: float = 120.0) -> None:
        """Wait until every trial has ended and no job of the sweep is left."""
        try:
            self.slurm.wait_for(lambda: not self.slurm.queue(), f"the end of {name}", seconds)
            state = json.loads(self.bbi("sweep", "status", name, "--json"))
            assert state["done"], "the jobs have left, and the sweep is not done"
            assert not state["jobs"]
        except AssertionError as error:
            logs = [f"--- {f.name}\n{f.read_text()[-1500:]}" for f in self.folder(name).slurm.glob("*.log")]
            raise AssertionError("\n".join([str(error), *logs])) from None

    def assert_sound(self, name: str = "toy") -> list[Trial]:
        """Every trial exactly once in the study, none under way, no job left, every run as its trial says."""
        trials = self.trials(name)
        places = Counter((trial.job.arm, *trial.job.place) for trial in trials)
        assert set(places.values()) == {1}, "a trial is there twice"
        assert {trial.state for trial in trials} <= {"finished", "diverged", "failed"}
        assert self.slurm.queue() == []
        runs = {path.name for path in self.folder(name).runs.iterdir()}
        assert runs == {trial.run for trial in trials if trial.run}
        return trials

    def assert_as_if_run_here(self, file: Path, name: str = "toy") -> None:
        """The same results as `bbi sweep run` on this machine, to the last digit."""
        here = self.root / "here"
        if not here.exists():
            self.bbi("sweep", "run", f"sweep={file}", "--dir", here)
        assert toy_task.ledger(self.root / "sweeps", name) == toy_task.ledger(here, name)
