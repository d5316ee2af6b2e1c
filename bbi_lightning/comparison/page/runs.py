"""The page's static tables of runs: replicates by seed, trials by arm, and what became of the failed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bbi_lightning.comparison.page.arms import short
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.sweep_data import Run
from bbi_lightning.comparison.verdict import count, write_value


def replicates(c: Comparison) -> dict[str, Any]:
    """Seeds down, arms across; a run without a result shows its state.

    Where there are several studies each has its own row for a seed, and `rows` names it.
    """
    by_seed: dict[tuple[int, int], dict[str, str]] = {}
    for r in c.results:
        for run in r.replicates:
            value = run.final(c.test.name)
            cell = c.test.number(value) if math.isfinite(value) else run.state
            seed = run.seed if run.seed is not None else -1
            by_seed.setdefault((run.study, seed), {})[r.arm.name] = cell
    several = len({study for study, _ in by_seed}) > 1
    names = [r.arm.name for r in c.results]

    def name(study: int, seed: int) -> str:
        return (str(seed) if seed >= 0 else "–") + (f", study {study + 1}" if several else "")

    return {
        "labels": [r.arm.label for r in c.results],
        "rows": [
            (name(*key), [cells.get(arm, "–") for arm in names]) for key, cells in sorted(by_seed.items())
        ],
        "means": [c.test.number(r.mean.value) if r.mean else "–" for r in c.results],
    }


def search(c: Comparison, r: ArmResult) -> dict[str, Any]:
    """The trials of one arm, best first, those without a value last."""
    tie = c.sweep.objective.tie_metric
    tie_sign = 1 if c.sweep.objective.tie_direction == "minimize" else -1
    keys = [axis.key for axis in r.arm.space]
    several = len({run.study for run in r.trials}) > 1

    def order(run: Run) -> tuple[bool, float, float, int, int]:
        value, second = run.final(c.validation.name), tie_sign * run.final(tie) if tie else 0.0
        return not math.isfinite(value), -c.validation.sign * value, second, run.study, run.number

    def cells(run: Run) -> list[str]:
        values = [str(run.study + 1)] if several else []
        values += [write_value(run.params.get(key, "–")) for key in keys]
        values.append(c.validation.number(run.final(c.validation.name)))
        if tie:
            values.append(f"{run.final(tie):.4f}" if math.isfinite(run.final(tie)) else "–")
        return [*values, run.state]

    study = ["study"] if several else []
    return {
        "label": r.arm.label,
        "columns": [*study, *map(short, keys), c.validation.name, *([tie] if tie else []), "state"],
        "rows": [(run.number, run is r.best, cells(run)) for run in sorted(r.trials, key=order)],
    }


def losses(c: Comparison) -> list[tuple[str, list[str]]]:
    """For every arm with runs that gave no result: what became of them."""
    return [(r.arm.label, sentences) for r in c.results if (sentences := list(_arm_losses(r)))]


def _arm_losses(r: ArmResult) -> Iterable[str]:
    several = len({run.study for run in (*r.trials, *r.replicates)}) > 1

    def name(run: Run) -> str:
        return f"{run.number} of study {run.study + 1}" if several else str(run.number)

    for runs, word in ((r.trials, "trial"), (r.replicates, "replicate")):
        diverged = [run for run in runs if run.state == "diverged"]
        if diverged:
            which = "; ".join(f"{name(run)} ({_params(run)})" for run in diverged[:12])
            more = f"; and {len(diverged) - 12} more, see All runs" if len(diverged) > 12 else ""
            yield f"{count(len(diverged), word)} diverged: {which}{more}"
        failed = [run for run in runs if run.state == "failed"]
        for run in failed[:12]:
            yield f"{word} {name(run)} failed: {_reason(run)}"
        if len(failed) > 12:
            yield f"{len(failed) - 12} more {word}s failed, see All runs"
        pending = [name(run) for run in runs if run.state in ("running", "interrupted")]
        if pending:
            yield f"{count(len(pending), word)} not finished: {', '.join(pending)}"


def _params(run: Run) -> str:
    return ", ".join(f"{short(key)} {write_value(value)}" for key, value in run.params.items())


def _reason(run: Run) -> str:
    attempt = run.record.attempts[-1] if run.record.attempts else None
    if attempt is None:
        return "no attempt is on record"
    last_line = (attempt.exception or "").strip().rsplit("\n", 1)[-1].strip()
    return last_line or attempt.reason or "no reason is on record"
