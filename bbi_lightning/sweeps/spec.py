"""What a sweep is: arms with their own search spaces, equal budgets, one objective, fresh-seed replicates.

    name: digits
    base: [model=cnn, data=digits]            # overrides common to all runs
    objective: {metric: val/acc, direction: maximize, tie_breaker: {metric: val/loss, direction: minimize}}
    search: {sampler: halton, trials: 16, seed: 0, studies: 1, pruner: null}
    replicates: {count: 10, first_seed: 1000}
    workers: 2                                # runs at a time, on this machine
    lock: auto                                # of the shared folder: flock, symlink (see `journal`), auto
    task: train                               # or package.module:NAME, a Task of your own
    arms:
      sgd:
        label: SGD
        overrides: [optim=sgd]
        space: {optim.lr: {low: 0.01, high: 1.0, log: true}}

Every arm gets `search.trials` runs with the seed `search.seed`; the best of them by the objective is then run
`replicates.count` times with the seeds first_seed, first_seed + 1, … — the same seeds in every arm, so that
arms can be compared pair by pair. With `search.studies: k` every arm is searched k times, each time with
points and with a seed of its own (search.seed, search.seed + 1, …), and each search's best is replicated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bbi_lightning.sweeps.conditions import check_conditions, count_levels, count_points
from bbi_lightning.sweeps.pruners import Pruner, parse_pruner
from bbi_lightning.sweeps.section import Section, SweepError, did_you_mean, shown
from bbi_lightning.sweeps.spaces import CategoricalSpace, Space, parse_space

FORMAT = 1
ADAPTIVE = ("tpe", "gp", "cmaes")
"""Samplers that learn: a trial's point is chosen when it starts, from the results there are."""

SAMPLERS = ("halton", "sobol", "random", "grid", *ADAPTIVE)
DIRECTIONS = ("maximize", "minimize")

LockKind = Literal["auto", "flock", "symlink"]
LOCKS: tuple[LockKind, ...] = get_args(LockKind)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_METRIC = re.compile(r"[a-z][a-z0-9_]*/[A-Za-z0-9_]+")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_OWN_KEYS = ("seed", "runtime", "tracking")  # set by the sweep, or never part of a run's identity


@dataclass(frozen=True)
class Goal:
    """A metric of the run's summary and which way is better.

    Attributes:
        metric: a name such as val/acc; the value after the last epoch counts, never the best epoch's.
        direction: maximize or minimize.
    """

    metric: str
    direction: str

    @property
    def sign(self) -> float:
        """+1 or −1: sign · value is to be made large."""
        return 1.0 if self.direction == "maximize" else -1.0


@dataclass(frozen=True)
class Objective(Goal):
    """What the search selects by.

    Attributes:
        tie_breaker: decides between equal values of the metric; None: the earlier trial wins.
    """

    tie_breaker: Goal | None = None


@dataclass(frozen=True)
class Search:
    """How each arm's space is searched.

    Attributes:
        sampler: halton or sobol (quasi-random, scrambled), random, grid; or one that learns from results:
            tpe, gp (a Gaussian process), cmaes.
        trials: runs per arm and study, the same for every arm.
        seed: seeds the points, and is the `seed` of every run of the first study; the next has the next seed.
        studies: independent searches of every arm.
        pruner: stops hopeless trials early; None: every trial is run to its end.
    """

    sampler: str
    trials: int
    seed: int
    studies: int = 1
    pruner: Pruner | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether points depend on results."""
        return self.sampler in ADAPTIVE

    def plain(self) -> dict[str, Any]:
        """As it is written in a description."""
        return vars(self) | {"pruner": self.pruner.plain() if self.pruner else None}


@dataclass(frozen=True)
class Replicates:
    """How often the best of an arm is run again.

    Attributes:
        count: runs per arm; 0: none.
        first_seed: their seeds are first_seed … first_seed + count − 1.
    """

    count: int
    first_seed: int


@dataclass(frozen=True)
class Arm:
    """One contender: an optimizer, usually, with the space of its own hyperparameters.

    Attributes:
        name: how it is called in files and on the command line.
        label: how it is called in tables and figures.
        overrides: what makes a run one of this arm's.
        space: config key to its space, in the order of the description.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    space: Mapping[str, Space]


