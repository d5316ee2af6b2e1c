"""Which runs repeat one setting, which settings are one arm's, and what the arms were judged by.

Of every setting the run with the lowest seed is a trial of the arm's search. The best trial, on validation
data, is the arm's choice, and the other seeds of its setting are its replicates; those of other settings
count as added by hand and decide nothing. An arm of a single setting has chosen nothing: all of its runs are
replicates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bbi_lightning.comparison.imports.foreign import ForeignDataError, ForeignRun, nearest
from bbi_lightning.comparison.imports.naming import NamedRuns
from bbi_lightning.comparison.statistics import Direction, rank_trials

_ARM_KEYS = ("arm", "optim._target_", "optim.name", "optimizer.name")
_SEED_KEYS = ("seed", "data.seed")
_OBJECTIVES: tuple[tuple[str, Direction], ...] = (("val/acc", "maximize"), ("val/loss", "minimize"))
_SPECIAL = ("name", "folder", "group")
_LOG_FROM = 10.0  # a positive range that spans more is logarithmic


@dataclass(frozen=True)
class Choices:
    """What the user says about settings.

    Attributes:
        arm: the config key that tells the arms apart, or "name" (of the run), "folder" (the first part of its
            name), "group" (W&B's); None: looked for.
        ignore: keys that say nothing, such as an output folder.
        objective: the validation metric to choose by; None: val/acc, else val/loss.
        direction: of the objective; None: as its name says.
        like: the description (sweep.yaml) of a sweep to stand beside: its objective, base, labels and spaces.
    """

    arm: str | None = None
    ignore: tuple[str, ...] = ()
    objective: str | None = None
    direction: Direction | None = None
    like: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Placed:
    """A run with its place: see the labels of a sweep's run."""

    run: ForeignRun
    arm: str
    phase: str
    trial: int
    replicate: int | None
    seed: int | None
    params: Mapping[str, Any]


@dataclass(frozen=True)
class PlacedArm:
    """An arm: its name in files, its label in tables, the space its trials lie in."""

    name: str
    label: str
    space: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class SortedRuns:
    """All runs in their places; notes say in sentences what was decided on the way."""

    arms: tuple[PlacedArm, ...]
    runs: tuple[Placed, ...]
    objective: Mapping[str, Any]
    base: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def sorted_into_arms(named: NamedRuns, choices: Choices | None = None) -> SortedRuns:
    """Give every run its arm, phase, number and searched parameters.

    Raises:
        ForeignDataError: arms or the objective cannot be told, or a named key does not exist.
    """
    choices = choices or Choices()
    runs = named.runs
    keys = {key for run in runs for key in run.config}
    ignored = tuple(named.names.get(key, key) for key in choices.ignore)
    for key in ignored:
        if key not in keys:
            raise ForeignDataError(f"--ignore {key}: no run has this setting; {nearest(key, keys)}")
    labelled = _names_of_runs(runs) - set(ignored)
    notes = [f"{key} is another text in every run: a name, not a setting" for key in sorted(labelled)]
    runs = tuple(_without(run, {*ignored, *labelled}) for run in runs)
    arm_key = _arm_key(runs, keys, None if choices.arm is None else named.names.get(choices.arm, choices.arm))
    seed_key = next((key for key in _SEED_KEYS if key in keys), None)
    objective = _objective(named, choices)
    like = (choices.like or {}).get("arms") or {}
    groups: dict[str, list[ForeignRun]] = {}
    labels: dict[str, str] = {}
    for run in runs:
        label = _arm_label(run, arm_key)
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", label.rsplit(".", 1)[-1].lower()).strip("_.-") or "imported"
        name = next((own for own in like if own.lower() == name), name)
        if labels.setdefault(name, label) != label:
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", label)
            labels[name] = label
        groups.setdefault(name, []).append(run)
    spent = {arm_key, seed_key}
    arms, placed = [], []
    for name, own in groups.items():
        theirs = like.get(name) or {}
        searched = _searched(own, spent, theirs.get("space"))
        arm = PlacedArm(
            name, str(theirs.get("label") or labels[name].rsplit(".", 1)[-1]), _space(own, searched, theirs)
        )
        arms.append(arm)
        placed += _place(own, name, searched, seed_key, objective)
    if seed_key is None:
        notes.append("no setting is a seed: runs of one setting cannot be paired (--map KEY=seed)")
    base = tuple(str(word) for word in (choices.like or {}).get("base") or ())
    return SortedRuns(tuple(arms), tuple(placed), objective, base, tuple(dict.fromkeys(notes)))


def _names_of_runs(runs: Sequence[ForeignRun]) -> set[str]:
    """Settings that are another text in every run, such as an output folder."""
    return {
        key
        for key in {key for run in runs for key in run.config}
        if len(runs) > 2
        and all(isinstance(run.config.get(key), str) for run in runs)
        and len({run.config[key] for run in runs}) == len(runs)
    }


def _without(run: ForeignRun, keys: set[str]) -> ForeignRun:
    """The run without settings that say nothing; they stay among its facts."""
    dropped = {key: value for key, value in run.config.items() if key in keys}
    if not dropped:
        return run
    config = {key: value for key, value in run.config.items() if key not in keys}
    return replace(run, config=config, facts={**run.facts, "ignored": dropped})


def _arm_key(runs: Sequence[ForeignRun], keys: Iterable[str], asked: str | None) -> str:
    if asked is not None:
        if asked not in (*keys, *_SPECIAL):
            raise ForeignDataError(f"--arm {asked}: no run has this setting; {nearest(asked, keys)}")
        return asked
    for key in _ARM_KEYS:
        if key in keys:
            return key
    tell = [key for key in sorted(keys) if 1 < len({str(run.config.get(key)) for run in runs}) <= 20]
    found = ", ".join(tell[:12]) if tell else "name, folder or group"
    raise ForeignDataError(f"nothing tells the arms apart: add --arm KEY, one of {found}")


def _arm_label(run: ForeignRun, key: str) -> str:
    if key in run.config:
        value: Any = run.config[key]
    else:
        value = {
            "name": run.name,
            "folder": run.name.partition("/")[0],
            "group": run.facts.get("group"),
        }.get(key)
    if value in (None, ""):
        raise ForeignDataError(
            f"run {run.name} has no {key}, which is to tell its arm: choose another --arm KEY"
        )
    return str(value)


def _objective(named: NamedRuns, choices: Choices) -> dict[str, Any]:
    metrics = named.metrics
    if choices.like is not None and choices.objective is None:
        found = dict(choices.like["objective"])
        if found.get("metric") not in metrics:
            raise ForeignDataError(
                f"the other sweep chooses by {found.get('metric')}, which no run has: "
                f"add --map NAME={found.get('metric')}; "
                f"{nearest(str(found.get('metric')), metrics)}"
            )
        return {key: value for key, value in found.items() if value is not None}
    if choices.objective is None:
        for metric, direction in _OBJECTIVES:
            if metric in metrics:
                tie = {"metric": "val/loss", "direction": "minimize"}
                more = {"tie_breaker": tie} if metric != "val/loss" and "val/loss" in metrics else {}
                return {"metric": metric, "direction": choices.direction or direction, **more}
        raise ForeignDataError(
            "no run has val/acc or val/loss to choose by: add --map NAME=val/loss, or --objective NAME; "
            f"{nearest('val/loss', metrics)}"
        )
    if choices.objective not in metrics:
        raise ForeignDataError(
            f"--objective {choices.objective}: no run has it; {nearest(choices.objective, metrics)}"
        )
    if choices.objective.startswith("test/"):
        raise ForeignDataError(
            f"--objective {choices.objective} would choose on test data: use a validation metric"
        )
    if choices.direction is None and not re.search(
        r"(acc|accuracy|loss|error|nll|perplexity)$", choices.objective
    ):
        raise ForeignDataError(
            f"--objective {choices.objective} may be good large or small: "
            f"write {choices.objective}:maximize or {choices.objective}:minimize"
        )
    is_share = choices.objective.endswith(("acc", "accuracy"))
    return {
        "metric": choices.objective,
        "direction": choices.direction or ("maximize" if is_share else "minimize"),
    }


def _searched(
    runs: Sequence[ForeignRun],
    spent: set[str | None],
    like: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    """The keys that tell one setting of an arm from another."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config if key not in spent))
    if like:
        return tuple(key for key in keys if key in like)
    varying = []
    for key in keys:
        if len({json.dumps(run.config.get(key), default=str) for run in runs}) > 1:
            varying.append(key)
    return tuple(varying)


def _space(
    runs: Sequence[ForeignRun], searched: Sequence[str], like: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """The smallest space that holds the trials, or the other sweep's."""
    space: dict[str, Mapping[str, Any]] = {}
    for key in searched:
        values = [run.config[key] for run in runs if key in run.config]
        numeric = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        low, high = (min(numeric), max(numeric)) if numeric else (math.nan, math.nan)
        if key in (like.get("space") or {}):
            space[key] = like["space"][key]
        elif len(numeric) == len(values) and low < high:
            space[key] = {"low": low, "high": high, "log": bool(low > 0 and high / low >= _LOG_FROM)}
        else:
            space[key] = {"choices": sorted({_plain(value) for value in values}, key=str)}
    return space


def _plain(value: Any) -> Any:
    return (
        value
        if isinstance(value, (str, int, float, bool)) or value is None
        else json.dumps(value, default=str)
    )


def _place(
    runs: Sequence[ForeignRun],
    arm: str,
    searched: Sequence[str],
    seed_key: str | None,
    objective: Mapping[str, Any],
) -> list[Placed]:
    """The runs of one arm in their places."""
    settings: dict[str, list[ForeignRun]] = {}
    for run in sorted(
        runs, key=lambda run: (_seed_of(run, seed_key) is None, _seed_of(run, seed_key) or 0, run.key)
    ):
        point = json.dumps([_plain(run.config.get(key)) for key in searched], default=str)
        settings.setdefault(point, []).append(run)
    groups = sorted(settings.values(), key=lambda group: (group[0].created or "", group[0].key))

    def at(run: ForeignRun, phase: str, trial: int, replicate: int | None) -> Placed:
        params = {key: _plain(run.config[key]) for key in searched if key in run.config}
        return Placed(run, arm, phase, trial, replicate, _seed_of(run, seed_key), params)

    if len(groups) == 1:
        return [at(run, "replicate", 0, number) for number, run in enumerate(groups[0])]
    tie = objective.get("tie_breaker") or {}
    ranking = rank_trials(
        [_final(group[0], objective["metric"]) for group in groups],
        objective["direction"],
        [_final(group[0], tie["metric"]) for group in groups] if tie else None,
        tie.get("direction", "minimize"),
    )
    best = ranking[0] if ranking else -1
    placed = []
    for trial, group in enumerate(groups):
        placed.append(at(group[0], "search", trial, None))
        phase = "replicate" if trial == best else "added"
        placed += [at(run, phase, trial, number) for number, run in enumerate(group[1:])]
    return placed


def _final(run: ForeignRun, metric: str) -> float:
    return float(run.summary.get(metric, math.nan)) if run.state == "finished" else math.nan


def _seed_of(run: ForeignRun, key: str | None) -> int | None:
    value = run.config.get(key) if key else None
    return int(value) if isinstance(value, (int, float)) and value == int(value) and value >= 0 else None
