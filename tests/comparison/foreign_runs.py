"""The same two optimizers, three rates and a few seeds, as each tracker would leave them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATES = (0.01, 0.1, 1.0)
BEST = 0.1
SEEDS = 4


@dataclass(frozen=True)
class Made:
    """A run somebody has made elsewhere; its numbers are formulas, so that they can be found again."""

    optimizer: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.optimizer}-{self.lr}-{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "lr": self.lr, "seed": self.seed, "width": 64}

    def accuracy(self, epoch: int) -> float:
        handicap = (self.optimizer == "sgd") * 0.03 + (self.lr != BEST) * 0.05
        return 0.95 - handicap - 0.2 / epoch + 0.001 * self.seed

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Five epochs of twenty steps, tested at the end."""
        rows: list[dict[str, Any]] = [
            {
                "step": 20 * e,
                "epoch": e,
                "train/loss": 2.0 / e,
                "val/loss": 3.0 / e,
                "val/acc": self.accuracy(e),
            }
            for e in range(1, 6)
        ]
        rows[-1]["test/acc"] = self.accuracy(5) - 0.01
        return rows


def made() -> Iterator[Made]:
    """Every rate with seed 0, the best one with more seeds."""
    for optimizer in ("bbi", "sgd"):
        for lr in RATES:
            for seed in range(SEEDS if lr == BEST else 1):
                yield Made(optimizer, lr, seed)


def write_csv(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
    return file


def csv_folder(folder: Path) -> Path:
    for run in made():
        write_csv(folder / f"{run.name}.csv", run.rows)
    write_csv(folder / "runs.csv", [{"run": run.name, **run.config} for run in made()])
    return folder


def wandb_history(run: Made) -> list[dict[str, Any]]:
    return [
        {
            "_step": n,
            "_runtime": 1.5 * n,
            "_timestamp": 1.7e9 + n,
            "trainer/global_step": row.pop("step"),
            **row,
        }
        for n, row in enumerate(run.rows)
    ]


def wandb_export(folder: Path, *, style: str = "site", histories: str = "csv") -> Path:
    """The site's table has a column a key; pandas' has dicts."""
    table = []
    for number, run in enumerate(made()):
        last = {"val/acc": run.rows[-1]["val/acc"], "test/acc": run.rows[-1]["test/acc"]}
        head = {
            "Name": run.name,
            "ID": f"id{number:02}",
            "State": "finished",
            "Created": "2026-03-01T10:00:00Z",
        }
        if style == "site":
            table.append({**head, "Created": "2026-03-01T10:00:00Z", "Runtime": 7, **run.config, **last})
        else:
            config = {**run.config, "_wandb": {"t": 1}, "nothing": None}
            table.append({"name": run.name, "id": head["ID"], "state": "finished",
                          "config": str(config), "summary": str({**last, "bad": float("nan")})})  # fmt: skip
        history, stem = wandb_history(run), folder / "history" / f"id{number:02}"
        if histories == "csv":
            write_csv(stem.with_suffix(".csv"), history)
        elif histories == "jsonl":
            stem.parent.mkdir(parents=True, exist_ok=True)
            stem.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
        elif histories == "parquet":
            import pyarrow
            import pyarrow.parquet

            stem.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(
                pyarrow.Table.from_pylist([{**dict.fromkeys(history[-1]), **row} for row in history]),
                stem.with_suffix(".parquet"),
            )
    write_csv(folder / "runs.csv", table)
    if histories == "one":
        rows = [{"run_id": f"id{n:02}", **row} for n, run in enumerate(made()) for row in wandb_history(run)]
        write_csv(folder / "all.csv", rows)
    return folder
