"""Does W&B say what we say? Its numbers, read back run by run, beside those of the run folders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bbi_lightning.comparison.dashboard.service import runs_of, speaking_plainly
from bbi_lightning.comparison.dashboard.specification import JOB_TYPES, Dashboard
from bbi_lightning.comparison.dashboard.summary import Summary
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.sweep_data import Run

TOLERANCE = (
    1e-9  # relative: a float64 survives the way there and back, what differs by more is another number
)

_STATES = {  # ours → what W&B may show
    "finished": ("finished",),
    "diverged": ("finished",),
    "pruned": ("finished", "failed"),
    "failed": ("failed", "crashed", "killed"),
    "interrupted": ("preempted", "preempting", "failed", "crashed", "killed", "running"),
    "running": ("running", "pending", "crashed"),
}

Kind = Literal["missing", "unknown", "state", "place", "number", "mean", "summary"]


@dataclass(frozen=True)
class RemoteRun:
    """A run as W&B has it."""

    run: str
    state: str
    group: str
    job_type: str
    arm: str
    summary: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Difference:
    """One thing that W&B says otherwise.

    Attributes:
        kind: of what; "missing": W&B does not have the run, "unknown": we do not.
        where: a run's name, or an arm's.
        what: the key.
        ours, theirs: what either says; "" for nothing.
    """

    kind: Kind
    where: str
    what: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class ArmMeans:
    """The mean test metric of an arm's finished replicates, here and over the same runs in W&B."""

    arm: str
    ours: float
    ours_n: int
    theirs: float
    theirs_n: int


@dataclass(frozen=True)
class Checked:
    """What was compared, and what differs; `agrees` when nothing does."""

    runs: int
    found: int
    numbers: int
    means: tuple[ArmMeans, ...]
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether W&B has every run and says the same of each."""
        return not self.differences


def fetch(api: Any, dashboard: Dashboard, entity: str) -> tuple[RemoteRun, ...]:
    """All runs of the sweep that W&B has, its summary run too; empty where there is no such project.

    Raises:
        UnavailableError: the server refuses, or is gone.
    """
    filters = {"group": {"$in": [*dashboard.groups, dashboard.sweep]}}
    with speaking_plainly():
        runs = runs_of(api, entity, dashboard.project, filters)
        return tuple(
            RemoteRun(
                run=run.id,
                state=run.state,
                group=run.group or "",
                job_type=run.job_type or "",
                arm=str(run.config.get("arm", "")),
                summary=dict(run.summary_metrics),
            )
            for run in runs
        )


def check(c: Comparison, dashboard: Dashboard, summary: Summary, remote: Iterable[RemoteRun]) -> Checked:
    """Compare what W&B has with the comparison.

    Args:
        c: ours.
        dashboard, summary: made of it.
        remote: of `fetch`.
    """
    there = {run.run: run for run in remote}
    differences: list[Difference] = []
    numbers = 0
    metrics = _metrics(c)
    for run in c.sweep.runs:
        theirs = there.get(run.name)
        if theirs is None:
            differences.append(Difference("missing", run.name, "run", run.state, ""))
            continue
        differences += _places(run, theirs, dashboard)
        pairs = [(key, run.record.summary.get(key), theirs.summary.get(key)) for key in metrics]
        numbers += sum(1 for _, ours, _ in pairs if ours is not None)
        differences += [
            Difference("number", run.name, key, _write(ours), _write(other))
            for key, ours, other in pairs
            if not _same(ours, other)
        ]
    known = {run.name for run in c.sweep.runs}
    differences += [
        Difference("unknown", run.run, "run", "", run.state)
        for run in there.values()
        if run.run not in known and run.job_type in JOB_TYPES["all"]
    ]
    means = tuple(_means(c, there))
    differences += [
        Difference(
            "mean",
            m.arm,
            c.test.name,
            f"{_write(m.ours)} of {m.ours_n}" if m.ours_n else "",
            f"{_write(m.theirs)} of {m.theirs_n}" if m.theirs_n else "",
        )
        for m in means
        if m.ours_n != m.theirs_n or not _same(m.ours, m.theirs)
    ]
    differences += _summary_differences(summary, there.get(summary.run))
    found = sum(1 for name in known if name in there)
    numbers += len(summary.values) if summary.run in there else 0
    return Checked(len(known), found, numbers, means, tuple(differences))


def _metrics(c: Comparison) -> tuple[str, ...]:
    tie = c.sweep.objective.tie_metric
    return (c.test.name, c.validation.name, *((tie,) if tie else ()), "train/loss", "steps")


def _places(run: Run, theirs: RemoteRun, dashboard: Dashboard) -> Iterator[Difference]:
    """State, group, job type and arm."""
    group = next(arm.group for arm in dashboard.arms if arm.name == run.arm)
    if theirs.state not in _STATES.get(run.state, (run.state,)):
        yield Difference("state", run.name, "state", run.state, theirs.state)
    for what, ours, other in (
        ("group", group, theirs.group),
        ("job type", run.phase, theirs.job_type),
        ("config arm", run.arm, theirs.arm),
    ):
        if ours != other:
            yield Difference("place", run.name, what, ours, other)


def _means(c: Comparison, there: Mapping[str, RemoteRun]) -> Iterator[ArmMeans]:
    for r in c.results:
        values = [
            _number(value)
            for run in r.finished
            if run.name in there and _is_number(value := there[run.name].summary.get(c.test.name))
        ]
        yield ArmMeans(
            r.arm.name,
            r.mean.value if r.mean else math.nan,
            r.mean.n if r.mean else 0,
            math.fsum(values) / len(values) if values else math.nan,
            len(values),
        )


def _summary_differences(summary: Summary, theirs: RemoteRun | None) -> Iterator[Difference]:
    if theirs is None:
        yield Difference("missing", summary.run, "run", "summary", "")
        return
    for key, ours in summary.values.items():
        if not _same(ours, theirs.summary.get(key)):
            yield Difference("summary", summary.run, key, _write(ours), _write(theirs.summary.get(key)))


def _same(ours: Any, theirs: Any) -> bool:
    if ours is None:
        return True  # nothing of ours to compare
    if _is_number(ours) or _is_number(theirs) or isinstance(ours, float):
        a, b = _number(ours), _number(theirs)
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-300)
    return bool(ours == theirs)


def _number(value: Any) -> float:
    """Also of "nan" and "Infinity", as JSON spells numbers that it does not have; NaN for no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _write(value: Any) -> str:
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def counted(differences: Sequence[Difference]) -> dict[Kind, int]:
    """How many differences there are of each kind."""
    counts: dict[Kind, int] = {}
    for difference in differences:
        counts[difference.kind] = counts.get(difference.kind, 0) + 1
    return counts
