"""Runs that W&B recorded offline, sent to the service later: in order, several at a time, and each once.

wandb's own command does the sending, and leaves a mark beside what it has sent: a second call goes on where
the first was stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from bbi_lightning.tracking.run_folder import RunFolder

_MARK = ".synced"  # wandb's own, appended to the name of what it has sent


@dataclass(frozen=True)
class Unsent:
    """A run with attempts that have not been sent.

    Attributes:
        run: its name.
        folders: wandb's folders of the attempts, in the order they were made.
    """

    run: str
    folders: tuple[Path, ...]


def unsent(runs: Path) -> list[Unsent]:
    """The runs in a folder of runs that have something to send.

    One that is being trained is left out: what it wrote after its record was marked would never be sent.
    """
    found = []
    for folder in sorted(path for path in runs.iterdir() if (path / "run.json").is_file()):
        attempts = sorted((folder / "wandb").glob("offline-run-*"))  # the name begins with the time
        waiting = tuple(path for path in attempts if _has_news(path))
        if waiting and RunFolder(folder).holder() is None:
            found.append(Unsent(folder.name, waiting))
    return found


def send(
    runs: Sequence[Unsent],
    *,
    at_a_time: int = 4,
    patience: float = 600.0,
    report: Callable[[Unsent, str | None], None] = lambda run, trouble: None,
) -> dict[str, str]:
    """Send runs; the attempts of each one after the other.

    Args:
        runs: what `unsent` found.
        at_a_time: runs sent side by side, ≥ 1.
        patience: seconds that one attempt may take.
        report: called for every run that is done, with what went wrong.

    Returns:
        What went wrong, by run; empty if all was sent.
    """
    troubles: dict[str, str] = {}
    with ThreadPoolExecutor(at_a_time) as pool:
        sending = {pool.submit(_send, run, patience): run for run in runs}
        try:
            for done in as_completed(sending):
                run, trouble = sending[done], done.result()
                if trouble is not None:
                    troubles[run.run] = trouble
                report(run, trouble)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return troubles


def _send(run: Unsent, patience: float) -> str | None:
    """What went wrong; an attempt is sent after those before it, which the service would else reorder."""
    for folder in run.folders:
        command = [sys.executable, "-m", "wandb", "sync", str(folder.resolve())]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=patience,
                check=False,
                stdin=subprocess.DEVNULL,
                cwd=folder.parents[1],  # W&B leaves a folder `wandb` where it runs: the run has one
                env={**os.environ, "WANDB_MODE": "online"},
            )
        except subprocess.TimeoutExpired:
            return f"{folder.name} was not sent within {patience:.0f} s"
        if done.returncode or _has_news(folder):
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            return f"{folder.name}: {said[-1]}"
    return None


def _has_news(folder: Path) -> bool:
    records = list(folder.glob("run-*.wandb"))
    return bool(records) and not all(Path(f"{record}{_MARK}").exists() for record in records)
