"""The sections of a sweep's dashboard: the same for every sweep, in the order of our own page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from bbi_lightning.comparison.audit import audit
from bbi_lightning.comparison.dashboard.specification import (
    AXIS_WORDS,
    STEP,
    TIME,
    ArmLook,
    Dashboard,
    Panel,
    Runs,
    Section,
    View,
    panels_of,
    report_mark,
    view_name,
)
from bbi_lightning.comparison.dashboard.summary import PREFIX, Summary, summarise
from bbi_lightning.comparison.figures.drawing import looks
from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.sweep_data import Axis
from bbi_lightning.comparison.tables import conclusion_words
from bbi_lightning.comparison.verdict import verdict, write_count, write_p, write_value
from bbi_lightning.tracking.wandb_logger import group_of

FIGURES = "figures"  # of the keys of our pictures in the summary run: figures/<key>

_ENERGY = {  # logged metric → title, logarithmic
    "energy/energy_error": ("Energy error", False),
    "energy/potential_over_energy": ("Potential over energy, V/E", True),
    "energy/speed_over_limit": ("Speed over its limit", False),
    "energy/bounces": ("Bounces so far", False),
}


def dashboard(
    c: Comparison, *, project: str, entity: str | None = None, pictures: Sequence[Picture] = ()
) -> Dashboard:
    """The dashboard of a comparison.

    Args:
        c: the comparison.
        project: W&B project.
        entity: W&B user or team; None for the account's default.
        pictures: those that go with the summary run; the report shows them where the page does.
    """
    summary = summarise(c)
    sections = _sections(c, summary, pictures)
    colours = {name: look.colour for name, look in looks(c.sweep.arms).items()}
    return Dashboard(
        entity=entity,
        project=project,
        sweep=c.sweep.name,
        title=c.sweep.title,
        arms=tuple(
            ArmLook(arm.name, arm.label, colours[arm.name], group_of(c.sweep.name, arm.name))
            for arm in c.sweep.arms
        ),
        summary_run=summary.run,
        digest=summary.digest,
        mark=report_mark(c.sweep.name),
        sections=sections,
        views=_views(c, sections),
        colours={run.name: colours[run.arm] for run in c.sweep.runs},
    )


def chosen(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
    """The pictures that W&B shows: those against steps of each group that the page switches between axes."""
    return tuple(picture for picture in pictures if picture.axis in ("", "step"))


def _views(c: Comparison, sections: tuple[Section, ...]) -> tuple[View, ...]:
    facts = ("config:arm.value", "config:phase.value", "run:state")
    results = (f"summary:{c.validation.name}", f"summary:{c.test.name}")
    searched = tuple(f"config:{_with_value(key)}" for key in _searched(c))

    def view(
        key: str, words: str, runs: Runs, *, by_arm: bool, order_by: str, columns: Iterable[str]
    ) -> View:
        own = panels_of(sections, runs)
        if key == "conclusion":
            own = (("In words", _in_words(sections, own)), *own)
        name, descending = view_name(c.sweep.name, key), c.test.sign > 0
        return View(
            key, f"{c.sweep.name}: {words}", name, runs, by_arm, order_by, descending, tuple(columns), own
        )

    return (
        view(
            "conclusion", "conclusion", "summary",
            by_arm=False, order_by="", columns=("summary:verdict/headline",),
        ),
        view(
            "replicates", "replicates by arm", "replicates",
            by_arm=True, order_by=c.test.name, columns=(*facts, *results, "config:seed.value"),
        ),
        view(
            "search", "search", "search",
            by_arm=False, order_by=c.validation.name, columns=(facts[0], results[0], *searched),
        ),
        view(
            "runs", "every run", "all",
            by_arm=False, order_by="", columns=(*facts, *results, "summary:steps", "summary:wall_s"),
        ),
    )  # fmt: skip


def _in_words(
    sections: tuple[Section, ...], charts: tuple[tuple[str, tuple[Panel, ...]], ...]
) -> tuple[Panel, ...]:
    """What a view, which has no text of its own, says first; and our page, where pictures are sent."""
    said = [s for s in sections if s.key in ("verdict", "outcomes", "warnings")]
    texts = tuple(Panel("text", s.title, (), text=f"## {s.title}\n\n{s.text}") for s in said)
    drawn = any(panel.kind == "media" for _, panels in charts for panel in panels)
    return (*texts, Panel("media", "The page of bbi compare", ("page",))) if drawn else texts


def _sections(c: Comparison, summary: Summary, pictures: Sequence[Picture]) -> tuple[Section, ...]:
    drawn: dict[str, tuple[Panel, ...]] = {}
    for picture in chosen(pictures):
        panel = Panel("media", picture.title, (f"{FIGURES}/{picture.key}",))
        drawn[picture.section] = (*drawn.get(picture.section, ()), panel)
    return (
        Section("verdict", "Verdict", _verdict_text(c)),
        Section("warnings", "Doubts", _doubts(c)),
        _budget(c),
        _outcomes(c, drawn.get("outcomes", ())),
        _curves(c, drawn.get("curves", ())),
        _tuning(c, drawn.get("tuning", ())),
        _sensitivity(c, drawn.get("sensitivity", ())),
        _energy(c, drawn.get("energy", ())),
        Section(
            "matched",
            "Generalisation at matched training loss",
            "The metric of each arm at the step where its training loss first reaches a level: this tells "
            "optimizers that merely train faster from those that generalise better.",
            {"summary": drawn["matched"]} if "matched" in drawn else {},
        ),
        _failures(c),
        Section("method", "Where the numbers come from", _method(c, summary)),
    )


def _verdict_text(c: Comparison) -> str:
    words = verdict(c)
    lines = [f"**{words.headline}**", "", words.status, ""]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in words.sentences)])


def _doubts(c: Comparison) -> str:
    lines = [f"- **{finding.level}**: {finding}" for finding in audit(c)]
    return "\n".join(lines) or "Nothing was found that should make you doubt it."


def _budget(c: Comparison) -> Section:
    rows = [("arm", "searched", "trials", "replicates", "steps a run", "seconds a run")]
    for r in c.results:
        space = ", ".join(_axis_words(axis) for axis in r.arm.space) or "nothing"
        steps, seconds = r.typical("steps"), r.typical("wall_s")
        rows.append(
            (
                r.arm.label, space, str(len(r.trials)), str(len(r.replicates)),
                write_count(steps) if math.isfinite(steps) else "–", _seconds(seconds),
            )
        )  # fmt: skip
    bars = [
        ("steps", "Optimizer steps"),
        ("wall_s", "Seconds of training"),
        ("speed/samples_per_s", "Samples a second"),
    ]
    panels = tuple(Panel("bars", title, (key,), by_arm=True) for key, title in bars)
    return Section("budget", "Who was compared, under what budget", _table(rows), {"replicates": panels})


def _outcomes(c: Comparison, drawn: tuple[Panel, ...]) -> Section:
    other, unit = c.baseline.label, f", {c.test.unit}" if c.test.unit else ""
    rows = [
        (
            "arm",
            f"mean {c.test.label}{unit}",
            "95 % interval",
            "n",
            f"minus {other}",
            "95 % interval",
            "p",
            "conclusion",
        )
    ]
    for r in c.results:
        versus = r.versus.difference if r.versus else None
        rows.append(
            (
                r.arm.label,
                c.test.number(r.mean.value) if r.mean else "–",
                c.test.interval(r.mean) if r.mean else "–",
                str(len(r.finished)),
                c.test.number(versus.value, signed=True) if versus else "–",
                c.test.interval(versus, signed=True) if versus else "–",
                write_p(r.p_value).removeprefix("p = ").removeprefix("p "),
                conclusion_words(r),
            )
        )
    means = tuple(f"{PREFIX}/{r.arm.name}/mean" for r in c.results if r.mean)
    text = (
        f"{_table(rows)}\n\nComputed by `bbi compare` from every replicate; the same numbers are the summary "
        "of the run of job type `summary`. Charts that W&B groups show its own mean and standard error, of a "
        "sample of the runs."
    )
    ours = (Panel("bars", f"Mean {c.test.label}, as computed here", means),) if means else ()
    theirs = (
        Panel("bars", f"{c.test.label.capitalize()}, mean by W&B", (c.test.name,), by_arm=True),
        Panel("scatter", "Validation against test", (c.test.name,), x=c.validation.name),
    )
    return Section(
        "outcomes", "Results on the test set", text, {"summary": (*drawn, *ours), "replicates": theirs}
    )


def _curves(c: Comparison, drawn: tuple[Panel, ...]) -> Section:
    axes = [
        Panel(
            "lines", f"{c.validation.label.capitalize()} over {words}", (c.validation.name,), x=x, by_arm=True
        )
        for x, words in AXIS_WORDS.items()
    ]
    loss = [
        Panel("lines", f"Training loss over {AXIS_WORDS[x]}", ("train/loss",), x=x, by_arm=True, log_y=True)
        for x in (STEP, TIME)
    ]
    text = (
        "Replicates of each arm's best trial. The same runs stand against steps, epochs, samples and seconds."
    )
    return Section("curves", "Training", text, {"summary": drawn, "replicates": (*axes, *loss)})


def _tuning(c: Comparison, drawn: tuple[Panel, ...]) -> Section:
    rows = [("arm", f"best {c.validation.label}", "with", "trials near the best")]
    for r in c.results:
        best = c.validation.text(r.best.final(c.validation.name)) if r.best else "–"
        params = ", ".join(f"{k} = {write_value(v)}" for k, v in r.best.params.items()) if r.best else "–"
        rows.append(
            (r.arm.label, best, params, f"{100 * r.near_best:.0f} %" if math.isfinite(r.near_best) else "–")
        )
    panels = (
        Panel("scatter", "Trials in their order", (c.validation.name,), x="config:trial"),
        Panel("lines", f"{c.validation.label.capitalize()} of every trial", (c.validation.name,)),
    )
    return Section("tuning", "Tuning", _table(rows), {"summary": drawn, "search": panels})


def _sensitivity(c: Comparison, drawn: tuple[Panel, ...]) -> Section:
    searched = _searched(c)
    scatters = tuple(
        Panel("scatter", key, (c.validation.name,), x=f"config:{key}", log_x=log)
        for key, log in searched.items()
    )
    columns = ("config:arm", *(f"config:{key}" for key in searched), c.validation.name)
    logs = tuple(f"config:{key}" for key, log in searched.items() if log)
    panels = (
        *scatters,
        Panel("parallel", "All searched parameters", columns, log_columns=logs),
        Panel("importance", "Importance, as W&B estimates it", (c.validation.name,)),
    )
    text = "Every trial, coloured by arm: how wide the range of good values is, and where it ends."
    return Section(
        "sensitivity", "Sensitivity", text, {"summary": drawn, "search": panels if searched else ()}
    )


def _energy(c: Comparison, drawn: tuple[Panel, ...]) -> Section:
    logged = {key for run in c.sweep.runs for key in run.record.summary if key in _ENERGY}
    panels = tuple(
        Panel("lines", title, (key,), by_arm=True, log_y=log)
        for key, (title, log) in _ENERGY.items()
        if key in logged
    )
    text = (
        "Optimizers that conserve energy say how well they do: the error of E should be small against E, V/E "
        "falls with the loss, and a speed far below its limit means that steps are lost."
        if panels
        else "No arm of this sweep logs an energy."
    )
    return Section("energy", "Energy", text, {"summary": drawn, "replicates": panels})


def _failures(c: Comparison) -> Section:
    states = ("finished", "diverged", "pruned", "failed", "interrupted", "running")
    rows: list[tuple[str, ...]] = [("arm", "phase", *states)]
    for r in c.results:
        for phase in ("search", "replicate"):
            rows.append((r.arm.label, phase, *(str(r.count(phase, state)) for state in states)))
    text = f"{_table(rows)}\n\nA diverged run is a result: W&B shows it as finished. Failed ones are below."
    everything = (Panel("scatter", "When runs ended, and how far they came", ("steps",), x="wall_s"),)
    return Section("failures", "Failures and divergence", text, {"all": everything, "lost": ()})


def _method(c: Comparison, summary: Summary) -> str:
    return "\n".join(
        (
            f"The best trial of each arm, by {c.validation.label}, is trained again with fresh seeds; its "
            f"{c.test.label} at the end is compared with that of {c.baseline.label}, seed by seed: means "
            "with 95 % bootstrap intervals, a paired test, Holm's correction over the arms.",
            "",
            f"- sweep `{c.sweep.name}`, {len(c.sweep.runs)} runs, sampler `{c.sweep.sampler}`",
            f"- base: `{' '.join(c.sweep.base)}`",
            f"- summary run `{summary.run}`, contents `{summary.digest}`",
            f"- made by `bbi dashboard {c.sweep.name}`; with `--check` it compares W&B's numbers with these. "
            "Edits here are lost when it is made again: clone it to change it.",
        )
    )


def _searched(c: Comparison) -> dict[str, bool]:
    """Searched keys of all arms, and whether some arm searches them logarithmically."""
    axes: dict[str, bool] = {}
    for arm in c.sweep.arms:
        for axis in arm.space:
            axes[axis.key] = axes.get(axis.key, False) or axis.log
    return axes


def _with_value(key: str) -> str:
    """A config key as W&B's tables name it: optim.lr is optim.value.lr."""
    first, _, rest = key.partition(".")
    return f"{first}.value.{rest}" if rest else f"{first}.value"


def _axis_words(axis: Axis) -> str:
    if axis.choices:
        return f"`{axis.key}` of {', '.join(map(str, axis.choices))}"
    return f"`{axis.key}` {write_value(axis.low)} to {write_value(axis.high)}{', log' if axis.log else ''}"


def _seconds(number: float) -> str:
    return f"{number:.3g}" if math.isfinite(number) else "–"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""

    def lines() -> Iterator[str]:
        for place, row in enumerate(rows):
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
            if place == 0:
                yield "|" + " --- |" * len(row)

    return "\n".join(lines())
