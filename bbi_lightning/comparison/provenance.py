"""Where the numbers come from: the configurations of the arms beside each other, code, hardware, software."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.sweep_data import Arm, Run
from bbi_lightning.comparison.verdict import code_version, count, hardware
from bbi_lightning.tracking.config_file import config_if_readable
from bbi_lightning.tracking.run_folder import RunFolder

# what a run's numbers do not depend on, or what differs from run to run by design
_NOT_COMPARED = ("runtime", "tracking", "checkpoint", "cluster", "seed", "hydra")
_ABSENT = "–"

Leaves = dict[str, str]


@dataclass(frozen=True)
class Configurations:
    """The arms' configurations beside each other.

    Attributes:
        labels: of the arms.
        different: for every key that differs: the key, for each arm its value and whether it was searched,
            and whether the difference is unexpected, neither searched nor of the optimizer.
        common: key and value of those that do not.
    """

    labels: tuple[str, ...]
    different: tuple[tuple[str, tuple[tuple[str, bool], ...], bool], ...]
    common: tuple[tuple[str, str], ...]


def configurations(c: Comparison) -> Configurations:
    """The configuration of every arm's best trial (or any run of the arm, where none finished)."""
    chosen = [(r, _typical_run(r)) for r in c.results]
    known = [(r, _leaves(run)) for r, run in chosen if run is not None]
    searched = [{axis.key for axis in r.arm.space} for r, _ in known]
    foreign = [run.imported is not None for _, run in chosen if run is not None]
    different: list[tuple[str, tuple[tuple[str, bool], ...], bool]] = []
    common: list[tuple[str, str]] = []
    for key in dict.fromkeys(key for _, leaves in known for key in leaves):
        values = tuple(leaves.get(key, _ABSENT) for _, leaves in known)
        if len(set(values)) > 1:
            cells = tuple((value, key in own) for value, own in zip(values, searched, strict=True))
            # what an imported run does not say is not known to differ
            said = {v for v, f in zip(values, foreign, strict=True) if not (f and v == _ABSENT)}
            odd = key.split(".", 1)[0] != "optim" and not any(own for _, own in cells) and len(said) > 1
            different.append((key, cells, odd))
        else:
            common.append((key, values[0]))
    return Configurations(tuple(r.arm.label for r, _ in known), tuple(different), tuple(common))


def _typical_run(r: ArmResult) -> Run | None:
    return r.best or next(iter((*r.replicates, *r.trials)), None)


def _leaves(run: Run) -> Leaves:
    """The run's resolved configuration by dotted key; its overrides where there is no config.yaml."""
    config = config_if_readable(RunFolder(run.folder).config_file)
    leaves = dict(_flat(config)) if config else _overrides(run)
    return {key: value for key, value in leaves.items() if key.split(".", 1)[0] not in _NOT_COMPARED}


def _flat(node: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, _written(value)


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_written(item) for item in value)}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _overrides(run: Run) -> Leaves:
    pairs = (str(override).lstrip("+~").partition("=") for override in run.record.overrides)
    return {key: _tidy(value) for key, _, value in pairs}


def _tidy(text: str) -> str:
    """A number as a configuration has it; anything else as it stands."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.6g}"
    except ValueError:
        return text


def oddities(arm: Arm, runs: Sequence[Run]) -> dict[Path, str]:
    """For each run of an arm that was not trained as most of them: the run's folder, and what is different.

    Searched keys, seeds and how a run is executed are left out: those differ by design.
    """
    by_design = {axis.key for axis in arm.space} | {key for run in runs for key in run.params}
    own = {run.folder: _overrides(run) for run in runs}
    keys = dict.fromkeys(
        key
        for overrides in own.values()
        for key in overrides
        if key not in by_design and key.split(".", 1)[0] not in _NOT_COMPARED
    )
    usual = {
        key: Counter(overrides.get(key, _ABSENT) for overrides in own.values()).most_common(1)[0][0]
        for key in keys
    }
    odd: dict[Path, str] = {}
    for folder, overrides in own.items():
        words = [
            f"{key} {value}, others {usual[key]}"
            for key in keys
            if (value := overrides.get(key, _ABSENT)) != usual[key]
        ]
        if words:
            odd[folder] = "; ".join(words)
    return odd


def provenance(c: Comparison) -> list[tuple[str, list[str]]]:
    """Task, selection, search, code, hardware, software and dates, each with its values."""
    runs = [run for run in c.sweep.runs if run.record.attempts]
    attempts = [run.record.attempts[-1] for run in runs]
    o = c.sweep.objective
    tie = f"; equal values by {o.tie_direction.removesuffix('e')}ing {o.tie_metric}" if o.tie_metric else ""
    software = Counter(", ".join(f"{name} {v}" for name, v in a.versions.items()) for a in attempts)
    imported = Counter(run.imported for run in c.sweep.runs if run.imported)
    facts = [
        ("Task", [" ".join(c.sweep.base) or "–"]),
        (
            "Selection",
            [
                f"{o.direction.removesuffix('e')}ing {o.metric}{tie}"
                + ("; how imported runs were selected is not known" if imported else "")
            ],
        ),
        ("Search", [f"{c.sweep.sampler}, {_planned(c)} an arm"]),
        ("Imported", [f"{n} runs from {origin}" for origin, n in imported.most_common()]),
        ("Code", _counted(Counter(code_version(run.record) for run in runs))),
        ("Hardware", _counted(Counter(hardware(run.record) for run in runs))),
        ("Software", _counted(software)),
    ]
    if attempts:
        first, last = min(a.started for a in attempts), max(a.ended or a.started for a in attempts)
        facts.append(("Trained", [f"{first[:16].replace('T', ' ')} to {last[:16].replace('T', ' ')} UTC"]))
    return [(name, values) for name, values in facts if values]


def _planned(c: Comparison) -> str:
    """ "16 trials", "16 to 24 trials"."""
    counts = {c.sweep.plan(arm.name).trials * c.sweep.plan(arm.name).studies for arm in c.sweep.arms}
    return f"{min(counts)} to {max(counts)} trials" if len(counts) > 1 else count(counts.pop(), "trial")


def _counted(counts: Counter[str]) -> list[str]:
    if len(counts) == 1:
        return list(counts)
    return [f"{text} ({n} runs)" for text, n in counts.most_common()]
