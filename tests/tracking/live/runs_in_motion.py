"""Runs as they look while they are trained, written without training."""

from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path
from typing import Any

import yaml

from bbi_lightning.tracking.run_folder import RunFolder

STEPS_PER_EPOCH = 18


def config(max_epochs: int | None = 30, max_steps: int | None = None, keep_best: str = "val/acc") -> str:
    return yaml.safe_dump(
        {
            "trainer": {"max_epochs": max_epochs, "max_steps": max_steps},
            "checkpoint": {"keep_best": keep_best},
        }
    )


class MovingRun:
    """A run that this process holds, and whose rows are written on demand; `wait` closes it as a kill would.

    Args:
        path: its folder.
        energy: whether its optimizer conserves energy.
        every: steps between two rows of training.
    """

    def __init__(
        self,
        path: Path,
        *,
        labels: dict[str, Any] | None = None,
        text: str | None = None,
        energy: bool = True,
        every: int = 6,
    ) -> None:
        self.folder = RunFolder.create(path, config=config() if text is None else text, labels=labels)
        self.folder.begin_attempt()
        self.energy, self.every = energy, every
        self.step, self.seconds = 0, 0.0

    @property
    def log(self) -> Path:
        return self.folder.metrics_file

    def row(self, **metrics: Any) -> None:
        """A row as it is, at the step and second reached."""
        named = {name.replace("__", "/"): value for name, value in metrics.items()}
        row = {"step": self.step, "epoch": (self.step - 1) // STEPS_PER_EPOCH, "time": self.seconds, **named}
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def train(self, steps: int, *, seconds_each: float = 0.1, **changes: Any) -> None:
        """Take steps, with a row every few and a validation at the end of every epoch.

        Args:
            changes: metrics that replace what a healthy run would log; `/` written as `__`.
        """
        for _ in range(steps):
            self.step += 1
            self.seconds = round(self.seconds + seconds_each, 6)
            loss = 2.3 * math.exp(-self.step / 60) + 1e-4
            if self.step % self.every == 0:
                values: dict[str, Any] = {"train/loss": loss, "speed/samples_per_s": 6400.0}
                if self.energy:
                    values |= {
                        "energy/energy": 2.3, "energy/potential": loss, "energy/energy_error": 0.1,
                        "energy/potential_over_energy": loss / 2.3, "energy/bounces": 0.0,
                        "energy/at_floor": 0.0, "energy/skipped": 0.0,
                    }  # fmt: skip
                values |= {name.replace("__", "/"): value for name, value in changes.items()}
                self.row(**values)
            if self.step % STEPS_PER_EPOCH == 0:
                self.row(**{"val/acc": 1 - 0.9 * math.exp(-self.step / 50), "val/loss": loss + 0.1})

    def age(self, seconds: float) -> None:
        """Make its files look as if nothing had been written for so long."""
        for file in (self.log, self.folder.record_file):
            if file.exists():
                then = file.stat().st_mtime - seconds
                os.utime(file, (then, then))


def write_sweep(
    folder: Path, *, arms: tuple[str, ...] = ("bbi", "sgd"), trials: int = 4, count: int = 2
) -> Path:
    """A sweep's description, without its runs."""
    folder.mkdir(parents=True)
    spec = {
        "name": folder.name,
        "title": folder.name,
        "objective": {"metric": "val/acc", "direction": "maximize"},
        "search": {"sampler": "halton", "trials": trials, "studies": 1},
        "replicates": {"count": count, "first_seed": 1000},
        "arms": {arm: {"label": arm, "overrides": [f"optim={arm}"], "space": {}} for arm in arms},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(spec))
    return folder


def labels(sweep: Path, arm: str, trial: int, phase: str = "search") -> dict[str, Any]:
    return {
        "sweep": sweep.name, "arm": arm, "phase": phase, "trial": trial,
        "replicate": trial if phase == "replicate" else None, "params": {},
    }  # fmt: skip


HOST = socket.gethostname()
