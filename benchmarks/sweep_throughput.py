"""What a trial costs beside its training: start-up in a forked process, and what surrounds the training.

    python benchmarks/sweep_throughput.py               # about a minute and a half
    python benchmarks/sweep_throughput.py --trials 40

Two measurements, wall clock, one trial at a time:

- start-up: from the decision to run a trial to the first line of its training, in a fresh child of the
  preloaded fork server; training's imports are done and its config is composed by then. Target: < 0.3 s.
  Beside it the alternative, a fresh interpreter that imports and composes the same.
- whole trial: from the decision to the result told, for one epoch of an MLP on digits, and how much of it is
  training itself (the run's own wall_s).

The study's bookkeeping is measured in `sweep_bookkeeping.py`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bbi_lightning.cli.sweep.task import _PRELOAD, _run, _run_name, _validate
from bbi_lightning.sweeps import Task, child
from bbi_lightning.tracking.run_folder import RunFolder

OVERRIDES = ["data=digits", "model=mlp", "trainer.max_epochs=1", "tracking=none", "runtime.progress=none"]
FRESH_INTERPRETER = """
import bbi_lightning.training.run
from bbi_lightning.cli.sweep.task import _run_name
_run_name({overrides!r})
"""


def stamp(overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
    """A run that only notes when it was reached."""
    (root / "reached").write_text(repr(time.time()))


def life(context: Any, task: Task, overrides: list[str], root: Path) -> tuple[str, float]:
    """One trial as the worker runs it; its run's name and the seconds from start to end."""
    began = time.monotonic()
    surroundings = child.threads(1)
    process, connection = child.start(
        context, child.run_trial, task, overrides, root, {"sweep": "bench"}, surroundings
    )
    _, name = connection.recv()
    connection.send(True)
    process.join()
    assert process.exitcode == 0, (root / name / child.LOG).read_text()
    return name, time.monotonic() - began


def start_up(context: Any, root: Path, trials: int) -> list[float]:
    """Seconds from the decision to the first line of training, one a trial."""
    task = Task(stamp, _run_name, _validate)
    seconds = []
    for seed in range(trials):
        began = time.time()
        life(context, task, [*OVERRIDES, f"seed={seed}"], root)
        seconds.append(float((root / "reached").read_text()) - began)
    return seconds


def whole_trials(context: Any, root: Path, trials: int) -> tuple[list[float], list[float]]:
    """Seconds of whole trials, and of the training inside them."""
    task = Task(_run, _run_name, _validate)
    whole, training = [], []
    for seed in range(trials):
        name, seconds = life(context, task, [*OVERRIDES, f"seed={seed}"], root)
        whole.append(seconds)
        training.append(RunFolder(root / name).record.summary["wall_s"])
    return whole, training


def fresh_interpreter(trials: int) -> list[float]:
    """Seconds that a new interpreter needs to get as far."""
    seconds = []
    for _ in range(trials):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", FRESH_INTERPRETER.format(overrides=OVERRIDES)], check=True)
        seconds.append(time.monotonic() - began)
    return seconds


def show(name: str, seconds: Sequence[float], note: str = "") -> None:
    low, middle, high = statistics.quantiles(seconds, n=4)
    print(f"  {name:<38} {middle:7.3f} s   [{low:.3f}, {high:.3f}]   n = {len(seconds)}   {note}", flush=True)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return action(), time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="trials of each measurement")
    trials = parser.parse_args().trials

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        context = child.fork_server(_PRELOAD)
        _, first = timed(lambda: start_up(context, root, 1))
        print("one trial at a time, medians with quartiles")
        print(f"  {'first trial (the server imports)':<38} {first:7.3f} s")
        show("start-up of a later trial", start_up(context, root, trials), "target < 0.3 s")
        show("... in a fresh interpreter instead", fresh_interpreter(max(3, trials // 4)))
        whole, training = whole_trials(context, root, trials)
        show("one epoch of an MLP, whole trial", whole)
        show("... of which training", training)
        show("... beside training", [w - t for w, t in zip(whole, training, strict=True)])


if __name__ == "__main__":
    main()