@dataclass(frozen=True)
class SweepSpec:
    """A whole description, checked. Attributes: see the head of this file."""

    name: str
    title: str
    base: tuple[str, ...]
    objective: Objective
    search: Search
    replicates: Replicates
    workers: int
    lock: LockKind
    task: str
    arms: tuple[Arm, ...]

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def plain(self) -> dict[str, Any]:
        """The description as plain values: what `sweep.yaml` holds, and `parse_spec` reads."""
        goal, tie = self.objective, self.objective.tie_breaker
        return {
            "format": FORMAT,
            "name": self.name,
            "title": self.title,
            "base": list(self.base),
            "objective": {
                "metric": goal.metric,
                "direction": goal.direction,
                "tie_breaker": {"metric": tie.metric, "direction": tie.direction} if tie else None,
            },
            "search": self.search.plain(),
            "replicates": vars(self.replicates).copy(),
            "workers": self.workers,
            "lock": self.lock,
            "task": self.task,
            "arms": {
                arm.name: {
                    "label": arm.label,
                    "overrides": list(arm.overrides),
                    "space": {key: space.plain() for key, space in arm.space.items()},
                }
                for arm in self.arms
            },
        }


def parse_spec(data: Mapping[str, Any]) -> SweepSpec:
    """Check a description and give it types.

    Raises:
        SweepError: one sentence that names the key, its value and the remedy.
    """
    keys = [
        "format",
        "name",
        "title",
        "base",
        "objective",
        "search",
        "replicates",
        "workers",
        "lock",
        "task",
        "arms",
    ]
    section = Section("", data, keys)
    if section.whole("format", FORMAT, at_least=1) > FORMAT:
        raise SweepError(f"format={data['format']} is newer than this program: update bbi_lightning")
    name = _name("name", section.text("name"))
    spec = SweepSpec(
        name=name,
        title=section.text("title", default=name),
        base=section.texts("base"),
        objective=_objective(
            Section("objective", section.get("objective"), ["metric", "direction", "tie_breaker"])
        ),
        search=_search(section.get("search")),
        replicates=_replicates(
            Section("replicates", data.get("replicates") or {"count": 0}, ["count", "first_seed"])
        ),
        workers=section.whole("workers", 1, at_least=1),
        lock=section.one_of("lock", LOCKS, default="auto"),  # type: ignore[arg-type]
        task=section.text("task", default="train"),
        arms=_arms(section.get("arms")),
    )
    _check_seeds(spec)
    for arm in spec.arms:
        _check_budget(spec.search, arm)
    return spec


def check_metrics(spec: SweepSpec, known: Sequence[str]) -> None:
    """Raises SweepError when the objective names a metric that no run of this task reports."""
    goals = {"objective.metric": spec.objective, "objective.tie_breaker.metric": spec.objective.tie_breaker}
    for key, goal in goals.items():
        if goal and known and goal.metric not in known:
            raise SweepError(
                f"{key}={goal.metric} is not reported by a run: {did_you_mean(goal.metric, known)}"
            )


def _objective(section: Section) -> Objective:
    tie = None
    if section.has("tie_breaker"):
        tie = _goal(Section("objective.tie_breaker", section.get("tie_breaker"), ["metric", "direction"]))
    goal = _goal(section)
    return Objective(goal.metric, goal.direction, tie)


def _goal(section: Section) -> Goal:
    key, metric = section.name("metric"), section.text("metric")
    if not _METRIC.fullmatch(metric):
        raise SweepError(f"{key}={metric} is not a metric's name: write it as val/acc")
    if metric.startswith("test/"):
        raise SweepError(f"{key}={metric} would select on test data: use {metric.replace('test/', 'val/')}")
    return Goal(metric, section.one_of("direction", DIRECTIONS))


def _search(data: Any) -> Search:
    section = Section("search", data, ["sampler", "trials", "seed", "studies", "pruner"])
    return Search(
        sampler=section.one_of("sampler", SAMPLERS, default="halton"),
        trials=section.whole("trials", at_least=1),
        seed=section.whole("seed", 0, at_least=0),
        studies=section.whole("studies", 1, at_least=1),
        pruner=parse_pruner("search.pruner", section.get("pruner")) if section.has("pruner") else None,
    )


