"""A run as one flat mapping: facts, the config's leaves and the summary, each under one name.

    state, name, sweep, arm, tags, host, commit, …    facts (`field_names.FACTS`)
    optim.lr, data.batch_size, …                      leaves of the config
    optim, model, data, …                             what a part of the config is: its target's name
    test/acc, train/loss, parameters, …               the summary

Values are plain: numbers, text, truth values, lists of them; what a run does not have is not there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from bbi_lightning.tracking.annotations import read_annotations
from bbi_lightning.tracking.config_file import read_config
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.run_record import RunRecord

_LABELS = ("sweep", "arm", "phase", "study", "trial", "replicate", "imported")


def run_fields(folder: RunFolder) -> dict[str, Any]:
    """Everything that is known of a run, except what changes by itself (its age, whether it is alive).

    A run whose files cannot be read is still a run: state "unreadable", and `problem` says what is wrong.
    """
    try:
        record = folder.record
    except (ValueError, OSError) as error:
        return {"name": folder.name, "state": "unreadable", "problem": str(error)}
    problems: list[str] = []
    fields: dict[str, Any] = {key: value for key, value in record.summary.items() if _is_plain(value)}
    params = record.labels.get("params")
    fields.update(params if isinstance(params, dict) else {})
    fields["seed"] = _seed(record)
    try:
        fields.update(config_fields(folder))
    except (ValueError, OSError) as error:
        problems.append(str(error))
    fields.update(record_facts(record), name=folder.name)
    try:
        said = read_annotations(folder.path)
        fields.update(tags=list(said.tags) or None, note=said.note or None)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    fields["problem"] = "; ".join(problems) or None
    return {key: value for key, value in fields.items() if value is not None}


def record_facts(record: RunRecord) -> dict[str, Any]:
    """The facts that `run.json` holds; None for those it does not have."""
    last = record.attempts[-1] if record.attempts else None
    facts: dict[str, Any] = {
        "state": record.state,
        "created": record.created,
        "attempts": len(record.attempts),
        "duration": duration(record),
    }
    for label in _LABELS:
        value = record.labels.get(label)
        facts[label] = value if _is_plain(value) else None if value is None else str(value)
    if last is not None:
        facts |= {
            "host": last.host,
            "commit": last.commit,
            "dirty": last.dirty,
            "started": last.started,
            "ended": last.ended,
            "reason": last.reason,
            "gpu": ", ".join(map(str, last.hardware.get("gpus") or ())) or None,
        }
    return facts


def duration(record: RunRecord) -> float | None:
    """Seconds of all attempts that have ended together; else what the summary says; None without either."""
    spans = [
        span
        for attempt in record.attempts
        if attempt.ended and (span := seconds_between(attempt.started, attempt.ended)) is not None
    ]
    if spans:
        return sum(spans)
    said = record.summary.get("wall_s")
    return float(said) if isinstance(said, (int, float)) else None


def seconds_between(start: str, end: str) -> float | None:
    """Seconds between two times in ISO 8601; None where one is none, or a clock went back."""
    try:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None
    return seconds if seconds >= 0 else None


def config_fields(folder: RunFolder) -> dict[str, Any]:
    """The leaves of a run's config; where it has none, what its command line said.

    Raises:
        ValueError: config.yaml or run.json is damaged.
    """
    config = read_config(folder.config_file)
    return dict(leaves(config)) if config else dict(map(_said, folder.record.overrides))


def _said(override: str) -> tuple[str, Any]:
    """ "optim.lr=0.1" as key and value; a number is a number."""
    key, _, text = override.lstrip("+~").partition("=")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return key, kind(text)
    return key, {"true": True, "false": False}.get(text.lower(), text)


def leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a part with a `_target_` or a name also under its own key."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if isinstance(value.get("_target_"), str):
                yield name, target_name(value["_target_"])
            elif isinstance(value.get("name"), str):  # an imported run's
                yield name, value["name"].lower()
            yield from leaves(value, f"{name}.")
        elif key != "_partial_":
            yield name, value if _is_plain(value) or value is None else str(value)


def target_name(target: str) -> str:
    """As in a run's name: the class's or function's name in lower case, without "DataModule"."""
    return target.rpartition(".")[2].removesuffix("DataModule").lower()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(element) for element in value)
    return isinstance(value, (bool, int, float, str))


def _seed(record: RunRecord) -> int | None:
    """The seed that the run's name ends with."""
    match = re.search(r"-s(\d+)$", record.name)
    return int(match[1]) if match else None
