"""Foreign names of metrics and settings to ours, so that imported runs stand beside our own.

Ours: `step` (optimizer steps), `epoch`, `time` (seconds), `train/loss`, `val/loss`, `val/acc` (a share),
`test/loss`, `test/acc`, `optim.lr`, `seed`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bbi_lightning.comparison.imports.foreign import ForeignDataError, ForeignRun, nearest

_STEP = ("step", "trainer/global_step", "global_step", "Step", "_step", "iteration", "iter", "steps")
_EPOCH = ("epoch", "Epoch", "epochs")
_TIME = ("time", "_runtime", "Relative Time (Process)", "elapsed", "seconds", "time_s")
_CLOCK = ("_timestamp", "wall_time", "Wall time", "timestamp")
_STAGES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    "test": "test",
}
_QUANTITIES = {"loss": "loss", **dict.fromkeys(("acc", "accuracy", "acc1", "top1"), "acc")}
_SETTINGS = {
    **dict.fromkeys(("optimizer", "optimizer_name", "opt", "optim"), "optim.name"),
    **dict.fromkeys(("lr", "learning_rate"), "optim.lr"),
    "momentum": "optim.momentum",
    **dict.fromkeys(("weight_decay", "wd"), "optim.weight_decay"),
    **dict.fromkeys(("batch_size", "bs"), "data.batch_size"),
    **dict.fromkeys(("max_epochs", "epochs", "num_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("random_seed", "manual_seed", "seed_everything", "rng_seed"), "seed"),
}
_LARGEST_SHARE = 1.0 + 1e-6


@dataclass(frozen=True)
class Naming:
    """What the user says about names.

    Attributes:
        names: foreign name to ours, of metrics, settings and the columns step, epoch and time.
        scales: our name to the factor its values are multiplied with (0.01 for per cent).
    """

    names: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedRuns:
    """Runs whose rows have `step`, `epoch`, `time` and metrics by our names.

    Attributes:
        names: foreign name to ours, of whatever was renamed.
        notes: what was decided, in sentences.
    """

    runs: tuple[ForeignRun, ...]
    names: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def metrics(self) -> set[str]:
        """All metrics of all runs."""
        rows = {name for run in self.runs for row in run.rows for name in row}
        return (rows | {name for run in self.runs for name in run.summary}) - {"step", "epoch", "time"}


def name_runs(runs: Sequence[ForeignRun], naming: Naming | None = None) -> NamedRuns:
    """Rename, scale, and number the rows of all runs.

    Metrics called train_loss, valid/accuracy, eval_loss and the like are known without being told, and so are
    settings called optimizer, learning_rate, batch_size, epochs and the like. The
    summary's value gives way to the last logged one: W&B's may be the best, and a test's best is no result.

    Raises:
        ForeignDataError: a name that no run has, two names for one, no steps, accuracies in per cent.
    """
    naming = naming or Naming()
    logged = Counter(name for run in runs for name in {key for row in run.rows for key in row})
    known = {*logged, *(name for run in runs for name in (*run.summary, *run.config))}
    for foreign in naming.names:
        if foreign not in known:
            raise ForeignDataError(
                f"--map {foreign}={naming.names[foreign]}: no run has {foreign}; {nearest(foreign, known)}"
            )
    mapping = dict(naming.names)
    taken = {*mapping.values()}
    guessed: dict[str, str] = {}
    metrics = {*logged, *(name for run in runs for name in run.summary)}
    for name in sorted(metrics - mapping.keys()):
        own = _guess(name)
        if own is not None and own not in taken and own not in metrics:
            guessed[name] = own
            taken.add(own)
    settings = {name for run in runs for name in run.config}
    for name in sorted(settings - mapping.keys() - metrics):
        own = _SETTINGS.get(name)
        if own is not None and own not in taken and own not in settings:
            guessed[name] = own
            taken.add(own)
    mapping |= guessed
    clash = next((own for own, count in Counter(mapping.values()).items() if count > 1), None)
    if clash is not None:
        both = sorted(name for name, own in mapping.items() if own == clash)
        raise ForeignDataError(f"{' and '.join(both)} would both become {clash}: map one of them")
    notes = [f"read as ours: {', '.join(f'{n} as {own}' for n, own in guessed.items())}"] if guessed else []
    columns = _columns(logged, mapping, notes)
    named = tuple(_named(run, mapping, columns) for run in runs)
    named = tuple(_scaled(run, naming.scales) for run in named)
    result = NamedRuns(named, mapping, tuple(notes + _disagreements(named)))
    for name in naming.scales:
        if name not in result.metrics:
            raise ForeignDataError(f"--scale {name}: no run has it; {nearest(name, result.metrics)}")
    _refuse_per_cent(named)
    return replace(result, runs=tuple(_with_last_values(run) for run in named))


def _guess(name: str) -> str | None:
    """What a name like "valid_accuracy" or "accuracy/val" means; None for any other."""
    parts = re.split(r"[/_.\- ]+", name.lower().removesuffix("_epoch").removesuffix("/epoch"))
    if len(parts) != 2:
        return None
    for stage, quantity in (parts, parts[::-1]):
        if stage in _STAGES and quantity in _QUANTITIES:
            return f"{_STAGES[stage]}/{_QUANTITIES[quantity]}"
    return None


@dataclass(frozen=True)
class _Columns:
    step: str | None
    epoch: str | None
    time: str | None
    clock: str | None


def _columns(logged: Mapping[str, int], mapping: Mapping[str, str], notes: list[str]) -> _Columns:
    """Which foreign columns count steps, epochs and seconds."""

    def column(own: str, candidates: Sequence[str]) -> str | None:
        said = [name for name, meaning in mapping.items() if meaning == own]
        return said[0] if said else next((name for name in candidates if name in logged), None)

    step, epoch = column("step", _STEP), column("epoch", _EPOCH)
    if step is None and epoch is None and logged:
        raise ForeignDataError(
            f"nothing says at which step a row was logged: add --map COLUMN=step; {nearest('step', logged)}"
        )
    if step is None and epoch is not None:
        notes.append(f"there are no steps: {epoch} is taken for them")
    elif step == "_step":
        notes.append("_step counts W&B's rows, not optimizer steps: --map COLUMN=step if a column does")
    elif step is not None and step != "step":
        notes.append(f"steps are counted by {step}")
    return _Columns(step, epoch, column("time", _TIME), column("timestamp", _CLOCK))


def _named(run: ForeignRun, mapping: Mapping[str, str], columns: _Columns) -> ForeignRun:
    rows: list[dict[str, float]] = []
    step, epoch, began = 0, 0, math.nan
    spent = {columns.step, columns.epoch, columns.time, columns.clock}
    for row in run.rows:
        epoch = int(row.get(columns.epoch or "", epoch))
        count = row.get(columns.step or columns.epoch or "", step)
        if not math.isfinite(count) or count != int(count):
            raise ForeignDataError(
                f"run {run.name}: {columns.step or columns.epoch}={count} is no step: add --map COLUMN=step"
            )
        step = int(count)
        time = row.get(columns.time or "", math.nan)
        if math.isnan(time) and columns.clock is not None and columns.clock in row:
            clock = row[columns.clock]
            began = clock if math.isnan(began) else began
            time = clock - began
        found = {mapping.get(name, name): value for name, value in row.items() if name not in spent}
        found = {name: value for name, value in found.items() if not name.startswith("_")}
        if found:
            start = {"step": step, "epoch": epoch} | ({} if math.isnan(time) else {"time": round(time, 3)})
            rows.append({**start, **found})
    rows.sort(key=lambda row: row["step"])
    return replace(
        run,
        rows=tuple(rows),
        config={mapping.get(name, name): value for name, value in run.config.items()},
        summary={mapping.get(n, n): v for n, v in run.summary.items() if n not in spent},
    )


def _scaled(run: ForeignRun, scales: Mapping[str, float]) -> ForeignRun:
    def times(values: Mapping[str, float]) -> dict[str, float]:
        return {name: value * scales[name] if name in scales else value for name, value in values.items()}

    return (
        replace(run, rows=tuple(times(row) for row in run.rows), summary=times(run.summary))
        if scales
        else run
    )


def _last_values(run: ForeignRun) -> dict[str, float]:
    last: dict[str, float] = {}
    for row in run.rows:
        last |= row
    return {name: value for name, value in last.items() if name not in ("step", "epoch", "time")}


def _with_last_values(run: ForeignRun) -> ForeignRun:
    return replace(run, summary={**run.summary, **_last_values(run)})


def _disagreements(runs: Sequence[ForeignRun]) -> list[str]:
    """Metrics whose summary is not what was logged last."""
    differ: Counter[str] = Counter()
    for run in runs:
        for name, value in _last_values(run).items():
            said = run.summary.get(name, value)
            if not (math.isnan(value) or math.isclose(said, value, rel_tol=1e-6, abs_tol=1e-12)):
                differ[name] += 1
    return [
        f"{name} of {count} of {len(runs)} runs ends on another value than the summary says (its best?): "
        "the last logged one is taken"
        for name, count in sorted(differ.items())
        if "/" in name
    ]


def _refuse_per_cent(runs: Sequence[ForeignRun]) -> None:
    for run in runs:
        for row in (*run.rows, run.summary):
            for name, value in row.items():
                if name.endswith(("/acc", "/accuracy")) and value > _LARGEST_SHARE:
                    raise ForeignDataError(
                        f"run {run.name}: {name}={value:g} is more than 1, in per cent perhaps: "
                        f"add --scale {name}=0.01"
                    )
