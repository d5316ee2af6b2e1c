"""What became of a trial, judged from its run folder and the way its process ended."""

from __future__ import annotations

import math
import signal
from pathlib import Path

from bbi_lightning.sweeps.spec import Objective
from bbi_lightning.sweeps.trial import DIVERGED, FAILED, FINISHED, PRUNED, Outcome
from bbi_lightning.tracking.run_folder import RunFolder, RunRecord


def result_of(run: Path, objective: Objective) -> Outcome | None:
    """The result that lies in a run's folder; None when there is none (yet).

    A run that finished with a non-finite objective counts as diverged. One that never reported the objective
    at all has failed: no sweep can use it.
    """
    record = _record(run)
    if record is None or not record.is_result:
        return None
    if record.state in (DIVERGED, PRUNED):
        return Outcome(record.state)
    value = record.summary.get(objective.metric)
    if not isinstance(value, (int, float)):
        reported = ", ".join(key for key in record.summary if "/" in key) or "nothing"
        return Outcome(FAILED, error=f"the run reports no {objective.metric}, only {reported}")
    if not math.isfinite(value):
        return Outcome(DIVERGED)
    tie = record.summary.get(objective.tie_breaker.metric) if objective.tie_breaker else None
    finite_tie = isinstance(tie, (int, float)) and math.isfinite(tie)
    return Outcome(FINISHED, value=float(value), tie_breaker=float(tie) if finite_tie else None)  # type: ignore[arg-type]


def failure_of(run: Path | None, raised: str | None) -> Outcome | None:
    """The error that ended a run's last attempt; None when it died without one.

    Args:
        run: its folder, None when its process never got that far.
        raised: the traceback that the process itself sent, if it did.
    """
    record = _record(run) if run else None
    written = (
        record.attempts[-1].exception if record and record.state == "failed" and record.attempts else None
    )
    error = written or raised
    return Outcome(FAILED, error=error) if error else None


def cause_of_death(exit_code: int | None) -> str:
    """The exit code of a process in words."""
    if exit_code is not None and exit_code < 0:
        try:
            return f"killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"killed by signal {-exit_code}"
    return f"ended with exit code {exit_code}"


def _record(run: Path) -> RunRecord | None:
    folder = RunFolder(run)
    return folder.record if folder.exists else None
