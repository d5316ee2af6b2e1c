"""Runs that W&B does not have, sent from their folders: trained with tracking=none, or recorded offline."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from bbi_lightning.comparison.dashboard.specification import Dashboard
from bbi_lightning.comparison.sweep_data import Run
from bbi_lightning.tracking.config_file import config_if_readable, samples_a_step
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_logger import STEP, WandbTracking, end_run, start_run
from bbi_lightning.tracking.wandb_sync import Unsent, send, unsent

_OVER = ("finished", "diverged", "pruned", "failed")


def lacking(runs: Collection[Run], there: Collection[str]) -> list[Run]:
    """The runs that are over and that W&B does not have, by the ids of those it has."""
    return [run for run in runs if run.state in _OVER and run.name not in there]


def upload(
    dashboard: Dashboard,
    entity: str,
    runs: Collection[Run],
    *,
    at_a_time: int = 4,
    did: Callable[[Literal["recording", "sending"], str], None] = lambda what, run: None,
) -> dict[str, str]:
    """Send runs to W&B with the rows of their metric logs; what training recorded offline goes as it is.

    A run is first recorded offline in its folder, then sent: stopped in between, the next call goes on.

    Args:
        dashboard: says which project.
        entity: W&B user or team.
        runs: of `lacking`.
        at_a_time: runs sent side by side.
        did: called with each run's name when it is recorded and when it is sent, or could not be.

    Returns:
        What went wrong, by run; empty if all was sent.
    """
    tracking = WandbTracking(mode="offline", project=dashboard.project, entity=entity)
    troubles: dict[str, str] = {}
    for run in runs:
        if not _records(run):
            try:
                record(run, tracking)
            except (OSError, ValueError) as error:
                troubles[run.name] = str(error)
        did("recording", run.name)
    names = {run.name for run in runs} - troubles.keys()
    waiting = [found for found in _unsent(runs) if found.run in names]
    for name in names - {found.run for found in waiting}:
        troubles[name] = (
            f"it was sent before, but is not in {entity}/{dashboard.project}: look for it elsewhere, or "
            f"remove {name}/wandb/*/*.synced to send it again"
        )
    troubles |= send(waiting, at_a_time=at_a_time, report=lambda run, trouble: did("sending", run.run))
    return troubles


def record(run: Run, tracking: WandbTracking) -> None:
    """Write W&B's offline record of a run into its folder, as training with tracking=offline would have.

    Raises:
        ValueError: the metric log is damaged; OSError: the folder cannot be written.
    """
    folder = RunFolder(run.folder)
    # an imported run may have no config: its curves are worth sending all the same
    rows, config = read_metrics(folder.metrics_file), config_if_readable(folder.config_file)
    before = _records(run)
    try:
        _replay(run, rows, config, tracking)
    except BaseException:  # stopped half-way: half a record would be sent as if it were the run
        for half in _records(run) - before:
            shutil.rmtree(half, ignore_errors=True)
        raise


def _replay(run: Run, rows: list[dict[str, Any]], config: dict[str, Any], tracking: WandbTracking) -> None:
    batch, summary = samples_a_step(config), dict(run.record.summary)
    parameters, sweep = int(summary.get("parameters", 0)), run.record.labels.get("sweep")
    there = start_run(tracking, RunFolder(run.folder), config, parameters, sweep)
    for row in rows:
        metrics = {key: value for key, value in row.items() if key != "step"}
        samples = {"samples": row["step"] * batch} if batch is not None else {}
        there.log({**metrics, **samples, STEP: row["step"]})
    end_run(there, summary, run.state, {})


def _records(run: Run) -> set[Path]:
    return set((run.folder / "wandb").glob("offline-run-*"))


def _unsent(runs: Collection[Run]) -> list[Unsent]:
    return [found for parent in {run.folder.parent for run in runs} for found in unsent(parent)]
