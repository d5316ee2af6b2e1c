"""The folder of a sweep, and what happens when a sweep meets a folder that is there already.

<root>/<name>/
  sweep.yaml     the description, resolved
  journal.log    the Optuna studies
  lock           held by the process that runs the sweep
  runs/          the run folders
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bbi_lightning.sweeps.section import SweepError, shown
from bbi_lightning.sweeps.spec import SweepSpec, parse_spec
from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.run_lock import RunBusyError, RunLock

_FREE = ("format", "title", "workers", "label")  # shape no result: the new value is simply taken
_GROWING = ("search.trials", "replicates.count")


class SweepFolder:
    """A sweep on disk. Cheap: nothing is read before it is asked for.

    Args:
        path: the sweep's folder; need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = RunLock(self.path / "lock")

    @property
    def spec_file(self) -> Path:
        """The resolved description."""
        return self.path / "sweep.yaml"

    @property
    def journal(self) -> Path:
        """The Optuna journal."""
        return self.path / "journal.log"

    @property
    def runs(self) -> Path:
        """Where the run folders are."""
        return self.path / "runs"

    def read_spec(self) -> SweepSpec:
        """The description of an existing sweep.

        Raises:
            FileNotFoundError: there is no sweep here.
            SweepError: sweep.yaml is damaged or of a newer format.
        """
        if not self.spec_file.is_file():
            raise FileNotFoundError(
                f"{self.path} is not a sweep (it has no sweep.yaml): give a sweep's folder"
            )
        try:
            return parse_spec(yaml.safe_load(self.spec_file.read_text(encoding="utf-8")))
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise SweepError(f"{self.spec_file} cannot be read ({reason}): restore it from a copy") from None

    def check(self, spec: SweepSpec) -> None:
        """Whether this folder can go on as `spec`.

        A sweep can grow (search.trials, replicates.count); all else that shapes its results stays as it was.

        Raises:
            SweepError: one sentence with what differs and the remedy.
        """
        if self.spec_file.is_file():
            _check_growth(self.path, self.read_spec(), spec)
        elif self.journal.exists():
            raise SweepError(
                f"{self.path} has a journal but no sweep.yaml: restore it or choose another name"
            )

    def write_spec(self, spec: SweepSpec) -> None:
        """Write the description down; the caller holds the folder."""
        text = yaml.safe_dump(spec.plain(), sort_keys=False, allow_unicode=True, width=100)
        write_atomically(self.spec_file, text.encode())

    def holder(self) -> Mapping[str, Any] | None:
        """Who runs the sweep now, {"host", "pid", "since"}, or None."""
        return self._lock.holder()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have the sweep for this process alone.

        Raises:
            SweepError: another process has it; one sentence says which.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except RunBusyError:
            holder = self.holder() or {}
            who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
            raise SweepError(
                f"the sweep {self.path} is being run by {who}: wait for it to end, or stop it first; "
                "the same command then goes on"
            ) from None
        try:
            yield
        finally:
            self._lock.release()


def _check_growth(path: Path, old: SweepSpec, new: SweepSpec) -> None:
    before, after = _flat(old), _flat(new)
    for key in _GROWING:
        if int(after[key]) < int(before[key]):
            raise SweepError(
                f"{key}={after[key]}, but the sweep {path} was begun with {before[key]} and can only grow: "
                f"use {before[key]} or more, or another name"
            )
    keys = [*before, *(key for key in after if key not in before)]
    for key in keys:
        if key in _GROWING or key.split(".")[-1] in _FREE:
            continue
        if before.get(key) != after.get(key):
            was, now = before.get(key, "absent"), after.get(key, "absent")
            raise SweepError(
                f"{key} is {now}, but the sweep {path} was begun with {was}: a sweep's runs must be "
                "comparable, so use the old value, another name or another --dir"
            )


def _flat(spec: SweepSpec) -> dict[str, str]:
    """Every leaf of the description under its full key."""
    # a grid's size is its trials; a free label must not hide an arm that was added
    flat: dict[str, str] = {"arms": f"[{', '.join(arm.name for arm in spec.arms)}]"}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), inner)
        elif isinstance(value, list):
            flat[prefix] = "[" + ", ".join(shown(item) for item in value) + "]"
        else:
            flat[prefix] = shown(value)

    visit("", spec.plain())
    return flat
