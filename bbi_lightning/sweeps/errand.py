"""Work that is no trial, done in a process like a trial's: what the plan checks and measures.

It lives in a folder of its own, which its user removes; reports.jsonl there holds what it said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from bbi_lightning.sweeps import child
from bbi_lightning.sweeps.memory import resident_bytes
from bbi_lightning.sweeps.task import Task

Work = Callable[[Callable[[Mapping[str, Any]], None]], None]
"""A picklable function that is given one to report with."""

_NAME = "errand"
_TICK = 0.05  # seconds between looks at its memory and its reports


@dataclass(frozen=True)
class Ending:
    """How an errand ended.

    Attributes:
        reports: what it said, in order.
        seconds: wall time, from the start of its process.
        peak: bytes that its processes held at most, shared ones included.
        own: bytes of these that it did not have from its first moment.
        failure: why it came to no end: its traceback, or a sentence; None when it did.
        late: whether it was stopped because its time was over.
    """

    reports: tuple[Mapping[str, Any], ...]
    seconds: float
    peak: int
    own: int
    failure: str | None = None
    late: bool = False


@dataclass(frozen=True)
class _Reporting:
    """A trial that is an errand."""

    work: Work
    file: Path

    def __call__(self, overrides: Sequence[str], root: Path, labels: Mapping[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as file:

            def report(facts: Mapping[str, Any]) -> None:
                file.write(json.dumps(dict(facts)) + "\n")
                file.flush()

            self.work(report)


def run_errand(
    context: ForkServerContext,
    work: Work,
    folder: Path,
    *,
    seconds: float,
    threads: int = 1,
    listen: Callable[[Mapping[str, Any]], None] | None = None,
) -> Ending:
    """Do it, and wait for its end.

    Args:
        context: the fork server.
        work: what to do.
        folder: an empty one.
        seconds: after which it is stopped.
        threads: of its process.
        listen: called with each report as it comes.
    """
    file = folder / "reports.jsonl"
    file.touch()
    task = Task(run=_Reporting(work, file), run_name=_named, validate=_nothing)
    began = time.monotonic()
    surroundings = child.threads(threads)
    process, connection = child.start(context, child.run_trial, task, (), folder, {}, surroundings)
    reports: list[Mapping[str, Any]] = []
    raised, late = None, False
    first = peak = 0
    with file.open(encoding="utf-8") as lines:
        try:
            while True:
                ended = process.exitcode is not None  # first: what was said before the end is then readable
                raised = _answer(connection) or raised
                peak = max(peak, resident_bytes(process.pid or 0))
                first = first or peak
                for facts in _new_reports(lines):
                    reports.append(facts)
                    if listen is not None:
                        listen(facts)
                late = time.monotonic() - began > seconds
                if ended or late:
                    break
                time.sleep(_TICK)
        finally:
            if process.exitcode is None:
                child.kill(process)
                process.join()
            connection.close()
    elapsed = time.monotonic() - began
    failure = raised
    if late:
        failure = f"it took longer than {seconds:.0f} s"
    elif failure is None and process.exitcode:
        failure = f"its process died (exit code {process.exitcode})"
    return Ending(tuple(reports), elapsed, peak, max(0, peak - first), failure, late)


def _answer(connection: Any) -> str | None:
    """Let the child go when it asks; its traceback, if it sends one."""
    try:
        while connection.poll():
            what, text = connection.recv()
            if what == "raised":
                return str(text)
            connection.send(True)
    except (EOFError, OSError):
        pass
    return None


def _new_reports(lines: Any) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    while True:
        before = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):  # nothing, or half of one
            lines.seek(before)
            return found
        found.append(json.loads(line))


def _named(overrides: Sequence[str]) -> str:
    return _NAME


def _nothing(overrides: Sequence[str]) -> None:
    pass
