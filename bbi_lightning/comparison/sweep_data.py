"""A sweep folder as typed tables: its arms, the trials of their searches, the replicates of their best.

    <sweep>/sweep.yaml                            what was planned
    <sweep>/runs/<run>/{run.json, metrics.jsonl}  what happened

Reads nothing else. A half-finished sweep is a sweep: what is missing can be counted, what cannot be read is
listed in `Sweep.problems` and left out. `run.json` is read at once, a metric log when a curve is asked for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bbi_lightning.comparison.statistics import Direction
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.run_record import RunRecord

_PHASES = ("search", "replicate", "added")
_EDGE = 0.05  # of an axis's length: a best value so close to an end may continue beyond it


@dataclass(frozen=True)
class Objective:
    """What the search selects by, on validation data: a metric, and another that breaks ties (or None)."""

    metric: str
    direction: Direction
    tie_metric: str | None = None
    tie_direction: Direction = "minimize"


@dataclass(frozen=True)
class Axis:
    """One searched parameter: an interval [low, high], uniform or log-uniform, or a list of choices."""

    key: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    choices: tuple[Any, ...] = ()

    def at_edge(self, value: Any) -> bool:
        """Whether `value` lies in the outer 5 % of the interval (on the axis's own scale) at either end."""
        if self.choices or not isinstance(value, (int, float)) or not self.high > self.low:
            return False
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return not _EDGE <= (x - low) / (high - low) <= 1 - _EDGE


@dataclass(frozen=True)
class Arm:
    """One contestant: a name, a label to print, the overrides that make it and the space it searches."""

    name: str
    label: str
    overrides: tuple[str, ...]
    space: tuple[Axis, ...]


@dataclass(frozen=True)
class Plan:
    """How many runs an arm was to have: `trials` of each of its `studies`, `replicates` of each's best."""

    trials: int
    replicates: int
    studies: int = 1


@dataclass(frozen=True)
class Curve:
    """The logged values of one metric, in the order written: arrays of one length.

    `step` counts optimizer steps, `epoch` completed epochs, `time` seconds of training.
    """

    step: NDArray[np.int64]
    epoch: NDArray[np.int64]
    time: NDArray[np.float64]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One trained network: a trial of the search or a replicate.

    Attributes:
        arm: the arm's name.
        phase: "search", "replicate" or "added" (by hand; never selected, so that budgets stay equal).
        study: which of the arm's independent searches.
        number: of the trial in its arm's search, or of the replicate.
        seed: of the run; None when it cannot be told.
        params: the searched parameters' values.
        record: all of run.json.
        folder: the run's folder.
    """

    arm: str
    phase: str
    number: int
    seed: int | None
    params: Mapping[str, Any]
    record: RunRecord = field(repr=False)
    folder: Path
    study: int = 0

    @property
    def name(self) -> str:
        """The run's name, its folder's."""
        return self.folder.name

    @property
    def state(self) -> str:
        """running, finished, diverged, pruned, failed or interrupted."""
        return self.record.state

    @property
    def imported(self) -> str | None:
        """Where the run comes from if it was not made here ("W&B export", …), else None."""
        origin = self.record.labels.get("imported")
        return str(origin) if origin else None

    def final(self, metric: str) -> float:
        """The summary's value of a metric; NaN unless the run finished and has it."""
        value = self.record.summary.get(metric) if self.state == "finished" else None
        return float(value) if isinstance(value, (int, float)) else math.nan

    @property
    def log_damage(self) -> str | None:
        """A sentence when the metric log cannot be read; its curves are then empty."""
        return self._log[1]

    def curve(self, metric: str) -> Curve:
        """A metric's curve; empty when it was never logged, never a number, or the log is damaged."""
        rows = [row for row in self._log[0] if isinstance(row.get(metric), (int, float))]
        return Curve(
            step=np.array([row["step"] for row in rows], dtype=np.int64),
            epoch=np.array([row.get("epoch") or 0 for row in rows], dtype=np.int64),
            time=np.array([row.get("time") for row in rows], dtype=np.float64),  # None becomes NaN
            value=np.array([row[metric] for row in rows], dtype=np.float64),
        )

    @cached_property
    def _log(self) -> tuple[list[dict[str, Any]], str | None]:
        try:
            return read_metrics(RunFolder(self.folder).metrics_file), None
        except (ValueError, OSError) as error:
            return [], str(error)


@dataclass(frozen=True)
class Sweep:
    """A sweep: the plan, and the runs found so far in order of arm, phase and number.

    `problems` has one sentence for everything that could not be read or does not belong. `plans` has the
    arms whose plan is not the sweep's own: those that came from another sweep.
    """

    folder: Path
    name: str
    title: str
    base: tuple[str, ...]
    objective: Objective
    sampler: str
    planned_trials: int  # of each study
    planned_replicates: int  # of each study's best
    arms: tuple[Arm, ...]
    runs: tuple[Run, ...] = field(repr=False)
    problems: tuple[str, ...] = ()
    studies: int = 1
    plans: Mapping[str, Plan] = field(default_factory=dict, repr=False)

    def plan(self, arm: str) -> Plan:
        """How many runs the arm was to have."""
        own = Plan(self.planned_trials, self.planned_replicates, self.studies)
        return self.plans.get(arm, own)

    def trials(self, arm: str) -> tuple[Run, ...]:
        """The arm's search."""
        return self._select(arm, "search")

    def replicates(self, arm: str) -> tuple[Run, ...]:
        """The arm's replicates, whatever parameters they were trained with."""
        return self._select(arm, "replicate")

    def arm(self, name: str) -> Arm:
        """The arm of that name. Raises ValueError naming those there are."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(
            f"{name!r} is no arm of sweep {self.name}: use one of {', '.join(a.name for a in self.arms)}"
        )

    def _select(self, arm: str, phase: str) -> tuple[Run, ...]:
        return self._by_group.get((arm, phase), ())

    @cached_property
    def _by_group(self) -> dict[tuple[str, str], tuple[Run, ...]]:
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            groups.setdefault((run.arm, run.phase), []).append(run)
        return {key: tuple(runs) for key, runs in groups.items()}


def read_sweep(folder: str | Path) -> Sweep:
    """Read a sweep's folder.

    Raises:
        FileNotFoundError: the folder has no sweep.yaml.
        ValueError: sweep.yaml is not a sweep's specification; one sentence with the key and the remedy.
    """
    folder = Path(folder)
    spec_file = folder / "sweep.yaml"
    if not spec_file.is_file():
        raise FileNotFoundError(
            f"{folder} is not a sweep (it has no sweep.yaml): give a sweep's folder or name"
        )
    try:
        spec = _load_yaml(spec_file)
        arms = told_apart([_read_arm(name, arm) for name, arm in _need(spec, "arms", Mapping).items()])
        objective = _read_objective(_need(spec, "objective", Mapping))
        search, replicates = _need(spec, "search", Mapping), _need(spec, "replicates", Mapping)
        planned_trials, planned_replicates = _need(search, "trials", int), _need(replicates, "count", int)
    except ValueError as error:
        raise ValueError(f"{spec_file} cannot be read ({error}): repair it or run the sweep again") from None

    runs, problems = _read_runs(folder / "runs", [arm.name for arm in arms])
    return Sweep(
        folder=folder,
        name=str(spec.get("name") or folder.resolve().name),
        title=str(spec.get("title") or spec.get("name") or folder.resolve().name),
        base=tuple(str(override) for override in spec.get("base") or ()),
        objective=objective,
        sampler=str(search.get("sampler", "unknown")),
        planned_trials=planned_trials,
        planned_replicates=planned_replicates,
        arms=arms,
        runs=runs,
        problems=problems,
        studies=int(search.get("studies") or 1),
        plans=_read_plans(spec["arms"]),
    )


def told_apart(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms; those that share a label are called after their names too."""
    counts = Counter(arm.label for arm in arms)
    return tuple(
        replace(arm, label=f"{arm.label} ({arm.name})") if counts[arm.label] > 1 else arm for arm in arms
    )


def _load_yaml(file: Path) -> Mapping[str, Any]:
    import yaml  # comes with omegaconf, whose reader this is: "1e-3" is a number to it, not to plain PyYAML
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        spec = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    if not isinstance(spec, dict):
        raise ValueError(f"a mapping is expected, not {type(spec).__name__}")
    return cast("Mapping[str, Any]", spec)


def _need(mapping: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(mapping.get(key), kind):
        raise ValueError(f"{key}={mapping.get(key)!r} should be a {kind.__name__.lower()}")
    return mapping[key]


def _read_objective(spec: Mapping[str, Any]) -> Objective:
    tie = spec.get("tie_breaker") or {}
    for direction in (spec.get("direction"), tie.get("direction", "minimize")):
        if direction not in ("maximize", "minimize"):
            raise ValueError(f"direction={direction!r} should be maximize or minimize")
    return Objective(
        metric=_need(spec, "metric", str),
        direction=spec["direction"],
        tie_metric=tie.get("metric"),
        tie_direction=tie.get("direction", "minimize"),
    )


def _read_arm(name: str, spec: Any) -> Arm:
    if not isinstance(spec, Mapping):
        raise ValueError(f"arms.{name}={spec!r} should be a mapping")
    return Arm(
        name=str(name),
        label=str(spec.get("label") or name),
        overrides=tuple(str(override) for override in spec.get("overrides") or ()),
        space=tuple(
            _read_axis(f"arms.{name}.space", key, axis) for key, axis in (spec.get("space") or {}).items()
        ),
    )


def _read_plans(arms: Mapping[str, Any]) -> dict[str, Plan]:
    """What imported arms have, each for itself: nothing more is to be expected of them."""
    said = {str(name): arm["plan"] for name, arm in arms.items() if isinstance(arm.get("plan"), Mapping)}
    return {name: Plan(_need(p, "trials", int), _need(p, "replicates", int)) for name, p in said.items()}


def _read_axis(where: str, key: str, spec: Any) -> Axis:
    if isinstance(spec, Mapping) and "choices" in spec:
        return Axis(str(key), choices=tuple(spec["choices"]))
    if isinstance(spec, Mapping) and all(isinstance(spec.get(end), (int, float)) for end in ("low", "high")):
        return Axis(
            str(key), low=float(spec["low"]), high=float(spec["high"]), log=bool(spec.get("log", False))
        )
    raise ValueError(f"{where}.{key}={spec!r} should have low and high, or choices")


def _read_runs(root: Path, arms: Sequence[str]) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    runs: list[Run] = []
    problems: list[str] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not (folder / "run.json").is_file():
            continue  # a folder that is just being made, or none of a run
        try:
            run = _read_run(folder)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if run is None:
            problems.append(f"{folder} carries no labels of a sweep and is left out: it was started by hand")
        elif run.arm not in arms:
            problems.append(
                f"{folder} belongs to arm {run.arm!r}, which sweep.yaml does not have: it is left out"
            )
        else:
            runs.append(run)
    order = {name: position for position, name in enumerate(arms)}
    runs.sort(key=lambda run: (order[run.arm], run.phase != "search", run.study, run.number, run.name))
    return tuple(runs), tuple(problems)


def _read_run(folder: Path) -> Run | None:
    """The run, or None when its labels are not those of a sweep."""
    record = RunFolder(folder).record
    labels = record.labels
    if not isinstance(labels.get("arm"), str) or labels.get("phase") not in _PHASES:
        return None
    # a replicate's "trial" is the search trial that it repeats
    number, params = labels.get("replicate", labels.get("trial")), labels.get("params")
    number = labels.get("trial") if number is None else number
    return Run(
        arm=labels["arm"],
        phase=labels["phase"],
        number=number if isinstance(number, int) else 0,
        seed=_seed(record),
        params=params if isinstance(params, dict) else {},
        record=record,
        folder=folder,
        study=study if isinstance(study := labels.get("study", 0), int) else 0,
    )


def _seed(record: RunRecord) -> int | None:
    """The run's seed, which its name ends with (`…-s1003`)."""
    match = re.search(r"-s(\d+)$", record.name)
    return int(match[1]) if match else None
