"""What it costs to go on: from the process's start to the end of its first step, and where the time goes.

    python benchmarks/resume_cost.py               # about two minutes
    python benchmarks/resume_cost.py --rounds 9

Each figure is a fresh interpreter, wall clock; a run that begins and the same run that resumes, in turn. The
parts are measured around the product's own functions and do not overlap; "the rest" is what is not in them:
Lightning's set-up, building the model, the threads' start.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MODELS = {
    "26 k parameters": ["model=mlp"],
    "25 M parameters": ["model=mlp", "model.widths=[4096,3072,3072,1024]"],
}
PARTS = (
    "the interpreter",
    "imports",
    "config",
    "data",
    "W&B",
    "verifying the checkpoint",
    "reading the checkpoint",
    "the rest",
    "first step",
)
STEPS_BEFORE = 5


class Stopwatch:
    """Seconds of each part; a part inside another one counts for itself only."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.seconds: dict[str, float] = {}
        self._open = ["the interpreter"]
        self._at = began

    def switch(self, part: str | None) -> None:
        """Book the time since the last switch, then begin a part or, with None, go back to the one around."""
        now = time.time()
        current = self._open[-1] if self._open else "the rest"
        self.seconds[current] = self.seconds.get(current, 0.0) + now - self._at
        self._at = now
        if part is None:
            self._open.pop()
        else:
            self._open.append(part)

    def around(self, owner: Any, name: str, part: str) -> None:
        """Book the calls of a function to a part."""
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.switch(part)
            try:
                return original(*args, **kwargs)
            finally:
                self.switch(None)

        setattr(owner, name, timed)


def child(began: float, overrides: list[str], steps: int) -> None:
    """Be `bbi train`; after the first step print the parts, after `steps` ask to stop."""
    watch = Stopwatch(began)
    watch.switch(None)
    watch.switch("imports")
    from bbi_lightning.training import interrupts

    with interrupts.listening():
        from bbi_lightning.training import run

        watch.switch(None)
        _observe(watch, run, steps)
        watch.switch("config")
        from bbi_lightning.training.config import compose

        config = compose(overrides)
        watch.switch(None)
        run.exit_if_interrupted(run.train(config))


def _observe(watch: Stopwatch, run: Any, steps: int) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
    from bbi_lightning.checkpoints.store import CheckpointStore
    from bbi_lightning.training.classification import Classification

    for name, part in (
        ("checked", "config"),
        ("run_name", "config"),
        ("try_out", "data"),
    ):
        watch.around(run, name, part)
    watch.around(run, "build_wandb_logger", "W&B")
    watch.around(CheckpointStore, "newest_valid", "verifying the checkpoint")
    watch.around(StoreCheckpointIO, "load_checkpoint", "reading the checkpoint")
    taken = 0

    def after_step(*args: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            watch.switch(None)
            print(json.dumps(watch.seconds), flush=True)
        if taken == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    register_optimizer_step_post_hook(after_step)
    step = Classification.training_step

    def training_step(self: Any, *args: Any) -> Any:
        if taken == 0:
            watch.switch("first step")
        return step(self, *args)

    Classification.training_step = training_step  # type: ignore[method-assign]


def measure(overrides: list[str], steps: int) -> dict[str, float]:
    """The parts' seconds of one fresh process, which then stops after `steps`."""
    command = [sys.executable, __file__, "--child", repr(time.time()), str(steps), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[0])
    return seconds


def show(title: str, cases: Mapping[str, list[dict[str, float]]]) -> None:
    """A table of medians and quartiles, in milliseconds."""
    print(f"\n{title}\n{'milliseconds':<28}" + "".join(f"{case:>26}" for case in cases))
    for part in (*PARTS, "in all"):
        cells = []
        for rounds in cases.values():
            values = [
                1e3 * (sum(seconds.values()) if part == "in all" else seconds.get(part, 0.0))
                for seconds in rounds
            ]
            low, median, high = statistics.quantiles(values, n=4)
            cells.append(f"{median:.0f} ({low:.0f}–{high:.0f})")
        print(f"{part:<28}" + "".join(f"{cell:>26}" for cell in cells))


def main(rounds: int) -> None:
    for title, model in MODELS.items():
        cases: dict[str, list[dict[str, float]]] = {"begins": [], "resumes": []}
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "runs"
            overrides = [
                *model,
                "trainer.max_epochs=1000",
                "runtime.progress=none",
                "runtime.accelerator=cpu",
                f"runtime.root={root}",
            ]
            measure(overrides, STEPS_BEFORE)  # not counted: it warms the disk's cache
            for _ in range(rounds):
                shutil.rmtree(root)
                cases["begins"].append(measure(overrides, STEPS_BEFORE))
                cases["resumes"].append(measure(overrides, STEPS_BEFORE))
            checkpoint = sum(file.stat().st_size for file in root.rglob("checkpoints/*/*")) / 2
        show(f"{title}, a checkpoint of {checkpoint / 1e6:.1f} MB, digits, W&B offline", cases)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[4:], int(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
        parser.add_argument("--rounds", type=int, default=5)
        main(parser.parse_args().rounds)
