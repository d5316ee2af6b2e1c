"""What `run.json` holds: a run's state, labels and summary, and the attempts it took.

Frozen values with `from_json` and `to_json`. A key this program does not know (a later version wrote it) is
carried along in `extra` and written back; a later *format* is refused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from bbi_lightning.tracking.metric_log import decode_number, encode_number

FORMAT = 1
STATES = ("running", "finished", "diverged", "pruned", "failed", "interrupted")
"""`running`: an attempt is under way, or its process was killed (then nobody holds the run's lock).
`finished`, `diverged` (the loss stayed non-finite) and `pruned` (a sweep stopped it early, for it had fallen
behind) are results. `failed` (an error) and `interrupted`
(asked to stop, or not begun yet) go on when started again."""

_RESULTS = ("finished", "diverged", "pruned")

_Record = TypeVar("_Record", "RunRecord", "Attempt")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One process's work on a run, from its start to whatever ended it.

    Attributes:
        number: 1 for the first.
        host, pid: where it ran.
        commit, dirty, diff_sha256: the code (see `environment.CodeFacts`).
        started, ended: UTC, ISO 8601; `ended` is None while it runs and after a kill.
        reason: why it ended; "lost" when its process vanished without a word; None while it runs.
        exception: the last lines of the traceback, None without one.
        from_step: optimizer steps already taken when it began (0: from scratch).
        hardware, versions: see `environment.hardware_facts` and `environment.version_facts`.
        extra: keys of a later version of this program, kept as they are.
    """

    number: int
    host: str
    pid: int
    commit: str | None
    dirty: bool
    diff_sha256: str | None
    started: str
    ended: str | None = None
    reason: str | None = None
    exception: str | None = None
    from_step: int = 0
    hardware: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: Any) -> Attempt:
        """Build from parsed JSON. Raises ValueError naming the key that is missing or wrong."""
        return cls(**_checked(cls, data))

    def to_json(self) -> dict[str, Any]:
        """The attempt as plain JSON values."""
        return _flat(self)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of `run.json`.

    Attributes:
        name: the folder's name when the run was created.
        state: one of `STATES`.
        created: UTC, ISO 8601.
        labels: what a sweep knows the run by, plain JSON.
        overrides: the command line that made the config.
        summary: metric name to its last value, plus whatever training adds (parameters, steps, wall_s).
        attempts: in order, oldest first.
        origin: what the run began from, {"run", "step", "take"}; empty if from nothing.
        format: version of this layout.
        extra: keys of a later version of this program, kept as they are.
    """

    name: str
    state: str
    created: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: Any) -> RunRecord:
        """Build from parsed JSON. Raises ValueError naming the key that is missing or wrong."""
        values = _checked(cls, data)
        if values["format"] > FORMAT:
            raise ValueError(f"format={values['format']} is newer than this program: update bbi_lightning")
        if values["state"] not in STATES:
            raise ValueError(f"state={values['state']!r} is none of {', '.join(STATES)}")
        values["overrides"] = tuple(values.get("overrides", ()))
        values["summary"] = {key: decode_number(value) for key, value in values.get("summary", {}).items()}
        values["attempts"] = tuple(Attempt.from_json(attempt) for attempt in values.get("attempts", ()))
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; non-finite numbers of the summary as in the metric log."""
        summary = {key: _encode_if_number(value) for key, value in self.summary.items()}
        attempts = [attempt.to_json() for attempt in self.attempts]
        return _flat(self) | {"overrides": list(self.overrides), "summary": summary, "attempts": attempts}

    @property
    def is_result(self) -> bool:
        """Whether the run is over for good: finished, diverged or pruned."""
        return self.state in _RESULTS


def _checked(cls: type[_Record], data: Any) -> dict[str, Any]:
    """Constructor arguments for `cls` out of parsed JSON, unknown keys gathered under "extra"."""
    if not isinstance(data, dict):
        raise ValueError(f"a JSON object is expected, not {type(data).__name__}")
    hints = _hints(cls.__name__)
    known = {f.name: f for f in dataclasses.fields(cls) if f.name != "extra"}
    values: dict[str, Any] = {"extra": {key: value for key, value in data.items() if key not in known}}
    for name, declared in known.items():
        if name in data:
            if not isinstance(data[name], _json_types(hints[name])):
                raise ValueError(f"{name}={data[name]!r} has the wrong type")
            values[name] = data[name]
        elif name == "format" or (
            declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING
        ):
            raise ValueError(f"the key {name!r} is missing")
    return values


@functools.cache
def _hints(class_name: str) -> dict[str, Any]:
    return get_type_hints(globals()[class_name])


def _json_types(hint: Any) -> tuple[type, ...]:
    """The Python types in which JSON delivers a value declared as `hint`."""
    if isinstance(hint, UnionType):
        return tuple(t for option in get_args(hint) for t in _json_types(option))
    return {Mapping: (dict,), tuple: (list,)}.get(get_origin(hint) or hint, (hint,))


def _flat(record: RunRecord | Attempt) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "extra"}
    return values | dict(record.extra)


def _encode_if_number(value: Any) -> Any:
    return encode_number(value) if hasattr(value, "__float__") and not isinstance(value, bool) else value
