"""How long it takes to find a run among many.

    python benchmarks/registry.py                     # 10,000 runs, about a minute
    python benchmarks/registry.py --runs 1000

Writes so many runs into a temporary folder ($TMPDIR), a hundred a sweep, each with the config and the record
of a real one (digits), and measures wall clock and seconds of a core (the same where nobody else computes):

- first index: every file is read and parsed, in this process.
- whole processes, best and worst of several rounds: `bbi --help` as what any verb costs, `bbi runs ls`, the
  same with a query and an order, one after 100 runs have changed, and `bbi runs show` of one.
- what the index saves: `bbi runs index --rebuild`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bbi_lightning.tracking.registry import read_runs

ROUNDS = 5
PER_SWEEP = 100
ARMS = {"bbi": "bbi_lightning.optim.BBI", "sgd": "torch.optim.SGD", "adamw": "torch.optim.AdamW"}
CONFIG = """\
data:
  _target_: bbi_lightning.data.digits.DigitsDataModule
  batch_size: 64
  eval_batch_size: 512
  val_size: 280
  seed: {seed}
  split_seed: 0
  augment: false
model:
  _target_: bbi_lightning.models.cnn.CNN
  channels:
  - 16
  - 32
  - 64
  kernel_size: 3
  batch_norm: true
  dropout: 0.0
loss:
  _target_: torch.nn.CrossEntropyLoss
  label_smoothing: 0.0
optim:
  _target_: {target}
  _partial_: true
  lr: {lr}
  weight_decay: 0.0
scheduler:
  _target_: bbi_lightning.training.schedules.constant
  _partial_: true
  warmup: 0.0
trainer:
  _target_: bbi_lightning.training.options.TrainerOptions
  max_epochs: 30
  max_steps: null
  accumulate_grad_batches: 1
  gradient_clip_val: null
  gradient_clip_algorithm: norm
  precision: 32-true
  deterministic: false
  check_val_every_n_epoch: 1
runtime:
  _target_: bbi_lightning.training.options.RuntimeOptions
  root: sweeps/{sweep}/runs
  accelerator: auto
  devices: 1
  num_nodes: 1
  strategy: auto
  threads: 1
  compile: false
  progress: auto
  log_every: 20
  max_time: null
  stop_within: 120.0
  timeout: 600.0
  check_ranks_every: null
  group: {sweep}
  labels: {{}}
checkpoint:
  _target_: bbi_lightning.training.options.CheckpointOptions
  every: 60.0
  keep_last: 2
  keep_best: val/acc
  keep_every: null
  milestones: []
tracking:
  _target_: bbi_lightning.tracking.wandb_logger.WandbTracking
  mode: none
  project: bbi_lightning
  entity: null
  tags: []
  init_timeout: 60.0
