"""Sending later goes run by run, attempt by attempt, and goes on where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_sync import send, unsent

FAKE = """#!{python}
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[-1])
with open(os.environ["CALLS"], "a") as calls:
    calls.write(folder.name + "\\n")
if folder.name in os.environ.get("REFUSED", ""):
    sys.exit("the service is closed today")
time.sleep(float(os.environ.get("SECONDS", 0)))
(record,) = folder.glob("*.wandb")
pathlib.Path(str(record) + ".synced").touch()
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of two and one attempts, and a `wandb` that only marks what it is given."""
    package = tmp_path / "fake" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE.format(python=sys.executable))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    root = tmp_path / "runs"
    for run, times in (("a", ("20260101_000002", "20260101_000001")), ("b", ("20260101_000003",))):
        folder = RunFolder.create(root / run, config="{}\n")
        for time in times:
            attempt = folder.path / "wandb" / f"offline-run-{time}-{run}"
            attempt.mkdir(parents=True)
            (attempt / f"run-{run}.wandb").touch()
    return root


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "calls"
    return file.read_text().split() if file.exists() else []


def test_the_attempts_of_a_run_are_sent_in_their_order_and_once(runs: Path, tmp_path: Path) -> None:
    done: list[str] = []
    assert send(unsent(runs), report=lambda run, trouble: done.append(run.run)) == {}
    assert sorted(done) == ["a", "b"]
    assert [call for call in calls(tmp_path) if call.endswith("-a")] == [
        "offline-run-20260101_000001-a",
        "offline-run-20260101_000002-a",
    ]
    assert unsent(runs) == []


def test_what_was_refused_is_said_and_sent_the_next_time(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSED", "offline-run-20260101_000001-a")
    assert send(unsent(runs)) == {"a": "offline-run-20260101_000001-a: the service is closed today"}
    assert "offline-run-20260101_000002-a" not in calls(tmp_path), "not before the one that failed"
    assert [run.run for run in unsent(runs)] == ["a"]
    monkeypatch.delenv("REFUSED")
    assert send(unsent(runs)) == {}
    assert unsent(runs) == []


def test_an_attempt_that_takes_for_ever_is_given_up(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS", "30")
    troubles = send(unsent(runs), patience=1.0)
    assert troubles["b"] == "offline-run-20260101_000003-b was not sent within 1 s"


def test_a_run_that_is_being_trained_waits(runs: Path) -> None:
    folder = RunFolder(runs / "a")
    folder.acquire()
    try:
        assert [run.run for run in unsent(runs)] == ["b"]
    finally:
        folder.release()
    assert [run.run for run in unsent(runs)] == ["a", "b"]
