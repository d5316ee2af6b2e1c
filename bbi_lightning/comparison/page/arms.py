"""The page's tables of arms: what came out, under what budget, and what a number of trials buys."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bbi_lightning.comparison import tables
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.results import NEAR_BEST, ArmResult, Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.suite import OverTasks, Suite
from bbi_lightning.comparison.sweep_data import Axis
from bbi_lightning.comparison.verdict import write_count, write_p, write_value

Cells = dict[str, Any]


def result(c: Comparison, r: ArmResult, slot: int) -> Cells:
    """A row of the table of results."""
    difference = r.versus.difference if r.versus else None
    effect = r.versus.effect if r.versus else None
    lost = [f"{n} {state}" for state in ("diverged", "failed") if (n := r.count("replicate", state))]
    planned = c.sweep.plan(r.arm.name).replicates * max(1, r.winners)
    return {
        "slot": slot,
        "label": r.arm.label,
        "mean": c.test.text(r.mean.value) if r.mean else "–",
        "mean_interval": c.test.interval(r.mean) if r.mean else "",
        "median": c.test.text(r.median.value) if r.median else "–",
        "iqm": c.test.text(r.iqm.value) if r.iqm else "–",
        "n": f"{len(r.finished)} of {planned}" + "".join(f", {words}" for words in lost),
        "difference": c.test.number(difference.value, signed=True) if difference else "–",
        "difference_interval": c.test.interval(difference, signed=True) if difference else "",
        "p": write_p(r.p_value).removeprefix("p = ").removeprefix("p "),
        "effect": _plain(effect, signed=True),
        "effect_interval": _plain_interval(effect, signed=True),
        "improvement": _plain(r.improvement),
        "improvement_interval": _plain_interval(r.improvement),
        "conclusion": tables.conclusion_words(r),
        "kind": r.conclusion,
    }


def budget(c: Comparison, r: ArmResult, slot: int) -> Cells:
    """A row of the table of budgets."""
    states = Counter(run.state for run in r.trials)
    plan = c.sweep.plan(r.arm.name)
    origins = sorted({run.imported for run in (*r.trials, *r.replicates) if run.imported})
    return {
        "slot": slot,
        "label": r.arm.label,
        "overrides": " ".join(r.arm.overrides),
        "imported": ", ".join(origins),
        "space": [_axis(axis) for axis in r.arm.space],
        "trials": f"{len(r.trials)} of {plan.trials * plan.studies}",
        "studies": f"{plan.studies} studies" if plan.studies > 1 else "",
        "states": ", ".join(f"{n} {state}" for state, n in states.items()),
        "best": [f"{short(key)} = {write_value(value)}" for key, value in r.best.params.items()]
        if r.best
        else [],
        "edge": bool(r.edges),
        "validation": c.validation.text(r.best.final(c.validation.name)) if r.best else "–",
        "ties": f"shared with {r.ties} more" if r.ties else "",
        "near_best": f"{100 * r.near_best:.0f} %" if math.isfinite(r.near_best) else "–",
        "steps": write_count(r.typical("steps")) if math.isfinite(r.typical("steps")) else "–",
        "seconds": f"{r.typical('wall_s'):.3g} s" if math.isfinite(r.typical("wall_s")) else "–",
    }


def near_best(c: Comparison) -> str:
    """How near the best is near: "1 point", "1 %"."""
    return f"{100 * NEAR_BEST:g} {'point' if c.validation.is_share else '%'}"


def short(key: str) -> str:
    """A config key as a table has it: without the group that all searched keys share."""
    return key.removeprefix("optim.")


def _axis(axis: Axis) -> str:
    if axis.choices:
        return f"{short(axis.key)}: {', '.join(str(choice) for choice in axis.choices)}"
    scale = ", log" if axis.log else ""
    return f"{short(axis.key)}: {write_value(axis.low)} to {write_value(axis.high)}{scale}"


def tuned(c: Comparison, slots: Mapping[str, int]) -> Cells:
    """The tuning curves at k = 1, 2, 4, … (or 1, 4, 16, …) and at all trials."""
    curves = [(r.arm, r.tuning) for r in c.results if r.tuning is not None]
    most = max((curve.k.size for _, curve in curves), default=1)
    base = 2 if most <= 16 else 4  # few enough columns for a phone
    ks = sorted({base**i for i in range(most.bit_length()) if base**i <= most} | {most})
    rows = [
        (
            slots[arm.name],
            arm.label,
            [c.validation.number(curve.value[k - 1]) if k <= curve.k.size else "–" for k in ks],
        )
        for arm, curve in curves
    ]
    return {"ks": ks, "rows": rows}


def over_tasks(suite: Suite, slots: Mapping[str, int]) -> list[Cells]:
    """The rows of the table of arms over all tasks."""
    tests = {c.test for c in suite.comparisons}
    shared = len(tests) == 1 and next(iter(tests)).is_share
    score = next(iter(tests)) if shared else Metric("score", "maximize")
    return [_over_tasks(row, score, slots[row.arm.name]) for row in suite.over_tasks]


def tasks_by_arms(suite: Suite) -> Cells:
    """Labels of the arms; for every task its title, its metric, and each arm's mean and conclusion there."""
    labels: dict[str, str] = {}
    for c in suite.comparisons:
        labels |= {r.arm.name: r.arm.label for r in c.results if r.arm.name not in labels}
    names = list(labels)
    rows = []
    for c in suite.comparisons:
        own = {r.arm.name: r for r in c.results}
        cells = [
            (c.test.text(r.mean.value) if r.mean else "–", tables.conclusion_words(r), r.conclusion)
            if (r := own.get(name))
            else ("–", "", "")
            for name in names
        ]
        rows.append((c.sweep.title, c.test.label, cells))
    return {"labels": [labels[name] for name in names], "rows": rows}


def _over_tasks(row: OverTasks, score: Metric, slot: int) -> Cells:
    return {
        "slot": slot,
        "label": row.arm.label,
        "runs": sum(len(scores) for scores in row.scores),
        "iqm": score.text(row.iqm.value),
        "iqm_interval": score.interval(row.iqm),
        "difference": score.number(row.difference.value, signed=True) if row.difference else "–",
        "difference_interval": score.interval(row.difference, signed=True) if row.difference else "",
        "improvement": _plain(row.improvement),
        "improvement_interval": _plain_interval(row.improvement),
    }


def _plain(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None or not math.isfinite(estimate.value):
        return "–"
    return f"{estimate.value:{'+' if signed else ''}.2f}".replace("-", "−")


def _plain_interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None or not estimate.has_interval:
        return ""
    low, high = (
        f"{end:{'+' if signed else ''}.2f}".replace("-", "−") for end in (estimate.low, estimate.high)
    )
    return f"{low} to {high}"
