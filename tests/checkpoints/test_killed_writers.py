"""Real processes, killed with signal 9 while they save: what they called safe is there, and whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_writers.py")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_a_writer_leaves_all_that_was_safe(tmp_path, seed):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path / "checkpoints"), "25", str(seed)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["safe"] > 25, "the children lived too briefly for this test to say anything"
    extra = [step for step in report["left"] if step % 50 != 0]
    assert len(extra) <= 4, "what may go is cleared away: two newest, one more if killed there, one best"
    hidden = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]
    assert len(hidden) <= 3, "leftovers do not pile up"
