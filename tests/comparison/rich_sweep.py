"""A sweep with what makes pictures hard: several searches an arm, choices, keys that depend on others.

Made from a synthetic sweep by giving every trial of the first arm more parameters. The validation error
depends on the learning rate and the kind by a known formula, so that importances can be told.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep

SPACE: dict[str, Any] = {
    "optim.lr": {"low": 0.01, "high": 1.0, "log": True},
    "optim.kind": {"choices": ["plain", "nesterov"]},
    "optim.momentum": {"low": 0.5, "high": 0.99, "log": False, "when": {"optim.kind": ["nesterov"]}},
    "model.width": {"low": 16, "high": 64, "log": False},
}


def rich(folder: Path, *, trials: int = 48, studies: int = 2, replicates: int = 4) -> Path:
    """BBI with four keys and SGD, each searched twice."""
    SyntheticSweep(
        folder, arms=(ARMS[0], ARMS[2]), trials=trials, replicates=replicates, planned_replicates=replicates
    ).write()
    spec = json.loads((folder / "sweep.yaml").read_text())
    spec["arms"]["bbi"]["space"] = SPACE
    spec["search"] |= {"studies": studies, "trials": trials // studies}
    (folder / "sweep.yaml").write_text(json.dumps(spec))
    rng = np.random.default_rng(0)
    best: dict[int, tuple[float, dict[str, Any]]] = {}
    for record in _records(folder, "search"):
        labels = record["labels"]
        labels["study"] = labels["trial"] % studies
        if labels["arm"] == "bbi":
            labels["params"] = params = _point(rng)
            value = _value(params, rng)
            lost = params["optim.lr"] > 0.6
            record["state"] = "diverged" if lost else "finished"
            record["summary"] = {"val/acc": math.nan if lost else value, "val/loss": 1 - value}
            if not lost and value > best.get(labels["study"], (0.0, {}))[0]:
                best[labels["study"]] = (value, params)
        _write(folder, record)
    for record in _records(folder, "replicate"):
        if record["labels"]["arm"] == "bbi":
            study = record["labels"]["replicate"] % studies
            record["labels"] |= {"params": best[study][1], "study": study}
            _write(folder, record)
    return folder


def _point(rng: np.random.Generator) -> dict[str, Any]:
    kind = str(rng.choice(["plain", "nesterov"]))
    rate, width = float(10 ** rng.uniform(-2, 0)), int(rng.integers(16, 65))
    point: dict[str, Any] = {"optim.lr": rate, "optim.kind": kind, "model.width": width}
    return point | ({"optim.momentum": float(rng.uniform(0.5, 0.99))} if kind == "nesterov" else {})


def _value(params: dict[str, Any], rng: np.random.Generator) -> float:
    """Mostly the learning rate, somewhat the kind, not the width."""
    away = math.log10(params["optim.lr"] / 0.1)
    error = 0.01 * math.exp(2.2 * abs(away)) * (1.5 if params["optim.kind"] == "plain" else 1.0)
    return 1 - error * math.exp(0.05 * rng.normal())


def _records(folder: Path, phase: str) -> list[dict[str, Any]]:
    records = [json.loads(file.read_text()) for file in sorted((folder / "runs").glob("*/run.json"))]
    return [record for record in records if record["labels"]["phase"] == phase]


def _write(folder: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record).replace("NaN", "null")
    (folder / "runs" / record["name"] / "run.json").write_text(text)
