"""What a comparison computed, as one W&B run: its numbers by name, and its table of arms.

W&B's own grouped means are of a sample of the runs, and know nothing of pairs, corrections or of which trial
was chosen. So our numbers go there as the summary of a run of their own (job type "summary"), from which
whatever claims something on the dashboard takes them: both places then say the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.tables import summary_rows
from bbi_lightning.comparison.verdict import verdict

PREFIX = "compare"  # of the keys of an arm's numbers: compare/<arm>/mean
JOB_TYPE = "summary"

Number = float | int | str


@dataclass(frozen=True)
class Summary:
    """The summary run's contents.

    Attributes:
        run: its W&B id; of one sweep always the same.
        values: W&B's summary: "compare/<arm>/<what>" in the metric's own unit (shares in 0 to 1),
            "verdict/<what>" in words. What does not exist (a mean of no runs) is left out.
        rows: the table of arms, one row an arm; None where there is nothing.
        config: what the numbers are of.
        digest: of values and rows. Two summaries with one digest say the same.
    """

    run: str
    values: Mapping[str, Number]
    rows: tuple[Mapping[str, Any], ...] = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    digest: str


def summarise(c: Comparison) -> Summary:
    """The summary run of a comparison. Deterministic: the same runs give the same digest."""
    words = verdict(c)
    values: dict[str, Number] = {
        f"{PREFIX}/{r.arm.name}/{name}": value for r in c.results for name, value in _numbers(c, r)
    }
    values |= {"verdict/headline": words.headline, "verdict/status": words.status}
    values |= {"verdict/runs": len(c.sweep.runs), "verdict/runs_missing": c.missing()}
    rows = tuple({key: _or_none(value) for key, value in row.items()} for row in summary_rows(c))
    config = {
        "sweep_name": c.sweep.name,
        "title": c.sweep.title,
        "baseline": c.baseline.name,
        "test_metric": c.test.name,
        "validation_metric": c.validation.name,
        "direction": c.test.direction,
        "arms": [r.arm.name for r in c.results],
    }
    content = json.dumps([values, rows, config], sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Summary(summary_run_id(c.sweep.name), values, rows, config, digest)


def summary_run_id(sweep: str) -> str:
    """The W&B id of a sweep's summary run: readable, with a digest of the name where that had to be cut.

    W&B ids have at most 128 characters, none of them "/", "\\\\", "#", "?", "%" or ":".
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", sweep)[:80].strip("-")
    if readable == sweep:
        return f"summary-{readable}"
    return f"summary-{readable}-{hashlib.sha256(sweep.encode()).hexdigest()[:8]}"


def _numbers(c: Comparison, r: ArmResult) -> Iterator[tuple[str, Number]]:
    yield from _estimate("mean", r.mean)
    yield from _estimate("median", r.median)
    yield from _estimate("iqm", r.iqm)
    if r.versus is not None:
        yield from _estimate("difference", r.versus.difference)
        yield from _estimate("effect", r.versus.effect)
        yield from _finite("p", r.versus.p_value)
        yield from _finite("p_holm", r.p_value)
    yield from _estimate("improvement", r.improvement)
    yield "conclusion", r.conclusion
    if r.best is not None:
        yield from _finite("best_validation", r.best.final(c.validation.name))
        yield "best_run", r.best.name
    yield "trials", len(r.trials)
    yield "trials_finished", r.count("search", "finished")
    yield "trials_diverged", r.count("search", "diverged")
    yield "trials_failed", r.count("search", "failed")
    yield "replicates", len(r.replicates)
    yield "replicates_finished", len(r.finished)
    yield "replicates_diverged", r.count("replicate", "diverged")


def _estimate(name: str, estimate: Estimate | None) -> Iterator[tuple[str, Number]]:
    if estimate is None:
        return
    yield from _finite(name, estimate.value)
    yield from _finite(f"{name}_low", estimate.low)
    yield from _finite(f"{name}_high", estimate.high)
    yield f"{name}_n", estimate.n


def _finite(name: str, value: float) -> Iterator[tuple[str, Number]]:
    if math.isfinite(value):
        yield name, float(value)


def _or_none(value: Any) -> Any:
    """A cell of a W&B table: one type a column, None where there is nothing."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value
