"""Imported runs as a sweep's folder: sweep.yaml, and for each run config.yaml, metrics.jsonl and run.json.

Idempotent: a run's folder is named by its arm, its key in the source and its seed; files whose contents would
not change are not touched, and a run that is no longer in the source stays.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml

from bbi_lightning.comparison.imports.foreign import ForeignDataError, ForeignRun, Watch, unwatched
from bbi_lightning.comparison.imports.settings import Placed, PlacedArm, SortedRuns
from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.metric_log import encode_number
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.run_record import Attempt, RunRecord


@dataclass(frozen=True)
class Written:
    """What an import did: the folder; runs that are new, changed, as they were, no longer in the source."""

    folder: Path
    new: int
    changed: int
    same: int
    kept: int


def write_sweep(
    found: SortedRuns,
    folder: str | Path,
    *,
    origin: str,
    source: str,
    title: str | None = None,
    watch: Watch = unwatched,
) -> Written:
    """Write the runs, or what is new of them.

    Args:
        found: the runs in their places.
        folder: the sweep's; made if it is not there.
        origin: what the runs are from, in words: "W&B export"; the label `imported` of each.
        source: where that lies, for the record.
        title: of the sweep; its name if not given.
        watch: shows how far it has come.

    Raises:
        ForeignDataError: the folder holds a sweep that was made here.
    """
    folder = Path(folder)
    before = _description(folder)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    names = set()
    for placed in watch(found.runs, len(found.runs), "Writing"):
        name = _name(placed, origin)
        if name in names:
            raise ForeignDataError(f"two runs are called {placed.run.key}: give each a name of its own")
        names.add(name)
        counts[_write_run(placed, folder / "runs" / name, folder.name, origin, source, now)] += 1
    kept = sum(1 for file in (folder / "runs").glob("*/run.json") if file.parent.name not in names)
    spec = _spec(found, folder.name, title, before)
    about = {"from": _joined(before, origin), "when": now, "by": "bbi import", "source": source}
    if before is not None and not counts["new"] and not counts["changed"]:
        about = dict(before["imported"])
    text = yaml.safe_dump({**spec, "imported": about}, sort_keys=False, allow_unicode=True)
    _write_if_new(folder / "sweep.yaml", text.encode())
    return Written(folder, counts["new"], counts["changed"], counts["same"], kept)


def _description(folder: Path) -> Mapping[str, Any] | None:
    """What an earlier import has written there, None if nothing is there."""
    file = folder / "sweep.yaml"
    if not file.is_file():
        return None
    spec = yaml.safe_load(file.read_text("utf-8"))
    if not isinstance(spec, dict) or not isinstance(spec.get("imported"), dict):
        raise ForeignDataError(
            f"{folder} is a sweep that was run here: give imported runs a sweep of their own, --sweep OTHER, "
            "and compare the two together"
        )
    return spec


def _joined(before: Mapping[str, Any] | None, origin: str) -> str:
    said = str(before["imported"].get("from", "")) if before else ""
    return ", ".join(dict.fromkeys([*filter(None, said.split(", ")), origin]))


def _spec(
    found: SortedRuns, name: str, title: str | None, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The description; arms of an earlier import from elsewhere stay."""
    plans = {arm.name: _plan(found, arm) for arm in found.arms}
    arms = dict(before["arms"]) if before else {}
    for arm in found.arms:
        space = {key: dict(axis) for key, axis in arm.space.items()}
        arms[arm.name] = {"label": arm.label, "overrides": [], "space": space, "plan": plans[arm.name]}
    return {
        "name": name,
        "title": title or (before or {}).get("title") or name,
        "base": list(found.base),
        "objective": dict(found.objective),
        "search": {
            "sampler": "imported",
            "trials": max(arm["plan"]["trials"] for arm in arms.values()),
            "seed": 0,
        },
        "replicates": {
            "count": max(arm["plan"]["replicates"] for arm in arms.values()),
            "first_seed": 0,
        },
        "arms": arms,
    }


