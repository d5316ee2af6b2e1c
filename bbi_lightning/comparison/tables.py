"""A comparison as tables: rows for CSV files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.sweep_data import Run
from bbi_lightning.comparison.verdict import code_version, hardware

Row = dict[str, Any]

_WORDS = {
    "baseline": "baseline",
    "better": "better",
    "worse": "worse",
    "undecided": "no difference shown",
    "unstable": "no verdict: diverged",
    "no data": "no pairs yet",
}


def conclusion_words(result: ArmResult) -> str:
    """The conclusion as a table's cell has it."""
    return _WORDS[result.conclusion]


def trial_rows(c: Comparison) -> list[Row]:
    """One row a search trial; each searched key is a column of its own."""
    metrics = [m for m in (c.sweep.objective.metric, c.sweep.objective.tie_metric) if m]
    keys = list(dict.fromkeys(axis.key for arm in c.sweep.arms for axis in arm.space))
    several = _several_studies(c)
    return [
        {
            "arm": r.arm.name,
            "trial": run.number,
            **_study(run, several),
            "state": run.state,
            "chosen": run is r.best,
        }
        | {metric: run.final(metric) for metric in metrics}
        | {key: run.params.get(key, "") for key in keys}
        | _facts(run)
        for r in c.results
        for run in r.trials
    ]


def replicate_rows(c: Comparison) -> list[Row]:
    """One row a replicate of an arm's best trial, with every metric of its summary."""
    runs = [(r.arm.name, run) for r in c.results for run in r.replicates]
    several = _several_studies(c)
    metrics = sorted({key for _, run in runs for key in run.record.summary if "/" in key})
    return [
        {"arm": arm, "replicate": run.number, **_study(run, several), "seed": run.seed, "state": run.state}
        | {metric: run.final(metric) for metric in metrics}
        | _facts(run)
        for arm, run in runs
    ]


def _several_studies(c: Comparison) -> bool:
    return any(run.study for run in c.sweep.runs)


def _study(run: Run, several: bool) -> Row:
    """Which search of its arm a run is of, where there are several: numbers begin anew in each."""
    return {"study": run.study + 1} if several else {}


def _facts(run: Run) -> Row:
    imported = {"imported": run.imported} if run.imported else {}
    return imported | {
        "steps": run.record.summary.get("steps", ""),
        "wall_s": run.record.summary.get("wall_s", ""),
        "code": code_version(run.record),
        "hardware": hardware(run.record),
        "run": run.name,
    }


def summary_rows(c: Comparison) -> list[Row]:
    """One row an arm: everything that the verdict rests on, in the metric's own unit."""
    return [
        {
            "arm": r.arm.name,
            "label": r.arm.label,
            "baseline": c.baseline.name,
            "metric": c.test.name,
            **_estimate("mean", r.mean),
            **_estimate("median", r.median),
            **_estimate("difference", r.versus.difference if r.versus else None),
            "p": r.versus.p_value if r.versus else math.nan,
            "p_holm": r.p_value,
            "conclusion": r.conclusion,
            "trials": len(r.trials),
            "trials_finished": r.count("search", "finished"),
            "trials_diverged": r.count("search", "diverged"),
            "trials_failed": r.count("search", "failed"),
            "trials_near_best": r.near_best,
            "replicates": len(r.replicates),
            "replicates_diverged": r.count("replicate", "diverged"),
            "best_trial": r.best.number if r.best else "",
            "best_params": json.dumps(dict(r.best.params)) if r.best else "",
            "best_" + c.validation.name: r.best.final(c.validation.name) if r.best else math.nan,
        }
        for r in c.results
    ]


def _estimate(name: str, estimate: Estimate | None) -> Row:
    if estimate is None:
        return {name: "", f"{name}_low": "", f"{name}_high": "", f"{name}_n": 0}
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_n": estimate.n,
    }


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV text; a number that does not exist is an empty cell."""
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column, "")) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value
