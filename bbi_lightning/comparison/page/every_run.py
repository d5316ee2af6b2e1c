"""Every run of the tasks as columns, small enough for a page that has a thousand of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from bbi_lightning.comparison.page.arms import short
from bbi_lightning.comparison.provenance import oddities
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.sweep_data import Run
from bbi_lightning.comparison.verdict import code_version, hardware

_Row = tuple[Comparison, ArmResult, Run]
_Column = dict[str, Any]


def every_run(comparisons: Sequence[Comparison]) -> str:
    """JSON text of {"columns", "marked", "chosen"}, safe inside a `<script>` element.

    A column is {"name", "filter", "words", "values"} with `values` places in `words`, or {"name", "digits",
    "values"} with numbers as they are written (null where there is none; `digits` behind the point, null for
    three significant ones). `marked` are the rows whose configuration is not that of their arm, `chosen`
    those of the best trials.
    """
    rows: list[_Row] = []
    odd: dict[Any, str] = {}
    for c in comparisons:
        for r in c.results:
            own = tuple(run for run in c.sweep.runs if run.arm == r.arm.name)
            rows += [(c, r, run) for run in own]
            odd |= oddities(r.arm, own)
    content = {
        "columns": [
            *_names(comparisons, rows),
            *_parameters(rows),
            *_metrics(comparisons, rows),
            *_rest(rows, odd),
        ],
        "marked": [place for place, (_, _, run) in enumerate(rows) if run.folder in odd],
        "chosen": [place for place, (_, r, run) in enumerate(rows) if run is r.best],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _names(comparisons: Sequence[Comparison], rows: Sequence[_Row]) -> Iterable[_Column]:
    """Which run it is, and its state."""
    if len(comparisons) > 1:
        yield _words("Task", [c.sweep.title for c, _, _ in rows], filter=True)
    yield _words("Arm", [r.arm.label for _, r, _ in rows], filter=True)
    yield _words("Phase", [run.phase for _, _, run in rows], filter=True)
    if len({run.study for _, _, run in rows}) > 1:
        yield _numbers("Study", [run.study + 1 for _, _, run in rows], 0)
    yield _numbers("No.", [run.number for _, _, run in rows], 0)
    yield _numbers("Seed", [run.seed for _, _, run in rows], 0)
    yield _words("State", [run.state for _, _, run in rows], filter=True)


def _parameters(rows: Sequence[_Row]) -> Iterable[_Column]:
    """A column for each searched key: numbers, or words where one of its values is no number."""
    keys = dict.fromkeys(axis.key for _, r, _ in rows for axis in r.arm.space)
    for key in keys | dict.fromkeys(key for _, _, run in rows for key in run.params):
        values = [run.params.get(key) for _, _, run in rows]
        if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
            yield _numbers(short(key), values, None)
        else:
            yield _words(short(key), ["" if v is None else str(v) for v in values])


def _metrics(comparisons: Sequence[Comparison], rows: Sequence[_Row]) -> Iterable[_Column]:
    """What selects, what breaks ties, what judges, and the training loss; in per cent where it is a share."""
    metrics = [m for c in comparisons for m in (c.validation, c.test)]
    shares = {m.name for m in metrics if m.is_share}
    ties = [c.sweep.objective.tie_metric for c in comparisons]
    for name in dict.fromkeys([c.validation.name for c in comparisons] + [tie for tie in ties if tie]):
        yield from _metric(name, rows, share=name in shares)
    for name in dict.fromkeys([c.test.name for c in comparisons] + ["train/loss"]):
        yield from _metric(name, rows, share=name in shares)


def _metric(name: str, rows: Sequence[_Row], *, share: bool) -> Iterable[_Column]:
    values = [run.final(name) for _, _, run in rows]
    if any(map(math.isfinite, values)):
        scaled = [100 * v for v in values] if share else values
        yield _numbers(f"{name}, %" if share else name, scaled, 2 if share else None)


def _rest(rows: Sequence[_Row], odd: dict[Any, str]) -> Iterable[_Column]:
    """What it cost, what is special about it, and its name."""
    summaries = [run.record.summary for _, _, run in rows]
    yield _numbers("Steps", [s.get("steps") for s in summaries], 0)
    yield _numbers("Seconds", [s.get("wall_s") for s in summaries], None)
    yield _words("Notes", [_notes(r, run, odd.get(run.folder)) for _, r, run in rows])
    for name, describe in (("Code", code_version), ("Hardware", hardware)):
        column = _words(name, [describe(run.record) for _, _, run in rows])
        if len(column["words"]) > 1:  # else the page says it once, under where the numbers come from
            yield column
    yield _words("Run", [run.name for _, _, run in rows])


def _notes(r: ArmResult, run: Run, odd: str | None) -> str:
    notes = ["chosen"] if run is r.best else []
    if run.phase == "replicate" and all(run is not own for own in r.replicates):
        notes.append("left out: not of the best trial")
    notes += [f"imported from {run.imported}"] if run.imported else []
    return "; ".join([*notes, odd] if odd else notes)


def _words(name: str, texts: Sequence[str], *, filter: bool = False) -> _Column:
    places: dict[str, int] = {}
    values = [places.setdefault(text, len(places)) for text in texts]
    return {"name": name, "filter": filter, "words": list(places), "values": values}


def _numbers(name: str, values: Sequence[Any], digits: int | None) -> _Column:
    return {"name": name, "digits": digits, "values": [_written(value, digits) for value in values]}


def _written(value: Any, digits: int | None) -> float | None:
    """The number as it is shown, so that the page rounds nothing a second time."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    if digits is None:
        return float(f"{value:.3g}")
    return int(value) if digits == 0 else round(value, digits)
