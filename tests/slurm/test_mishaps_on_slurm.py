"""A worker that dies at the very end of a trial, and a shared folder that is full for a while."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import dying
from slurm.sweeps import TESTS, Sweeps


class Dying(Sweeps):
    """Sweeps with a worker that dies."""

    @property
    def environment(self) -> dict[str, str]:
        """Of a login shell whose jobs know when to die."""
        above = super().environment
        path = f"{TESTS}{os.pathsep}{above['PYTHONPATH']}"
        return above | {dying.VARIABLE: str(self.root / "dies"), "PYTHONPATH": path}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_beside_the_telling_loses_and_doubles_nothing(sweeps: Sweeps, when: str) -> None:
    doomed = Dying(sweeps.slurm, sweeps.root)
    (doomed.root / "dies").write_text(when)
    file = doomed.describe(search={"trials": 1}, replicates={"count": 0})
    file.write_text(file.read_text().replace("toy_task:TASK", "slurm.dying:TASK"))
    doomed.submit(file, "cluster.jobs=1")
    doomed.wait_until_done()
    assert not (doomed.root / "dies").exists(), "nobody died"
    trials = doomed.assert_sound()
    assert {tuple(doomed.attempts(trial)) for trial in trials} == {("finished",)}
    doomed.assert_as_if_run_here(file)
    assert any(int(job["Restarts"]) for job in doomed.slurm.jobs() if "toy" in job["JobName"])


@pytest.fixture
def disk(sweeps: Sweeps) -> Iterator[Path]:
    """The sweeps' folder on a file system of four megabytes."""
    place = sweeps.root / "sweeps"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    yield place
    sweeps.slurm.clear()  # before: its jobs' outputs lie there
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(block)):
                    pass
    return ballast


def test_a_shared_folder_that_was_full_for_a_while_costs_at_most_a_retry(sweeps: Sweeps, disk: Path) -> None:
    file = sweeps.describe(base=["seconds=1"])
    sweeps.submit(file, "--live")
    sweeps.slurm.wait_for(lambda: len(sweeps.at_work(ended=2)) == 2, "two running trials")
    ballast = fill(disk)
    time.sleep(4)  # trials end, and are told, in the meantime: or would be
    ballast.unlink()
    sweeps.wait_until_done()
    failed = [trial for trial in sweeps.assert_sound() if trial.state == "failed"]
    assert all("No space left on device" in str(trial.outcome and trial.outcome.error) for trial in failed)
    if failed:
        sweeps.bbi("sweep", "retry", "toy", "--failed")
        sweeps.submit(file, "--live")
        sweeps.wait_until_done()
    sweeps.assert_as_if_run_here(file)