def _plan(found: SortedRuns, arm: PlacedArm) -> dict[str, int]:
    phases = Counter(placed.phase for placed in found.runs if placed.arm == arm.name)
    return {"trials": phases["search"], "replicates": phases["replicate"]}


def _name(placed: Placed, origin: str) -> str:
    digest = hashlib.sha256(f"{origin}\n{placed.run.key}".encode()).hexdigest()[:10]
    seed = "" if placed.seed is None else f"-s{placed.seed}"
    return f"imported-{placed.arm}-{digest}{seed}"


def _write_run(placed: Placed, path: Path, sweep: str, origin: str, source: str, now: str) -> str:
    """Write one run; returns "new", "changed" or "same"."""
    folder = RunFolder(path)
    existed = folder.exists
    created = placed.run.created or (folder.record.created if existed else now)
    path.mkdir(parents=True, exist_ok=True)
    record = _record(placed, path.name, sweep, origin, source, created)
    config = yaml.safe_dump(_nested(placed.run.config), sort_keys=False, allow_unicode=True)
    changes = [
        _write_if_new(folder.config_file, config.encode()),
        _write_if_new(folder.metrics_file, _rows(placed.run)),
        # last: where it is, the folder is complete
        _write_if_new(
            folder.record_file, (json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n").encode()
        ),
    ]
    return "new" if not existed else "changed" if any(changes) else "same"


def _write_if_new(file: Path, content: bytes) -> bool:
    if file.is_file() and file.read_bytes() == content:
        return False
    write_atomically(file, content)
    return True


def _rows(run: ForeignRun) -> bytes:
    lines = []
    for row in run.rows:
        numbers = {key: encode_number(value) for key, value in row.items()}
        lines.append(json.dumps(numbers, allow_nan=False) + "\n")
    return "".join(lines).encode()


def _record(placed: Placed, name: str, sweep: str, origin: str, source: str, created: str) -> RunRecord:
    run = placed.run
    state = "diverged" if _has_diverged(run) else run.state
    seconds = max((row["time"] for row in run.rows if math.isfinite(row.get("time", math.nan))), default=0.0)
    steps = run.rows[-1]["step"] if run.rows else 0
    attempt = Attempt(
        number=1,
        host=str(run.facts.get("host") or run.facts.get("hostname") or "unknown"),
        pid=0,
        commit=None,
        dirty=False,
        diff_sha256=None,
        started=created,
        ended=_after(created, seconds),
        reason=state,
    )
    return RunRecord(
        name=name,
        state=state,
        created=created,
        labels={
            "sweep": sweep,
            "arm": placed.arm,
            "phase": placed.phase,
            "trial": placed.trial,
            "replicate": placed.replicate,
            "params": dict(placed.params),
            "imported": origin,
        },
        summary={**run.summary, "steps": steps, **({"wall_s": seconds} if seconds else {})},
        attempts=(attempt,),
        extra={
            "imported": {
                "from": origin,
                "source": source,
                "key": run.key,
                "name": run.name,
                **_plain(run.facts),
            }
        },
    )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(facts), default=str))
    return plain


def _has_diverged(run: ForeignRun) -> bool:
    """Whether a loss ended on a value that is no number."""
    last = {name: value for row in run.rows for name, value in row.items() if name.endswith("loss")}
    return any(not math.isfinite(value) for value in last.values())


def _after(created: str, seconds: float) -> str:
    return (datetime.fromisoformat(created) + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def _nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings; a key that is a value and a prefix at once stays dotted."""
    nested: dict[str, Any] = {}
    for key, value in config.items():
        *parents, last = key.split(".")
        prefixes = {".".join(parents[: n + 1]) for n in range(len(parents))}
        if prefixes & config.keys():
            parents, last = [], key
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = (
            value if isinstance(value, (str, int, float, bool, list, dict)) or value is None else str(value)
        )
    return nested
