"""What holds over several tasks: intervals over all of them, and profiles of scores and of costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbi_lightning.comparison.figures.drawing import (
    band_alpha,
    draw_row,
    legend,
    log_axis,
    long_label,
    looks,
    name_rows,
    write_value,
)
from bbi_lightning.comparison.figures.picture import AXES, Picture
from bbi_lightning.comparison.figures.style import INK, Style
from bbi_lightning.comparison.matching import Reaching, reaching
from bbi_lightning.comparison.statistics import Estimate, Profile, dolan_more, performance_profile
from bbi_lightning.comparison.suite import OverTasks, Suite
from bbi_lightning.comparison.sweep_data import Arm

_THRESHOLDS = 200
_MOST_RATIO = 100.0  # a cost beyond it is drawn as never


def aggregates(suite: Suite) -> list[Picture]:
    """Interquartile mean of the scores, difference to the baseline and probability of improvement."""
    arms, baseline = suite.over_tasks, _baseline(suite)
    scale, unit = (100.0, " (%)") if _are_shares(suite) else (1.0, "")
    points = " (percentage points)" if unit else ""
    score = suite.score if unit else f"score ({baseline.label}'s mean is 1)"
    differences = [(o, e) for o in arms if (e := o.difference) is not None]
    improvements = [(o, e) for o in arms if (e := o.improvement) is not None]
    made = [
        _rows_picture(
            suite,
            "tasks-score",
            "Over all tasks",
            f"Interquartile mean of the scores of all replicates ({suite.score}) with its 95 % interval, "
            "runs resampled within each task. The points above it are the means of the tasks.",
            [(o, o.iqm, np.array([s.mean() for s in o.scores])) for o in arms],
            f"{score}{unit}",
            scale,
        ),
        _rows_picture(
            suite,
            "tasks-difference",
            f"Difference to {baseline.label} over all tasks",
            "Mean over the tasks of the mean paired difference, with its 95 % interval. The points above it "
            "are the tasks; an interval across the line at zero shows no difference.",
            [(o, e, np.array(o.task_differences)) for o, e in differences],
            f"{score} minus that of {baseline.label}{points}",
            scale,
            line=0.0,
        ),
        _rows_picture(
            suite,
            "tasks-improvement",
            f"Probability to be better than {baseline.label}",
            "Chance that a run of the arm beats a run of the baseline on the same task, mean over the tasks, "
            "with its 95 % interval. Half is no difference.",
            [(o, e, np.array([])) for o, e in improvements],
            f"probability to be better than {baseline.label}",
            1.0,
            line=0.5,
        ),
    ]
    return [picture for picture in made if picture is not None]


def _baseline(suite: Suite) -> Arm:
    return suite.comparisons[0].baseline


def _are_shares(suite: Suite) -> bool:
    """Whether scores are accuracies as they are."""
    first = suite.comparisons[0].test
    return first.is_share and suite.score == first.label


def _rows_picture(
    suite: Suite,
    key: str,
    title: str,
    caption: str,
    rows: Sequence[tuple[OverTasks, Estimate, NDArray[np.float64]]],
    label: str,
    scale: float,
    *,
    line: float | None = None,
) -> Picture | None:
    if not rows:
        return None
    look_of = looks([o.arm for o in suite.over_tasks])
    scaled = [
        (o, replace(e, value=e.value * scale, low=e.low * scale, high=e.high * scale), scale * values)
        for o, e, values in rows
    ]

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(0.75 + 0.62 * len(rows))
            axes = figure.add_subplot()
            if line is not None:
                axes.axvline(line, color=INK, linewidth=1.1)
            for y, (o, e, values) in zip(range(len(rows) - 1, -1, -1), scaled, strict=True):
                draw_row(axes, style, y, look_of[o.arm.name], values, e)
            name_rows(axes, [o.arm.label for o, _, _ in rows])
            long_label(axes, label)
        return figure

    told = "; ".join(f"{o.arm.label} {e.value:.3g}, {e.low:.3g} to {e.high:.3g}" for o, e, _ in scaled)
    data = [
        {"arm": o.arm.name, "task": c.sweep.name, "task value": value}
        | {"value": e.value, "low": e.low, "high": e.high}
        for o, e, values in rows
        for c, value in zip(suite.comparisons, values.tolist() or [math.nan] * 99, strict=False)
    ]
    return Picture(key, "tasks", title, caption, f"{label}, 95 % intervals: {told}.", draw, data)


def score_profile(suite: Suite) -> Picture | None:
    """Share of runs that are at least as good as each score, averaged over tasks; diverged runs never are."""
    scores = {o.arm.name: _with_losses(suite, o) for o in suite.over_tasks}
    finite = np.concatenate([s[np.isfinite(s)] for own in scores.values() for s in own] or [np.array([])])
    if finite.size == 0 or np.ptp(finite) <= 0:
        return None
    errors = _are_shares(suite)
    thresholds = np.linspace(finite.min(), finite.max(), _THRESHOLDS)
    if errors:  # evenly spaced as drawn, on a logarithmic axis of errors
        least = (1 - finite)[1 - finite > 1e-12].min() / 2
        thresholds = 1 - np.geomspace(max(least, 1 - finite.max()), 1 - finite.min(), _THRESHOLDS)
    profile = performance_profile(scores, thresholds)
    x = 100 * (1 - thresholds) if errors else thresholds
    label = suite.score.replace("accuracy", "error") + " at most (%)" if errors else "score at least"
    return _profile_picture(
        suite,
        "profile-score",
        "Performance profile",
        "Share of the replicates that are at least so good, mean over the tasks; a diverged one never is. "
        f"Higher is better. Band: 95 % interval. Score: {suite.score}.",
        profile,
        x,
        label,
        "replicates (%)",
    )


def _with_losses(suite: Suite, o: OverTasks) -> list[NDArray[np.float64]]:
    lost = [c.result(o.arm.name).count("replicate", "diverged") for c in suite.comparisons]
    return [np.append(s, np.full(n, -math.inf)) for s, n in zip(o.scores, lost, strict=True)]


def cost_profiles(suite: Suite) -> list[Picture]:
    """Share of tasks on which an arm takes at most x times the steps (or seconds) of the fastest to a target.

    The target of a task is the validation metric that its baseline ends with; the cost is the median over the
    replicates (Kaplan–Meier), none where half of them never reach it.
    """
    names = [o.arm.name for o in suite.over_tasks]
    pictures = []
    for axis in ("step", "time"):
        known = [reaching(c, c.validation.name, c.validation.direction, axis) for c in suite.comparisons]
        costs = {name: [_cost(reached, name) for reached in known] for name in names}
        table = np.array(list(costs.values()), dtype=np.float64)
        if not names or not np.isfinite(table).any():
            continue
        with np.errstate(invalid="ignore"):
            ratios = table / table.min(axis=0)
        most = float(min(_MOST_RATIO, max(2.0, 1.2 * ratios[np.isfinite(ratios)].max())))
        x = np.geomspace(1, most, _THRESHOLDS)
        pictures.append(
            _profile_picture(
                suite,
                "profile-cost" if axis == "step" else f"profile-cost-{axis}",
                "Cost to the baseline's result",
                f"Share of the tasks on which an arm takes at most x times the {AXES[axis]} of the fastest "
                "arm to the validation result that the baseline ends with (Dolan–Moré). Left edge: how often "
                "it is the fastest; right edge: how often it gets there at all.",
                dolan_more(costs, x),
                x,
                f"times the {AXES[axis]} of the fastest",
                "tasks (%)",
                axis=axis,
            )
        )
    return pictures


def _cost(known: Reaching | None, arm: str) -> float:
    """The arm's median cost to a task's target, inf where there is none."""
    if known is None:
        return math.inf
    survival = dict(zip((a.name for a in known.arms), known.survival, strict=True)).get(arm)
    median = survival.median.value if survival is not None else math.nan
    return max(median, 1e-12) if math.isfinite(median) else math.inf


def _profile_picture(
    suite: Suite,
    key: str,
    title: str,
    caption: str,
    profile: Profile,
    x: NDArray[np.float64],
    label: str,
    share_of: str,
    *,
    axis: str = "",
) -> Picture:
    labels = {o.arm.name: o.arm.label for o in suite.over_tasks}
    look_of = looks([o.arm for o in suite.over_tasks])

    def draw(style: Style) -> Figure:
        with style.active():
            figure = style.figure(3.3)
            axes, alpha = figure.add_subplot(), band_alpha(len(profile.arms))
            for name, share, low, high in zip(
                profile.arms, profile.share, profile.low, profile.high, strict=True
            ):
                look = look_of[name]
                line = {"color": look.colour, "linestyle": look.dash, "label": labels[name]}
                if np.isfinite(low).any():
                    axes.fill_between(x, 100 * low, 100 * high, color=look.colour, alpha=alpha, linewidth=0)
                axes.plot(x, 100 * share, drawstyle="steps-post" if axis else "default", **line)
            axes.set_ylim(-2, 104)
            axes.set_xlim(x.min(), x.max())
            if axis or _are_shares(suite):
                log_axis(axes, "x")
            long_label(axes, label)
            axes.set_ylabel(share_of)
            legend(axes)
        return figure

    middle = len(x) // 2
    told = "; ".join(
        f"{labels[name]} {100 * share[middle]:.0f} %"
        for name, share in zip(profile.arms, profile.share, strict=True)
    )
    data = [
        {"arm": name, label: float(at), "share": float(s), "low": float(lo), "high": float(hi)}
        for name, share, low, high in zip(profile.arms, profile.share, profile.low, profile.high, strict=True)
        for at, s, lo, hi in zip(x, share, low, high, strict=True)
    ]
    description = (
        f"Share of {share_of.removesuffix(' (%)')} by {label}: at {write_value(float(x[middle]))} {told}."
    )
    group = "profile-cost" if axis else ""
    return Picture(key, "profiles", title, caption, description, draw, data, group=group, axis=axis)
