"""Writes sweep folders as training leaves them, without training: plain JSON in the documented layout."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS, EVERY = 30, 18  # steps between two rows: an epoch
VALIDATION, TEST = 280, 360  # images
COMMIT = "3f2a9c1d5b7e4860a1c2d3e4f5061728394a5b6c"


@dataclass(frozen=True)
class SyntheticArm:
    """`best` is the learning rate of the lowest error, above `cliff` the loss becomes NaN."""

    name: str
    label: str
    low: float
    high: float
    best: float
    cliff: float
    test_error: float
    floor: float  # of the training loss
    momentum: bool = False


ARMS = (
    SyntheticArm("bbi", "BBI", 0.05, 0.8, 0.28, 0.55, 0.0115, 1e-5),
    SyntheticArm("ecdsep", "ECDSep", 0.02, 1.0, 0.3, math.inf, 0.0135, 4e-5),
    SyntheticArm("sgd", "SGD", 0.005, 0.5, 0.1, 0.45, 0.0155, 7e-5, momentum=True),
    SyntheticArm("adamw", "AdamW", 0.0003, 0.03, 0.008, math.inf, 0.0075, 1e-4),
)


@dataclass
class SyntheticSweep:
    """What to write; change a field to make the case a test is about."""

    folder: Path
    arms: tuple[SyntheticArm, ...] = ARMS
    trials: int = 16
    replicates: int = 10
    planned_replicates: int = 10
    seed: int = 0
    commits: dict[str, str] = field(default_factory=dict)  # by arm
    cpus: dict[str, str] = field(default_factory=dict)
    states: dict[tuple[str, str, int], str] = field(default_factory=dict)  # by arm, phase, number
    logs: bool = True

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sweep.yaml").write_text(json.dumps(self.spec(), indent=2))  # JSON is YAML
        for position, arm in enumerate(self.arms):
            rng = np.random.default_rng([self.seed, position])
            trials = [self._trial(arm, number, rng) for number in range(self.trials)]
            finished = [t for t in trials if t["state"] == "finished"]
            if finished and self.replicates:
                best = min(finished, key=lambda t: (-t["summary"]["val/acc"], t["summary"]["val/loss"]))
                for number in range(self.replicates):
                    self._replicate(arm, number, best["labels"]["params"], rng)
        return self.folder

    def spec(self) -> dict[str, Any]:
        def space(arm: SyntheticArm) -> dict[str, Any]:
            axes: dict[str, Any] = {"optim.lr": {"low": arm.low, "high": arm.high, "log": True}}
            if arm.momentum:
                axes["optim.momentum"] = {"low": 0.8, "high": 0.99, "log": False}
            return axes

        return {
            "name": self.folder.name,
            "title": "Handwritten digits: BBI, ECDSep, SGD and AdamW",
            "base": ["data=digits", "model=cnn", f"trainer.max_epochs={EPOCHS}"],
            "objective": {
                "metric": "val/acc",
                "direction": "maximize",
                "tie_breaker": {"metric": "val/loss", "direction": "minimize"},
            },
            "search": {"sampler": "halton", "trials": self.trials, "seed": 0},
            "replicates": {"count": self.planned_replicates, "first_seed": 1000},
            "workers": 2,
            "arms": {
                arm.name: {"label": arm.label, "overrides": [f"optim={arm.name}"], "space": space(arm)}
                for arm in self.arms
            },
        }

    def _trial(self, arm: SyntheticArm, number: int, rng: np.random.Generator) -> dict[str, Any]:
        position = (number * 0.6180339887 + 0.31) % 1
        lr = arm.low * (arm.high / arm.low) ** position
        params = {"optim.lr": lr} | ({"optim.momentum": 0.8 + 0.19 * rng.random()} if arm.momentum else {})
        return self._run(arm, "search", number, 0, params, rng)

    def _replicate(self, arm: SyntheticArm, number: int, params: dict, rng: np.random.Generator) -> None:
        self._run(arm, "replicate", number, 1000 + number, params, rng)

    def _run(
        self, arm: SyntheticArm, phase: str, number: int, seed: int, params: dict, rng: np.random.Generator
    ) -> dict[str, Any]:
        lr = params["optim.lr"]
        state = "diverged" if lr > arm.cliff else "finished"
        state = self.states.get((arm.name, phase, number), state)
        error = arm.test_error * (1 + 0.6 * math.log(lr / arm.best) ** 2)
        rows = self._rows(arm, min(error, 0.6), state, rng)
        summary: dict[str, Any] = {"parameters": 32458, "steps": rows[-1]["step"], "wall_s": rows[-1]["time"]}
        for row in rows:
            summary |= {key: value for key, value in row.items() if "/" in key}

        digest = hashlib.sha256(f"{arm.name} {params}".encode()).hexdigest()[:10]
        name = f"digits-cnn-{arm.name}-{digest}-s{seed}"
        labels = {
            "sweep": self.folder.name, "arm": arm.name, "phase": phase,
            "trial": number if phase == "search" else 0,
            "replicate": number if phase == "replicate" else None, "params": params,
        }  # fmt: skip
        record = {
            "format": 1,
            "name": name,
            "state": state,
            "created": "2026-05-04T10:00:00+00:00",
            "labels": labels,
            "overrides": ["data=digits", f"optim={arm.name}", f"optim.lr={lr}", f"seed={seed}"],
            "summary": summary if state in ("finished", "diverged") else {},
            "attempts": [self._attempt(arm, state)],
        }
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(record, indent=1))
        if self.logs:
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return record

    def _attempt(self, arm: SyntheticArm, state: str) -> dict[str, Any]:
        trace = "Traceback (most recent call last):\n  …\nRuntimeError: DataLoader worker was killed"
        return {
            "number": 1,
            "host": "node1",
            "pid": 4242,
            "commit": self.commits.get(arm.name, COMMIT),
            "dirty": False,
            "diff_sha256": None,
            "started": "2026-05-04T10:00:00+00:00",
            "ended": None if state == "running" else "2026-05-04T10:00:09+00:00",
            "reason": None if state == "running" else state,
            "exception": trace if state == "failed" else None,
            "from_step": 0,
            "hardware": {"cpu": self.cpus.get(arm.name, "AMD EPYC 7B13"), "threads": 2, "gpus": []},
            "versions": {"python": "3.11.2", "torch": "2.15.0", "pytorch_lightning": "2.6.6"},
        }

    def _rows(
        self, arm: SyntheticArm, error: float, state: str, rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """One row an epoch; a run that did not finish ends in the middle."""
        epochs = EPOCHS if state == "finished" else EPOCHS // 3
        bounces, rows = 0, []
        for epoch in range(1, epochs + 1):
            progress = epoch / EPOCHS
            loss = arm.floor + 2.3 * math.exp(-11 * progress) * math.exp(0.3 * rng.normal())
            val_error = (
                rng.binomial(VALIDATION, min(0.9, error + 0.9 * math.exp(-14 * progress))) / VALIDATION
            )
            row: dict[str, Any] = {
                "step": epoch * EVERY, "epoch": epoch, "time": round(0.04 * epoch, 3),
                "train/loss": loss, "val/acc": 1 - val_error, "val/loss": 2 * val_error + 0.02 * rng.random(),
            }  # fmt: skip
            if arm.name in ("bbi", "ecdsep"):
                bounces += int(arm.name == "bbi" and epoch % 7 == 0)
                row |= {
                    "energy/energy": 2.3, "energy/potential": loss,
                    "energy/potential_over_energy": loss / 2.3,
                    "energy/energy_error": abs(rng.normal()) * 1e-7, "energy/momentum_sq": 2.3**2 / loss,
                    "energy/speed_over_limit": float(np.clip(0.9 + 0.05 * rng.normal(), 0, 1)),
                    "energy/bounces": bounces, "energy/turn_cosine": rng.random(),
                }  # fmt: skip
            rows.append(row)
        if state == "diverged":
            rows.append({**rows[-1], "step": rows[-1]["step"] + EVERY, "train/loss": "nan"})
        if state == "finished":
            test = rng.binomial(TEST, error) / TEST
            rows.append({
                "step": rows[-1]["step"], "epoch": EPOCHS, "time": rows[-1]["time"],
                "test/acc": 1 - test, "test/loss": 2 * test + 0.01,
            })  # fmt: skip
        return rows


def realistic(folder: Path, **changes: Any) -> Path:
    """Four arms of 16 trials and 10 replicates; some diverge, some fail, one is unfinished."""
    states = {
        ("sgd", "search", 3): "failed",
        ("bbi", "search", 5): "failed",
        ("ecdsep", "replicate", 4): "diverged",
        ("adamw", "replicate", 9): "running",
    }
    return replace(SyntheticSweep(folder, states=states), **changes).write()