def _replicates(section: Section) -> Replicates:
    return Replicates(section.whole("count", at_least=0), section.whole("first_seed", 1000, at_least=0))


def _arms(data: Any) -> tuple[Arm, ...]:
    if not isinstance(data, Mapping) or not data:
        raise SweepError(f"arms={shown(data)} must be a mapping with at least one arm, such as sgd: {{…}}")
    return tuple(_arm(_name("an arm's name", str(name)), value) for name, value in data.items())


def _arm(name: str, data: Any) -> Arm:
    section = Section(f"arms.{name}", data, ["label", "overrides", "space"])
    where = section.name("space")
    space = {
        key: parse_space(f"{where}.{key}", value) for key, value in _flat(where, section.get("space")).items()
    }
    if not space:
        raise SweepError(f"{where} is empty: give the keys to search, such as optim.lr")
    overrides = section.texts("overrides")
    for key in space:
        if not _KEY.fullmatch(key):
            raise SweepError(f"{where}: {key} is not a config key: write it as optim.lr")
        if key.split(".")[0] in _OWN_KEYS:
            raise SweepError(f"{where}: {key} cannot be searched, the sweep sets it: drop it")
        if any(override.lstrip("+").split("=")[0] == key for override in overrides):
            raise SweepError(f"arms.{name}: {key} is both searched and in overrides: drop one of them")
    check_conditions(where, space)
    return Arm(name, section.text("label", default=name), overrides, space)


def _flat(where: str, data: Any) -> dict[str, Any]:
    """Dotted keys to spaces. ``optim: {lr: {…}}`` is ``optim.lr: {…}``, and a command line can reach it."""
    if not isinstance(data, Mapping):
        raise SweepError(f"{where}={shown(data)} must be a mapping of config keys to spaces")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping) and value and all(isinstance(v, Mapping) for v in value.values())
        inner = _flat(f"{where}.{key}", value) if nested else {"": value}
        for rest, space in inner.items():
            full = f"{key}.{rest}" if rest else str(key)
            if full in flat:
                raise SweepError(f"{where}: {full} is given twice: drop one of them")
            flat[full] = space
    return flat


def _name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise SweepError(f"{what}={shown(value)} must be letters, digits, '-', '_' or '.': it names a file")
    return value


def _check_seeds(spec: SweepSpec) -> None:
    first, count = spec.replicates.first_seed, spec.replicates.count
    seed, last = spec.search.seed, spec.search.seed + spec.search.studies - 1
    if not count or last < first or seed >= first + count:
        return
    seeds = f"own seed {seed}" if seed == last else f"own seeds {seed} to {last}"
    raise SweepError(
        f"replicates.first_seed={first} makes the search's {seeds} a replicate: "
        f"a replicate needs a fresh seed, use first_seed={last + 1} or more"
    )


def _check_budget(search: Search, arm: Arm) -> None:
    """A finite space must have as many points as there are trials; a grid exactly as many."""
    where = f"arms.{arm.name}.space"
    if search.sampler == "grid":
        for key, space in arm.space.items():
            if space.size is None and space.plain().get("points") is None:
                raise SweepError(f"{where}.{key} has no levels for sampler=grid: add points: 4")
        size = count_levels(arm.space)
        if size != search.trials:
            raise SweepError(
                f"search.trials={search.trials}, but the grid of {where} has {size} points: make them equal"
            )
        return
    for key, space in arm.space.items() if search.sampler == "cmaes" else ():
        if isinstance(space, CategoricalSpace) or space.when:
            what = "is conditional" if space.when else "is a list of choices"
            raise SweepError(f"{where}.{key} {what}, which sampler=cmaes cannot search: use sampler=tpe")
    points = count_points(arm.space)
    if points is not None and points < search.trials:
        raise SweepError(
            f"search.trials={search.trials}, but {where} has only {points} different points: "
            f"use at most {points} trials or widen the space"
        )
