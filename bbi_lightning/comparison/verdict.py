"""What a comparison says in words; it follows from the numbers. What should make one doubt it: `audit`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import SeedPlan


@dataclass(frozen=True)
class Verdict:
    """`headline`: the conclusion in a sentence or two. `status`: whether all planned runs are in.
    `sentences`: one for each arm against the baseline, with interval, n and p."""

    headline: str
    status: str
    sentences: tuple[str, ...]


def verdict(comparison: Comparison) -> Verdict:
    """The verdict of a comparison."""
    return Verdict(
        headline=" ".join(_headline(comparison)),
        status=_status(comparison),
        sentences=tuple(_sentence(comparison, result) for result in comparison.contestants),
    )


def _headline(c: Comparison) -> Iterator[str]:
    def those(conclusion: str) -> list[ArmResult]:
        return [result for result in c.contestants if result.conclusion == conclusion]

    more, less = ("higher", "lower") if c.test.sign > 0 else ("lower", "higher")
    for conclusion, word in (("better", more), ("worse", less)):
        group = sorted(those(conclusion), key=lambda r: -abs(r.versus.difference.value) if r.versus else 0.0)
        if group:
            verb = "reaches" if len(group) == 1 else "reach"
            arms = _join(f"{r.arm.label} ({_difference(c, r, short=i > 0)})" for i, r in enumerate(group))
            yield f"{arms} {verb} a {word} {c.test.label} than {c.baseline.label}."
    undecided, unstable, without = those("undecided"), those("unstable"), those("no data")
    if len(undecided) == len(c.contestants) > 1:
        yield f"No arm can be told from {c.baseline.label} in {c.test.label}."
    elif undecided:
        yield f"{_join(r.arm.label for r in undecided)} cannot be told from {c.baseline.label}."
    if unstable:
        yield f"For {_join(r.arm.label for r in unstable)} there is no verdict, because replicates diverged."
    if not any(r.mean for r in c.results) and any(r.finished for r in c.results):
        yield f"No verdict: no finished replicate has {c.test.name}."
    elif len(without) == len(c.contestants):
        yield f"No verdict yet: no replicates of {c.baseline.label} and another arm share a seed."
    elif without:
        yield f"{_join(r.arm.label for r in without)} cannot be judged yet."


def _status(c: Comparison) -> str:
    missing = c.missing()
    if missing:
        return f"Preliminary: {count(missing, 'planned run')} not finished yet, the numbers may still change."
    return "Complete: every planned run is in."


def _sentence(c: Comparison, result: ArmResult) -> str:
    reference = c.result(c.baseline.name)
    name, other = result.arm.label, reference.arm.label
    if result.versus is None or result.mean is None or reference.mean is None:
        for r in (result, reference):
            if r.finished and r.mean is None:
                return f"{name}: no finished replicate of {r.arm.label} has {c.test.name}: nothing to judge."
            if r.trials and r.best is None:
                diverged = count(r.count("search", "diverged"), "trial")
                return (
                    f"{name}: no trial of {r.arm.label} has finished, {diverged} diverged: nothing to judge."
                )
        return f"{name}: no replicate shares a seed with one of {other} yet."

    difference, p = result.versus.difference, write_p(result.p_value)
    numbers = (
        f"{name} {c.test.text(result.mean.value)}, {other} {c.test.text(reference.mean.value)}: "
        f"{_difference(c, result)}, {count(difference.n, 'paired seed')}, {p} after correction."
    )
    if result.conclusion in ("better", "worse"):
        return f"{numbers} {name} is {result.conclusion}."
    if result.conclusion == "unstable":
        better = result if difference.value * c.test.sign > 0 else reference
        lost = f"{better.count('replicate', 'diverged')} of {len(better.replicates)}"
        return f"{numbers} No verdict: {lost} replicates of {better.arm.label} diverged."
    if difference.excludes(0.0):
        why = "The interval excludes zero, the paired test does not agree: no difference is shown."
    elif not difference.has_interval:
        why = "One pair has no interval: no difference is shown."
    else:
        why = "The interval contains zero: no difference is shown."
    return f"{numbers} {why}{_outlook(c, result.more_seeds)}"


def _outlook(c: Comparison, plan: SeedPlan | None) -> str:
    """What these and more seeds can show, each with a power of 80 %."""
    if plan is None:
        return ""
    unit = " points" if c.test.is_share else ""
    now = (
        f" {plan.pairs} pairs reliably find differences from {c.test.number(plan.detectable)}{unit} on"
        if math.isfinite(plan.detectable)
        else f" {plan.pairs} pairs are too few to find any"
    )
    if plan.n is None:
        return f"{now}; no reasonable number of seeds would settle one of this size."
    few, many = plan.fewest or plan.n, "any number" if plan.most is None else plan.most
    return f"{now}; it would take about {plan.n} ({few} to {many}) to settle one of this size."


def _difference(c: Comparison, result: ArmResult, *, short: bool = False) -> str:
    """ "+0.31 points, 95 % interval −0.03 to +0.64", or only the numbers of it."""
    assert result.versus is not None
    estimate = result.versus.difference
    if short:
        return f"{c.test.number(estimate.value, signed=True)}, {c.test.interval(estimate, signed=True)}"
    unit = " points" if c.test.is_share else ""
    interval = f"95 % interval {c.test.interval(estimate, signed=True)}"
    return (
        f"{c.test.number(estimate.value, signed=True)}{unit}, "
        f"{interval if estimate.has_interval else 'no interval'}"
    )


def write_p(p: float) -> str:
    """A p-value as it is quoted: "p = 0.023", "p < 0.001"."""
    if not math.isfinite(p):
        return "–"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def _join(words: Iterable[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last


def code_version(record: Any) -> str:
    """The code of a run's last attempt: "3f2a9c1", "3f2a9c1 modified", or the version without a commit."""
    if not record.attempts:
        return ""
    attempt = record.attempts[-1]
    if not attempt.commit:
        return f"version {attempt.versions.get('bbi_lightning', 'unknown')}"
    digest = f" {attempt.diff_sha256[:6]}" if attempt.diff_sha256 else ""
    return attempt.commit[:7] + (f"{digest} modified" if attempt.dirty else "")


def hardware(record: Any) -> str:
    """The machine of a run's last attempt: "2 × NVIDIA A100", or the processor and its threads."""
    if not record.attempts:
        return "unknown"
    facts = record.attempts[-1].hardware
    gpus = Counter(facts.get("gpus") or ())
    if gpus:
        return ", ".join(f"{count} × {name}" for name, count in gpus.items())
    return f"{facts.get('cpu', 'unknown processor')}, {facts.get('threads', '?')} threads"


def write_value(value: Any) -> str:
    """A parameter's value with three significant digits where it is a number."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def listed(numbers: Mapping[str, Any]) -> str:
    """ "BBI 3, SGD 4"."""
    return ", ".join(f"{name} {write_count(n)}" for name, n in numbers.items())


def count(n: int, word: str) -> str:
    """ "1 trial", "2 trials"."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def write_count(number: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")