seed: {seed}
"""


def write_runs(root: Path, count: int) -> list[Path]:
    """So many finished runs; returns their folders."""
    chance = random.Random(0)
    folders = []
    for number in range(count):
        sweep = f"sweep-{number // PER_SWEEP:03}"
        arm = chance.choice(list(ARMS))
        lr, accuracy = 10 ** chance.uniform(-3, 0), chance.uniform(0.9, 1.0)
        folder = (
            root
            / "sweeps"
            / sweep
            / "runs"
            / f"digits-cnn-{arm}-{chance.getrandbits(40):010x}-s{number % 10}"
        )
        folder.mkdir(parents=True)
        config = CONFIG.format(seed=number % 10, target=ARMS[arm], lr=lr, sweep=sweep)
        (folder / "config.yaml").write_text(config)
        (folder / "run.json").write_text(
            json.dumps(record(folder.name, sweep, arm, number, lr, accuracy), indent=2)
        )
        folders.append(folder)
    return folders


def record(name: str, sweep: str, arm: str, number: int, lr: float, accuracy: float) -> dict[str, object]:
    """A run.json as training writes it."""
    second = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
    energy = ("bounces", "energy", "energy_error", "momentum_sq", "potential", "skipped", "speed_over_limit")
    return {
        "name": name,
        "state": "finished" if number % 50 else "failed",
        "created": f"2026-05-04T{second}+00:00",
        "labels": {
            "sweep": sweep,
            "arm": arm,
            "phase": "search",
            "trial": number,
            "params": {"optim.lr": lr},
        },
        "overrides": ["data=digits", "model=cnn", f"optim={arm}", f"optim.lr={lr}"],
        "summary": {
            **{f"energy/{part}": number / 7 for part in energy},
            **{f"{split}/loss": 1 - accuracy for split in ("train", "val", "test")},
            **{f"{split}/acc": accuracy for split in ("val", "test")},
            "parameters": 25978,
            "steps": 540,
            "wall_s": 1.7,
        },
        "attempts": [
            {
                "number": 1,
                "host": f"node{number % 20}",
                "pid": 4242,
                "commit": "269a367a0c93356b6c98e5f6b275bb28610c45d5",
                "dirty": False,
                "diff_sha256": None,
                "started": f"2026-05-04T{second}+00:00",
                "ended": f"2026-05-04T{second}+00:00",
                "reason": "trained to the end",
                "exception": None,
                "from_step": 0,
                "hardware": {"cpu": "AMD EPYC", "threads": 2, "gpus": []},
                "versions": {"python": "3.11.7", "torch": "2.15.0", "pytorch_lightning": "2.6.6"},
            }
        ],
        "origin": {},
        "format": 1,
    }


def touch(folders: list[Path]) -> None:
    """Write these runs' records anew, as training does at their end."""
    for folder in folders:
        text = (folder / "run.json").read_text()
        (folder / "new").write_text(text.replace('"finished"', '"diverged"'))
        (folder / "new").replace(folder / "run.json")


def whole_process(root: Path, *words: str) -> tuple[float, float]:
    """Seconds of a command from the shell's point of view, and seconds of a core that it took."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "bbi_lightning.cli", *words]
    result = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}
    )
    took = time.perf_counter() - began
    assert result.returncode == 0, result.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = write_runs(root, options.runs)
        time.sleep(2.5)  # files younger than two seconds are read again, to be sure
        began = time.perf_counter()
        known = read_runs([root / "sweeps"])
        print(f"{options.runs:,} runs; first index {time.perf_counter() - began:.2f} s", flush=True)
        index = known.indexes[0]
        assert index is not None
        assert len(known.runs) == known.reread == options.runs
        print(f"the index: {index.stat().st_size / 1e6:.1f} MB")
        hard = "optimizer=bbi and (lr>0.1 or state=failed) and name~s[0-4]$"
        verbs = {
            "bbi --help": ["--help"],
            "bbi runs ls": ["runs", "ls"],
            f"bbi runs ls --where '{hard}' --sort -test/acc": [
                "runs",
                "ls",
                "--where",
                hard,
                "--sort",
                "-test/acc",
            ],
            "bbi runs show RUN": ["runs", "show", folders[-1].name],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in verbs}
        for _ in range(ROUNDS):
            for name, words in verbs.items():
                times[name].append(whole_process(root, *words))
        print("  wall, s (worst)   of a core, s (worst)")
        for name, taken in times.items():
            walls, cores = zip(*taken, strict=True)
            print(
                f"{min(walls):6.2f} ({max(walls):.2f}) {min(cores):11.2f} ({max(cores):.2f})   {name}",
                flush=True,
            )
        touch(folders[:100])
        for what, words in (("ls", ["ls"]), ("index --rebuild", ["index", "--rebuild"])):
            wall, core = whole_process(root, "runs", *words)
            after = ", 100 runs have changed" if what == "ls" else ""
            print(f"{wall:6.2f} {core:18.2f}          bbi runs {what}{after}", flush=True)


if __name__ == "__main__":
    main()
