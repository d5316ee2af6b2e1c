"""In what two runs differ: what they were told, where they ran, by which code, where their curves part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_fields import config_fields
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.run_record import RunRecord

_OF_THE_CLOCK = ("speed/", "time/", "memory/")  # metrics that differ between two runs of the same


@dataclass(frozen=True)
class Changed:
    """A key and its two values; None where a run does not have it."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class CurvePair:
    """One metric of both runs.

    Attributes:
        metric: its name.
        first, second: the values in order.
        shared: how many steps both have logged.
        parts_at: the first shared step at which the values differ; None if they never do.
    """

    metric: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    shared: int
    parts_at: int | None


@dataclass(frozen=True)
class Difference:
    """Two runs held against each other.

    Attributes:
        config: leaves of the config that differ, in the config's order.
        same_leaves: how many do not.
        environment: facts of the last attempts that differ: machine, versions, code.
        same_code: whether both ran one commit with the same uncommitted changes; None if that is unknown.
        results: final values that differ.
        curves: metrics of either run, in the order of their names.
        problems: what could not be read.
    """

    config: tuple[Changed, ...]
    same_leaves: int
    environment: tuple[Changed, ...]
    same_code: bool | None
    results: tuple[Changed, ...]
    curves: tuple[CurvePair, ...]
    problems: tuple[str, ...] = ()


def difference(first: RunFolder, second: RunFolder) -> Difference:
    """Hold two runs against each other.

    Raises:
        ValueError: the run.json of one is damaged.
        FileNotFoundError: one is not there.
    """
    records = first.record, second.record
    problems: list[str] = []
    configs = [_or_nothing(config_fields, folder, problems) for folder in (first, second)]
    logs = [_or_nothing(_curves, folder, problems) for folder in (first, second)]
    changed = tuple(_changed(*configs))
    environments = [_environment(record) for record in records]
    return Difference(
        config=changed,
        same_leaves=len(configs[0].keys() | configs[1].keys()) - len(changed),
        environment=tuple(_changed(*environments)),
        same_code=_same_code(*environments),
        results=tuple(_changed(records[0].summary, records[1].summary)),
        curves=tuple(_pairs(*logs)),
        problems=tuple(problems),
    )


def _or_nothing(read: Any, folder: RunFolder, problems: list[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read(folder)
    except (ValueError, OSError) as error:
        problems.append(str(error))
        return {}
    return found


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Changed]:
    for key in dict.fromkeys([*first, *second]):
        values = first.get(key), second.get(key)
        if not _equal(*values):
            yield Changed(key, *values)


def _equal(first: Any, second: Any) -> bool:
    both_nan = first != first and second != second
    return both_nan or (first == second and isinstance(first, bool) == isinstance(second, bool))


def _environment(record: RunRecord) -> dict[str, Any]:
    if not record.attempts:
        return {}
    last = record.attempts[-1]
    hardware = {key: value for key, value in last.hardware.items() if value not in (None, [], "")}
    return {
        "commit": last.commit,
        "uncommitted changes": last.diff_sha256 or (last.dirty or None),
        "host": last.host,
        **hardware,
        **last.versions,
    }


def _same_code(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    if not first.get("commit") or not second.get("commit"):
        return None
    return all(first.get(key) == second.get(key) for key in ("commit", "uncommitted changes"))


def _curves(folder: RunFolder) -> dict[str, dict[int, float]]:
    """Every metric's last value at each step."""
    curves: dict[str, dict[int, float]] = {}
    for row in read_metrics(folder.metrics_file):
        for name, value in row.items():
            if name not in ("step", "epoch", "time") and isinstance(value, (int, float)):
                curves.setdefault(name, {})[row["step"]] = value
    return curves


def _pairs(
    first: Mapping[str, Mapping[int, float]], second: Mapping[str, Mapping[int, float]]
) -> Iterator[CurvePair]:
    for metric in sorted(first.keys() | second.keys()):
        if metric.startswith(_OF_THE_CLOCK):
            continue
        one, other = first.get(metric, {}), second.get(metric, {})
        shared = sorted(one.keys() & other.keys())
        parts_at = next((step for step in shared if not _equal(one[step], other[step])), None)
        yield CurvePair(metric, tuple(one.values()), tuple(other.values()), len(shared), parts_at)
