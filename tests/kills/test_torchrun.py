"""torchrun starts, stops and resumes the ranks of a run as well as `bbi train` itself does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from kills.comparison import assert_same

WORDS = (
    *("train", "model=mlp", "tracking=none", "trainer.max_epochs=120"),
    *("runtime.accelerator=cpu", "runtime.devices=2", "runtime.log_every=18", "checkpoint.every=1"),
)
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node=2", "-m", "bbi_lightning.cli"),
)
BBI = (sys.executable, "-m", "bbi_lightning.cli")


def run_in(folder: Path) -> RunFolder | None:
    return next((RunFolder(path.parent) for path in folder.glob("runs/*/run.json")), None)


def interrupted(folder: Path) -> int:
    """Start, ask to stop once some epochs are logged, and return torchrun's exit code."""
    with subprocess.Popen([*TORCHRUN, *WORDS], cwd=folder, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            run = run_in(folder)
            if run and run.metrics_file.exists() and len(list(read_metrics(run.metrics_file))) > 5:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)
        try:
            return process.wait(60)
        finally:
            process.kill()


@pytest.mark.slow
def test_a_run_that_torchrun_stopped_and_resumed_is_the_one_that_was_never_stopped(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    stopped.mkdir()
    whole.mkdir()
    assert interrupted(stopped) != 0, "an interrupted run is no success"
    run = run_in(stopped)
    assert run is not None
    assert run.record.state == "interrupted"

    subprocess.run([*TORCHRUN, *WORDS], cwd=stopped, check=True, capture_output=True, timeout=120)
    subprocess.run([*BBI, *WORDS], cwd=whole, check=True, capture_output=True, timeout=120)
    reference = run_in(whole)
    assert reference is not None
    assert [attempt.reason for attempt in run.record.attempts] == ["SIGTERM", "trained to the end"]
    assert run.record.attempts[1].from_step > 0
    assert_same(run, reference)
