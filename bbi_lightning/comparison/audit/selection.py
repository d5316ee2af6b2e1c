"""Was the winner of each search chosen rightly, and was the search any good?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from bbi_lightning.comparison.audit.finding import Finding, command
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.sweep_data import Axis
from bbi_lightning.comparison.verdict import count, listed, write_value

_STILL_RISING = 0.1  # of the whole gain of a search, in its last quarter
_MATTERS = 0.001  # a tenth of a point of accuracy; of other metrics, of the best value
_MANY_TIES = 0.25  # of the trials
_AT_END = 0.99  # of the steps: loggers do not agree where an epoch ends
_FEW_TRIALS = 8  # whose curve says nothing
_FEW_REPLICATES = 5  # which one trial beats by chance


def test_selects(c: Comparison) -> Iterator[Finding]:
    """The objective, or what breaks ties, is a test metric: the test set has then been trained on."""
    objective = c.sweep.objective
    for key, metric in (("objective.metric", objective.metric), ("tie_breaker", objective.tie_metric)):
        if metric and metric.startswith("test/"):
            yield Finding(
                "error",
                "test-selects",
                f"{key}={metric} selects by the test set: what is reported on it is too good.",
                "Select by val/… and run the sweep again under another name.",
                evidence={key: metric},
            )


def test_read_often(c: Comparison) -> Iterator[Finding]:
    """A run has the test metric at several steps: its test curve was looked at, or its best reported."""
    often: dict[str, int] = {}
    reported = 0
    for r in c.results:
        for run in r.finished:
            curve = run.curve(c.test.name)
            if len(set(curve.step.tolist())) > 1:
                often[r.arm.label] = often.get(r.arm.label, 0) + 1
                own = c.test.sign * curve.value[np.isfinite(curve.value)]
                said = c.test.sign * run.final(c.test.name)
                reported += bool(own.size and said == own.max() and said > own[-1])
    if often:
        yield Finding(
            "error" if reported else "warning",
            "test-read-often",
            f"The test set was read during training ({listed(often)} replicates have {c.test.name} at "
            "several steps)"
            + (f", and {reported} of them report the best of these values." if reported else "."),
            "Report the value at the end of training, or at the best validation: never the best test value.",
            evidence={"replicates": often, "report_the_best": reported},
        )


def measured_when(c: Comparison) -> Iterator[Finding]:
    """The metric of the verdict, or of the choice, was measured before the end, or not at the same step."""
    for metric in (c.test, c.validation):
        last: dict[str, float] = {}
        early: dict[str, int] = {}
        for r in c.results:
            steps = [
                (run, float(step[-1])) for run in r.finished if (step := run.curve(metric.name).step).size
            ]
            if steps:
                last[r.arm.label] = float(np.median([step for _, step in steps]))
            before = sum(step + 1 < _AT_END * run.final("steps") for run, step in steps)
            if before:
                early[r.arm.label] = before
        if early:
            yield Finding(
                "note",
                "measured-before-end",
                f"The last {metric.label} was measured before the last step ({listed(early)} replicates): "
                "what training did afterwards is not in it.",
                "Let validation run at the end (trainer.check_val_every_n_epoch divides trainer.max_epochs).",
                evidence={"metric": metric.name, "replicates": early},
            )
        if last and min(last.values()) + 1 < _AT_END * max(last.values()):
            yield Finding(
                "warning",
                "measured-at-different-steps",
                f"The {metric.label} was measured at different steps ({listed(last)}).",
                "Measure every arm at the same step.",
                evidence={"metric": metric.name, "steps": last},
            )


def same_data(c: Comparison) -> Iterator[Finding]:
    """Validation and test metric are equal in every run: they are the same images."""
    pairs = [(run.final(c.validation.name), run.final(c.test.name)) for r in c.results for run in r.finished]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(pairs) >= 4 and all(a == b for a, b in pairs) and len({a for a, _ in pairs}) > 1:
        yield Finding(
            "error",
            "validation-is-test",
            f"{c.validation.name} and {c.test.name} are equal in all {len(pairs)} replicates: they are "
            "measured on the same data, and the search has seen the test set.",
            "Split a validation set off the training set (data.val_size) and run the sweep again.",
        )


def edges(c: Comparison) -> Iterator[Finding]:
    """The best trial lies at the edge of its space."""
    for r in c.results:
        for axis in r.arm.space:
            value = r.best.params.get(axis.key) if r.best else None
            end = _end(axis, value)
            if end is None:
                continue
            where = (
                f"{write_value(axis.low)} to {write_value(axis.high)}"
                if not axis.choices
                else ", ".join(write_value(choice) for choice in axis.choices)
            )
            key = f"sweep.arms.{r.arm.name}.space.{axis.key}"
            yield Finding(
                "warning",
                "edge-of-space",
                f"The best trial of {r.arm.label} lies at the edge of its space ({axis.key} = "
                f"{write_value(value)} in {where}): something better may lie beyond.",
                f"Widen the space ({key}{'' if axis.choices else f'.{end}'}) and search again under another "
                "name.",
                arm=r.arm.name,
                evidence={"key": axis.key, "value": value, "end": end},
            )


def ties(c: Comparison) -> Iterator[Finding]:
    """Many trials share the best validation metric: what decided says little."""
    tied = {r.arm.label: r.ties + 1 for r in c.results if r.ties + 1 >= _MANY_TIES * len(r.trials) >= 2}
    if tied:
        second = c.sweep.objective.tie_metric
        decided = f"{second} decided" if second else "the earliest was taken"
        yield Finding(
            "note",
            "ties",
            f"Many trials share the best {c.validation.label} ({listed(tied)} of "
            f"{max(len(r.trials) for r in c.results)}) and {decided}.",
            "A larger validation set, or a harder task, would tell them apart.",
            evidence=tied,
        )


def still_rising(c: Comparison) -> Iterator[Finding]:
    """The best-after-k curve still climbs at its end: more trials would find something better."""
    rising = {}
    for r in c.results:
        if r.tuning is None or r.tuning.k.size < _FEW_TRIALS:
            continue
        value = r.tuning.value * c.validation.sign
        gain, late = value[-1] - value[0], value[-1] - value[math.ceil(0.75 * value.size) - 1]
        matters = _MATTERS * (1.0 if c.validation.is_share else abs(value[-1]))
        if gain > 0 and late > _STILL_RISING * gain and late > matters:
            rising[r.arm.label] = float(late)
    if rising:
        unit = " points" if c.validation.is_share else ""
        shares = ", ".join(
            f"{name} {c.validation.number(gain, signed=True)}{unit}" for name, gain in rising.items()
        )
        yield Finding(
            "warning",
            "search-not-converged",
            f"The last quarter of the trials still gained much of all that was gained ({shares} expected).",
            f"Search longer: {command(c, 'extend', c.sweep.planned_trials)}.",
            evidence=rising,
        )


def lucky(c: Comparison) -> Iterator[Finding]:
    """The best trial did better on validation data than any of its replicates: it was chosen for its luck."""
    lucky: dict[str, float] = {}
    for r in c.results:
        again = np.array(
            [
                v
                for run in r.finished
                if r.best and run.study == r.best.study and math.isfinite(v := run.final(c.validation.name))
            ]
        )
        if r.best is None or again.size < _FEW_REPLICATES:
            continue
        chosen = r.best.final(c.validation.name)
        gap = float(chosen - again.mean())
        noticeable = max(
            2 * float(again.std(ddof=1)), _MATTERS * (1.0 if c.validation.is_share else abs(chosen))
        )
        if (
            c.validation.sign * gap > noticeable
            and c.validation.sign * chosen > (c.validation.sign * again).max()
        ):
            lucky[r.arm.label] = gap
    if lucky:
        unit = " points" if c.validation.is_share else ""
        gaps = ", ".join(
            f"{name} {c.validation.number(gap, signed=True)}{unit}" for name, gap in lucky.items()
        )
        yield Finding(
            "note",
            "lucky-best",
            f"The best trial has a much better {c.validation.label} than any of its replicates ({gaps} "
            "against their mean): much of what the search found is luck.",
            "Quote the replicates, as the verdict does, never the best trial.",
            evidence=lucky,
        )


def untuned(c: Comparison) -> Iterator[Finding]:
    """An arm without a search against arms with one."""
    searched = [r for r in c.results if r.arm.space and len(r.trials) > 1]
    for r in c.results:
        if searched and (not r.arm.space or (r.replicates and len(r.trials) <= 1)):
            who = f"The baseline {r.arm.label}" if r.arm == c.baseline else r.arm.label
            yield Finding(
                "error" if r.arm == c.baseline else "warning",
                "untuned",
                f"{who} was not tuned, while {count(len(searched), 'arm')} searched a space.",
                f"Give it a space and as many trials: sweep.arms.{r.arm.name}.space.optim.lr.",
                arm=r.arm.name,
            )


def default_rate(c: Comparison) -> Iterator[Finding]:
    """An arm that searches something, but not its learning rate, against arms that do."""
    rates = {r.arm.label: any(axis.key.endswith("lr") for axis in r.arm.space) for r in c.results}
    for r in c.results:
        if r.arm.space and any(rates.values()) and not rates[r.arm.label]:
            yield Finding(
                "warning",
                "rate-not-searched",
                f"{r.arm.label} did not search its learning rate, while "
                f"{', '.join(label for label, searched in rates.items() if searched)} did.",
                f"Let it: sweep.arms.{r.arm.name}.space.optim.lr.",
                arm=r.arm.name,
            )


def spaces(c: Comparison) -> Iterator[Finding]:
    """Arms search different numbers of keys, or much wider ranges of the same key."""
    sizes = {r.arm.label: len(r.arm.space) for r in c.results if r.arm.space}
    if len(set(sizes.values())) > 1:
        yield Finding(
            "note",
            "unequal-spaces",
            f"The arms search different numbers of parameters ({listed(sizes)}) with as many trials.",
            "More parameters need more trials; fix the ones that matter little.",
            evidence=sizes,
        )
    widths: dict[str, float] = {}
    for r in c.results:
        for axis in r.arm.space:
            if axis.key.endswith("lr") and axis.log and axis.low > 0:
                widths[r.arm.label] = math.log10(axis.high / axis.low)
    if widths and max(widths.values()) > 2 * min(widths.values()) > 0:
        decades = ", ".join(f"{label} {width:.1f}" for label, width in widths.items())
        yield Finding(
            "note",
            "unequal-ranges",
            f"The learning rates are searched over different numbers of decades ({decades}): a narrow range "
            "is knowledge that the others were not given.",
            "Search as many decades for every arm.",
            evidence=widths,
        )


def validation_disagrees(c: Comparison) -> Iterator[Finding]:
    """The trials' validation metric does not order their test metric."""
    for r in c.results:
        pairs = [
            (run.final(c.validation.name), run.final(c.test.name))
            for run in r.trials
            if run.state == "finished"
        ]
        x = np.array([pair for pair in pairs if all(map(math.isfinite, pair))])
        if len(x) < 10 or np.ptp(x[:, 0]) == 0 or np.ptp(x[:, 1]) == 0:
            continue
        rank = float(stats.spearmanr(x[:, 0], x[:, 1]).statistic)
        if rank < 0.3:
            yield Finding(
                "note",
                "validation-disagrees",
                f"{r.arm.label}: the validation metric hardly orders the test metric of its trials (Spearman "
                f"{f'{rank:.2f}'.replace('-', '−')} over {len(x)}): which one is chosen is mostly chance.",
                "Use a larger validation set, or several independent searches (search.studies).",
                arm=r.arm.name,
                evidence={"spearman": rank, "n": len(x)},
            )


def _end(axis: Axis, value: Any) -> str | None:
    """ "low" or "high" when the value lies at that end of the axis; None otherwise, and for words."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not axis.choices:
        if not axis.at_edge(value):
            return None
        low, high, x = (math.log(v) if axis.log else v for v in (axis.low, axis.high, value))
        return "high" if x - low > high - x else "low"
    numbers = [v for v in axis.choices if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) < 3 or len(numbers) < len(axis.choices):
        return None  # two numbers are both at an end
    return "low" if value <= min(numbers) else "high" if value >= max(numbers) else None


CHECKS = (
    test_selects,
    test_read_often,
    same_data,
    measured_when,
    untuned,
    default_rate,
    edges,
    ties,
    still_rising,
    spaces,
    lucky,
    validation_disagrees,
)
