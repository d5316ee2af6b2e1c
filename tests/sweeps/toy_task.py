"""A task without a network: the "training" of a run is a formula and a nap. Misbehaves on request.

Overrides: x, y (searched), seed, seconds (length of the nap), eat (MiB), and thresholds on x above which
a run raises, diverges, reports no objective, or is killed on its first or on every attempt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from optuna.trial import TrialState

from bbi_lightning.sweeps import SweepSpec, Task, parse_spec
from bbi_lightning.tracking.run_folder import RunFolder

if TYPE_CHECKING:  # imported where it is used: every trial's process imports this module
    from bbi_lightning.sweeps.run import SweepEnd
    from bbi_lightning.sweeps.study import Studies
    from bbi_lightning.sweeps.trial import Trial

NEVER = math.inf


def settings(overrides: Sequence[str]) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in overrides)}


def run_name(overrides: Sequence[str]) -> str:
    given = settings(overrides)
    seed = given.pop("seed")
    given.pop("seconds", None)
    if given.get("name") == "raise":
        raise RuntimeError("no name for this one")
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    return f"toy-{digest[:10]}-s{seed}"


def validate(overrides: Sequence[str]) -> None:
    x = settings(overrides)["x"]
    if x > 10:
        raise ValueError(f"x={x} is above 10: use less")


def run(overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
    given = settings(overrides)
    folder = RunFolder.create(
        root / run_name(overrides), config=yaml.safe_dump(given), labels=labels, overrides=list(overrides)
    )
    if folder.record.is_result:
        return
    attempt = folder.begin_attempt()
    print(f"attempt {attempt.number} of {folder.name}", flush=True)
    time.sleep(given.get("seconds", 0.0))
    eaten = bytearray(given.get("eat", 0) << 20)  # MiB, zeroed, hence really there
    if eaten:
        time.sleep(20)
    x = given["x"]
    try:
        if x > given.get("raise_above", NEVER):
            raise RuntimeError(f"x={x} is more than I can bear")
    except RuntimeError as error:
        folder.end_attempt("failed", exception=error)
        raise
    if x > given.get("kill_above", NEVER) or (
        x > given.get("kill_once_above", NEVER) and attempt.number == 1
    ):
        os.kill(os.getpid(), signal.SIGKILL)
    if x > given.get("diverge_above", NEVER):
        folder.end_attempt("diverged", summary={"val/acc": math.nan})
    elif x > given.get("mute_above", NEVER):
        folder.end_attempt("finished", summary={"val/other": 1.0})
    else:
        folder.end_attempt("finished", summary=outcome(x, given.get("y", 0.0), given["seed"]))


def outcome(x: float, y: float, seed: int) -> dict[str, float]:
    loss = (math.log10(x) + 1) ** 2 + y**2 + 1e-3 * math.sin(seed)
    return {"val/acc": round(math.exp(-loss), 2), "val/loss": loss}


TASK = Task(run=run, run_name=run_name, validate=validate, preload=("toy_task",))


def description(**changes: Any) -> dict[str, Any]:
    """A sweep of two arms; `changes` replace whole sections."""
    return {
        "name": "toy",
        "base": ["seconds=0"],
        "objective": {
            "metric": "val/acc",
            "direction": "maximize",
            "tie_breaker": {"metric": "val/loss", "direction": "minimize"},
        },
        "search": {"sampler": "halton", "trials": 4, "seed": 0},
        "replicates": {"count": 2, "first_seed": 1000},
        "workers": 2,
        "arms": {
            "plain": {"space": {"x": {"low": 0.001, "high": 1.0, "log": True}}},
            "wide": {
                "overrides": ["kind=wide"],
                "space": {
                    "x": {"low": 0.001, "high": 1.0, "log": True},
                    "y": {"low": -1.0, "high": 1.0},
                },
            },
        },
    } | changes


def spec(**changes: Any) -> SweepSpec:
    return parse_spec(description(**changes))


def go(root: Path, sweep: SweepSpec, **options: Any) -> SweepEnd:
    """Run a sweep in this process, silently."""
    from rich.console import Console

    from bbi_lightning.sweeps.live import PlainLines
    from bbi_lightning.sweeps.run import run_sweep

    with (root / "output.txt").open("a") as output:
        return run_sweep(sweep, root, TASK, PlainLines(Console(file=output)), **options)


def runnable(studies: Studies, arm: str) -> list[Trial]:
    """The waiting trials of an arm that may start now."""
    trials = studies.due(arm)
    over = all(trial.ended for trial in trials if trial.job.phase == "search")
    return [t for t in trials if t.state == "waiting" and (over or t.job.phase == "search")]


def begin(studies: Studies, trial: Trial) -> Trial:
    """Let this very trial be under way, whosever turn it is."""
    with studies.alone():
        studies._storage.set_trial_state_values(trial.key, TrialState.RUNNING)
    return dataclasses.replace(trial, state="running")


def ledger(root: Path, name: str = "toy") -> dict[str, dict[str, Any]]:
    """What is known of each run of a sweep, but for times and processes: equal for equal sweeps."""
    runs = {}
    for file in (root / name / "runs").glob("*/run.json"):
        record = RunFolder(file.parent).record
        runs[record.name] = {
            "state": record.state,
            "summary": dict(record.summary),
            "labels": dict(record.labels),
        }
    return runs


def main(root: Path, data: Mapping[str, Any]) -> int:
    """As `bbi sweep run` would."""
    from rich.console import Console

    from bbi_lightning.sweeps.live import display
    from bbi_lightning.sweeps.run import run_sweep

    try:
        end = run_sweep(parse_spec(data), root, TASK, display(Console()), grace=2.0)
    except ValueError as error:
        print(f"error: {error}")
        return 2
    return 128 + end.reason if isinstance(end.reason, int) else 1 if end.status.failures else 0


if __name__ == "__main__":  # toy_task.py ROOT DESCRIPTION
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
