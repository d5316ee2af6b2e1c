"""The page of a comparison: one HTML file that needs nothing else, and the CSV files beside it.

The page is a function of the runs: no clock, no machine name, no network; the same runs give the same bytes.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import bbi_lightning
from bbi_lightning.comparison import tables
from bbi_lightning.comparison.figures import pictures as figures
from bbi_lightning.comparison.figures import svg
from bbi_lightning.comparison.figures.drawing import looks
from bbi_lightning.comparison.results import NEAR_BEST, ArmResult, Comparison
from bbi_lightning.comparison.sweep_data import Axis, Run
from bbi_lightning.comparison.verdict import (
    code_version,
    count,
    hardware,
    verdict,
    warnings,
    write_count,
    write_p,
    write_value,
)


def write_report(comparison: Comparison, page: str | Path | None = None) -> Path:
    """Write the page and, in the same folder, trials.csv, replicates.csv and summary.csv.

    Args:
        comparison: what to show.
        page: the HTML file; `report.html` in the sweep's folder if not given. Its folder is made.

    Returns:
        The page's path.
    """
    page = Path(page) if page is not None else comparison.sweep.folder / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    for name, text in csv_files(comparison).items():
        (page.parent / name).write_text(text, encoding="utf-8")
    page.write_text(render(comparison), encoding="utf-8")
    return page


def csv_files(c: Comparison) -> dict[str, str]:
    """The CSV files, name to text."""
    return {
        "summary.csv": tables.to_csv(tables.summary_rows(c)),
        "replicates.csv": tables.to_csv(tables.replicate_rows(c)),
        "trials.csv": tables.to_csv(tables.trial_rows(c)),
    }


def render(c: Comparison) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bbi_lightning.comparison.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    slots = {name: look.slot % len(svg.LIGHT) for name, look in looks(c.sweep.arms).items()}
    return environment.get_template("report.html.j2").render(
        version=bbi_lightning.__version__,
        sweep=c.sweep,
        baseline=c.baseline,
        test=c.test,
        validation=c.validation,
        verdict=verdict(c),
        warnings=warnings(c),
        results=[_result(c, r) | {"slot": slots[r.arm.name]} for r in c.results],
        budgets=[_budget(c, r) | {"slot": slots[r.arm.name]} for r in c.results],
        replicates=_replicate_table(c),
        searches=[_search(c, r) for r in c.results],
        losses=_losses(c),
        provenance=_provenance(c),
        tuned=_tuned(c, slots),
        near_best=f"{100 * NEAR_BEST:g} {'point' if c.validation.is_share else '%'}",
        pictures=_pictures(c),
        downloads=[(name, _data_link(text)) for name, text in csv_files(c).items()],
        light=list(enumerate(svg.LIGHT)),
        dark=list(enumerate(svg.DARK)),
    )


def _pictures(c: Comparison) -> dict[str, Any]:
    def ready(picture: figures.Picture) -> Mapping[str, Any]:
        return vars(picture) | {"markup": Markup(picture.markup)}  # made here, every text in it is escaped

    single = {
        "outcomes": figures.outcomes(c),
        "differences": figures.differences(c),
        "loss": figures.training_loss(c),
        "validation": figures.validation_curve(c),
        "tuning": figures.tuning(c),
        "telemetry": figures.telemetry(c),
    }
    drawn: dict[str, Any] = {name: ready(picture) if picture else None for name, picture in single.items()}
    return drawn | {"sensitivities": [ready(picture) for picture in figures.sensitivities(c)]}


def _result(c: Comparison, r: ArmResult) -> dict[str, Any]:
    difference = r.versus.difference if r.versus else None
    lost = [f"{n} {state}" for state in ("diverged", "failed") if (n := r.count("replicate", state))]
    return {
        "label": r.arm.label,
        "mean": c.test.text(r.mean.value) if r.mean else "–",
        "mean_interval": c.test.interval(r.mean) if r.mean else "",
        "median": c.test.text(r.median.value) if r.median else "–",
        "n": f"{len(r.finished)} of {c.sweep.planned_replicates}" + "".join(f", {words}" for words in lost),
        "difference": c.test.number(difference.value, signed=True) if difference else "–",
        "difference_interval": c.test.interval(difference, signed=True) if difference else "",
        "p": write_p(r.p_value).removeprefix("p = ").removeprefix("p "),
        "conclusion": tables.conclusion_words(r),
        "kind": r.conclusion,
    }


def _budget(c: Comparison, r: ArmResult) -> dict[str, Any]:
    states = Counter(run.state for run in r.trials)
    return {
        "label": r.arm.label,
        "overrides": " ".join(r.arm.overrides),
        "space": [_axis(axis) for axis in r.arm.space],
        "trials": f"{len(r.trials)} of {c.sweep.planned_trials}",
        "states": ", ".join(f"{n} {state}" for state, n in states.items()),
        "best": [f"{_short(key)} = {write_value(value)}" for key, value in r.best.params.items()]
        if r.best
        else [],
        "edge": bool(r.edges),
        "validation": c.validation.text(r.best.final(c.validation.name)) if r.best else "–",
        "ties": f"shared with {r.ties} more" if r.ties else "",
        "near_best": f"{100 * r.near_best:.0f} %" if math.isfinite(r.near_best) else "–",
        "steps": write_count(r.typical("steps")) if math.isfinite(r.typical("steps")) else "–",
        "seconds": f"{r.typical('wall_s'):.3g} s" if math.isfinite(r.typical("wall_s")) else "–",
    }


def _short(key: str) -> str:
    return key.removeprefix("optim.")


def _axis(axis: Axis) -> str:
    if axis.choices:
        return f"{_short(axis.key)}: {', '.join(str(choice) for choice in axis.choices)}"
    scale = ", log" if axis.log else ""
    return f"{_short(axis.key)}: {write_value(axis.low)} to {write_value(axis.high)}{scale}"


def _tuned(c: Comparison, slots: Mapping[str, int]) -> dict[str, Any]:
    """The tuning curves at k = 1, 2, 4, … (or 1, 4, 16, …) and at all trials."""
    curves = [(r.arm, r.tuning) for r in c.results if r.tuning is not None]
    most = max((curve.k.size for _, curve in curves), default=1)
    base = 2 if most <= 16 else 4  # few enough columns for a phone
    ks = sorted({base**i for i in range(most.bit_length()) if base**i <= most} | {most})
    rows = [
        (
            slots[arm.name],
            arm.label,
            [c.validation.number(curve.value[k - 1]) if k <= curve.k.size else "–" for k in ks],
        )
        for arm, curve in curves
    ]
    return {"ks": ks, "rows": rows}


def _replicate_table(c: Comparison) -> dict[str, Any]:
    """Seeds down, arms across; a run without a result shows its state."""
    by_seed: dict[int, dict[str, str]] = {}
    for r in c.results:
        for run in r.replicates:
            value = run.final(c.test.name)
            cell = c.test.number(value) if math.isfinite(value) else run.state
            by_seed.setdefault(run.seed if run.seed is not None else -1, {})[r.arm.name] = cell
    names = [r.arm.name for r in c.results]
    return {
        "labels": [r.arm.label for r in c.results],
        "rows": [(seed, [cells.get(name, "–") for name in names]) for seed, cells in sorted(by_seed.items())],
        "means": [c.test.number(r.mean.value) if r.mean else "–" for r in c.results],
    }


def _search(c: Comparison, r: ArmResult) -> dict[str, Any]:
    """The trials of one arm, best first, those without a value last."""
    tie = c.sweep.objective.tie_metric
    keys = [axis.key for axis in r.arm.space]

    def order(run: Run) -> tuple[bool, float, float, int]:
        value, second = run.final(c.validation.name), run.final(tie) if tie else 0.0
        return not math.isfinite(value), -c.validation.sign * value, second, run.number

    def cells(run: Run) -> list[str]:
        values = [write_value(run.params.get(key, "–")) for key in keys]
        values.append(c.validation.number(run.final(c.validation.name)))
        if tie:
            values.append(f"{run.final(tie):.4f}" if math.isfinite(run.final(tie)) else "–")
        return [*values, run.state]

    return {
        "label": r.arm.label,
        "columns": [*map(_short, keys), c.validation.name, *([tie] if tie else []), "state"],
        "rows": [(run.number, run is r.best, cells(run)) for run in sorted(r.trials, key=order)],
    }


def _losses(c: Comparison) -> list[tuple[str, list[str]]]:
    """For every arm with runs that gave no result: what became of them."""
    return [(r.arm.label, sentences) for r in c.results if (sentences := list(_arm_losses(r)))]


def _arm_losses(r: ArmResult) -> Iterable[str]:
    for phase, word in (("search", "trial"), ("replicate", "replicate")):
        runs = [run for run in (*r.trials, *r.replicates) if run.phase == phase]
        diverged = [run for run in runs if run.state == "diverged"]
        if diverged:
            which = "; ".join(f"{run.number} ({_params(run)})" for run in diverged)
            yield f"{count(len(diverged), word)} diverged: {which}"
        for run in runs:
            if run.state == "failed":
                yield f"{word} {run.number} failed: {_reason(run)}"
        pending = [str(run.number) for run in runs if run.state in ("running", "interrupted")]
        if pending:
            yield f"{count(len(pending), word)} not finished: {', '.join(pending)}"


def _params(run: Run) -> str:
    return ", ".join(f"{_short(key)} {write_value(value)}" for key, value in run.params.items())


def _reason(run: Run) -> str:
    attempt = run.record.attempts[-1] if run.record.attempts else None
    if attempt is None:
        return "no attempt is on record"
    last_line = (attempt.exception or "").strip().rsplit("\n", 1)[-1].strip()
    return last_line or attempt.reason or "no reason is on record"


def _provenance(c: Comparison) -> list[tuple[str, list[str]]]:
    runs = [run for run in c.sweep.runs if run.record.attempts]
    attempts = [run.record.attempts[-1] for run in runs]
    o = c.sweep.objective
    tie = f"; equal values by {o.tie_direction.removesuffix('e')}ing {o.tie_metric}" if o.tie_metric else ""
    software = Counter(", ".join(f"{name} {v}" for name, v in a.versions.items()) for a in attempts)
    facts = [
        ("Task", [" ".join(c.sweep.base) or "–"]),
        (
            "Selection",
            [f"{o.direction.removesuffix('e')}ing {o.metric}{tie}; the test set is read once, at the end"],
        ),
        ("Search", [f"{c.sweep.sampler}, {c.sweep.planned_trials} trials an arm, one seed for all trials"]),
        ("Code", _counted(Counter(code_version(run.record) for run in runs))),
        ("Hardware", _counted(Counter(hardware(run.record) for run in runs))),
        ("Software", _counted(software)),
    ]
    if attempts:
        first, last = min(a.started for a in attempts), max(a.ended or a.started for a in attempts)
        facts.append(("Trained", [f"{first[:16].replace('T', ' ')} to {last[:16].replace('T', ' ')} UTC"]))
    return facts


def _counted(counts: Counter[str]) -> list[str]:
    if len(counts) == 1:
        return list(counts)
    return [f"{text} ({n} runs)" for text, n in counts.most_common()]


def _data_link(text: str) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
