"""What a sweep runs, handed in by whoever knows how to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Check = Callable[[Mapping[str, Any], Sequence[str]], None]
Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """The functions behind a trial. They are called in fresh processes, so each is a module's own function
    (picklable by name) and imports what is heavy when it is called.

    Attributes:
        run: (overrides, root, labels) trains one run in the `RunFolder` ``root/<run name>/``: it goes on
            where an earlier attempt stopped, returns at once where there is a result, and writes state and
            summary into run.json. A loss that stays non-finite is the state "diverged", not an exception.
        run_name: (overrides) the run's name: a pure function of what shapes the result.
        validate: (overrides) raises ValueError, TypeError or FileNotFoundError with one sentence when these
            overrides cannot make a run.
        preload: modules the fork server imports once for all trials.
        metrics: names a run's summary is known to hold; empty: not known beforehand.
        checker: (overrides) gives a function of (params, overrides) that raises as `validate` does, for the
            points that share the overrides given before: quick for thousands. None: `validate` each.
        resolve: (overrides) gives the whole config they make, as YAML for people. None: it has none.
        probe: (overrides, root, steps, seconds, report) does so many steps of a run, or as many as take so
            long, in the empty folder `root`, and reports what it took as it finds out: see `probe.Measured`.
            None: a whole run is measured.
    """

    run: Callable[[Sequence[str], Path, Mapping[str, Any]], None]
    run_name: Callable[[Sequence[str]], str]
    validate: Callable[[Sequence[str]], None]
    preload: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    checker: Callable[[Sequence[str]], Check] | None = None
    probe: Callable[[Sequence[str], Path, int, float, Report], None] | None = None
    resolve: Callable[[Sequence[str]], str] | None = None
