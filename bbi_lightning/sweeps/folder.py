"""The folder of a sweep, and what happens when a sweep meets a folder that is there already.

<root>/<name>/
  sweep.yaml     the description, resolved
  configs/       the resolved config of each arm
  journal.log    the Optuna studies
  workers/       who is at work
  stop.json      there once the sweep was cancelled: workers leave
  code/          the code that its jobs run
  slurm/         the batch script and the jobs' outputs
  runs/          the run folders
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bbi_lightning.sweeps.section import SweepError, shown
from bbi_lightning.sweeps.spec import SweepSpec, parse_spec
from bbi_lightning.tracking.durable import write_atomically

_FREE = ("format", "title", "workers", "lock", "label")  # shape no result: the new value is simply taken
_GROWING = ("search.trials", "search.studies", "replicates.count")


class SweepFolder:
    """A sweep on disk. Cheap: nothing is read before it is asked for.

    Args:
        path: the sweep's folder; need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def spec_file(self) -> Path:
        """The resolved description."""
        return self.path / "sweep.yaml"

    @property
    def journal(self) -> Path:
        """The Optuna journal."""
        return self.path / "journal.log"

    @property
    def workers(self) -> Path:
        """Where workers show that they live."""
        return self.path / "workers"

    @property
    def stop_file(self) -> Path:
        """Where it is, workers leave."""
        return self.path / "stop.json"

    @property
    def slurm(self) -> Path:
        """The batch script, and what the jobs printed."""
        return self.path / "slurm"

    @property
    def configs(self) -> Path:
        """Where the resolved config of each arm is, without its point: for people to read."""
        return self.path / "configs"

    @property
    def code(self) -> Path:
        """The code that its jobs run; not there before the first submission."""
        return self.path / "code"

    @property
    def runs(self) -> Path:
        """Where the run folders are."""
        return self.path / "runs"

    def read_spec(self) -> SweepSpec:
        """The description of an existing sweep.

        Raises:
            FileNotFoundError: there is no sweep here.
            SweepError: sweep.yaml is damaged or of a newer format, or holds imported runs.
        """
        if not self.spec_file.is_file():
            raise FileNotFoundError(
                f"{self.path} is not a sweep (it has no sweep.yaml): give a sweep's folder"
            )
        try:
            data = yaml.safe_load(self.spec_file.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or "imported" not in data:
                return parse_spec(data)
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise SweepError(f"{self.spec_file} cannot be read ({reason}): restore it from a copy") from None
        raise SweepError(
            f"{self.path.name} holds imported runs, which were not planned here: "
            f"bbi compare {self.path.name} looks at them"
        )

    def check(self, spec: SweepSpec) -> None:
        """Whether this folder can go on as `spec`.

        A sweep can grow (search.trials, search.studies, replicates.count); all else that shapes its results
        stays as it was.

        Raises:
            SweepError: one sentence with what differs and the remedy.
        """
        if self.spec_file.is_file():
            _check_growth(self.path, self.read_spec(), spec)
        elif self.journal.exists() and self.journal.stat().st_size:
            raise SweepError(
                f"{self.path} has a journal but no sweep.yaml: restore it or choose another name"
            )

    def write_spec(self, spec: SweepSpec) -> None:
        """Write the description down; the caller has the studies alone."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(spec.plain(), sort_keys=False, allow_unicode=True, width=100)
        write_atomically(self.spec_file, text.encode())

    def description_stamp(self) -> tuple[int, int] | None:
        """Tells whether the description was written anew: another one then; None while there is none."""
        try:
            facts = self.spec_file.stat()
        except FileNotFoundError:
            return None
        return (facts.st_mtime_ns, facts.st_ino)


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
