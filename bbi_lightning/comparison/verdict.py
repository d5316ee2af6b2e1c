"""What a comparison says in words, and what should make a reader doubt it; both follow from the numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bbi_lightning.comparison.results import ALPHA, ArmResult, Comparison
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


def warnings(comparison: Comparison) -> tuple[str, ...]:
    """What may be wrong with a comparison, a sentence each with its remedy; empty when nothing is."""
    checks = (_unreadable, _edges, _ties, _budgets, _too_few, _losses, _foreign, _code, _hardware)
    return tuple(sentence for check in checks for sentence in check(comparison))


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
    if len(without) == len(c.contestants):
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
    return f"{now}; it would take about {plan.n} to settle one of this size."


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


def _unreadable(c: Comparison) -> Iterator[str]:
    logs = (run.log_damage for r in c.results for run in r.replicates)
    problems = [*c.sweep.problems, *(damage for damage in logs if damage)]
    yield from problems[:5]
    if len(problems) > 5:
        yield f"{len(problems) - 5} more run folders could not be used."


def _edges(c: Comparison) -> Iterator[str]:
    for r in c.results:
        for axis in r.edges:
            assert r.best is not None
            value = write_value(r.best.params[axis.key])
            yield (
                f"The best trial of {r.arm.label} lies at the edge of its space ({axis.key} = {value} in "
                f"{write_value(axis.low)} to {write_value(axis.high)}): something better may lie beyond, "
                "widen the space and extend the search."
            )


def _ties(c: Comparison) -> Iterator[str]:
    tied = {r.arm.label: r.ties + 1 for r in c.results if 4 * (r.ties + 1) >= len(r.trials) > 8}
    if tied:
        second = c.sweep.objective.tie_metric
        decided = f"{second} decided" if second else "the earliest was taken"
        yield (
            f"Many trials share the best {c.validation.label} ({_list(tied)} of {c.sweep.planned_trials}) "
            f"and {decided}: a larger validation set, or a harder task, would tell them apart."
        )


def _budgets(c: Comparison) -> Iterator[str]:
    spent = {r.arm.label: r.count("search", "finished", "diverged", "failed") for r in c.results}
    if len(set(spent.values())) > 1:
        yield f"The searches had different budgets ({_list(spent)} trials): more trials are an advantage."
    for quantity, word in (("steps", "optimizer steps"), ("parameters", "model parameters")):
        typical = {r.arm.label: n for r in c.results if math.isfinite(n := r.typical(quantity))}
        if len(set(typical.values())) > 1:
            yield f"The replicates differ in {word} ({_list(typical)}): the arms did not have the same task."


def _too_few(c: Comparison) -> Iterator[str]:
    pairs = [r.versus for r in c.results if r.versus is not None]
    if pairs and len(pairs) * min(p.smallest_p for p in pairs) > ALPHA:
        needed = math.ceil(1 + math.log2(len(pairs) / ALPHA))
        yield (
            f"{count(max(p.difference.n for p in pairs), 'pair')}: too few for the test to reach p < {ALPHA} "
            f"in {count(len(pairs), 'comparison')}: train at least {needed} replicates an arm."
        )


def _losses(c: Comparison) -> Iterator[str]:
    for state, consequence in (
        ("diverged", "means and intervals are of the others"),
        ("failed", "the same command trains them again"),
    ):
        lost = {r.arm.label: n for r in c.results if (n := r.count("replicate", state))}
        if lost:
            yield f"Replicates {state} ({_list(lost)}): {consequence}."
    failed = {r.arm.label: n for r in c.results if (n := r.count("search", "failed"))}
    if failed:
        yield f"Search trials failed ({_list(failed)}): these arms searched less, run the sweep again."


def _foreign(c: Comparison) -> Iterator[str]:
    for r in c.results:
        if r.replicates and not r.replicates_its_best:
            yield (
                f"The replicates of {r.arm.label} do not have the parameters of its best trial: "
                "run the sweep again to replicate the best."
            )
        elif r.foreign:
            yield f"{count(r.foreign, 'replicate')} of {r.arm.label} left out: not of its best trial."


def _code(c: Comparison) -> Iterator[str]:
    versions = Counter(version for run in c.sweep.runs if (version := code_version(run.record)))
    if len(versions) > 1:
        shown = Counter(dict(versions.most_common(3)))
        more = f" and {len(versions) - 3} more versions" if len(versions) > 3 else ""
        yield f"The runs were made by different code ({_list(shown)} runs{more}): that may be the difference."
    elif any(version.endswith("modified") for version in versions):
        yield "The code had changes that are in no commit: commit them before you publish this."


def _hardware(c: Comparison) -> Iterator[str]:
    machines = {r.arm.label: sorted({hardware(run.record) for run in r.replicates}) for r in c.results}
    kinds = {tuple(kinds) for kinds in machines.values() if kinds}
    if len(kinds) > 1 or any(len(kind) > 1 for kind in kinds):
        where = "; ".join(f"{label} on {' and '.join(kinds)}" for label, kinds in machines.items() if kinds)
        yield f"The replicates ran on different hardware ({where}): do not compare their times."


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


def _list(numbers: dict[str, Any] | Counter[str]) -> str:
    return ", ".join(f"{name} {write_count(n)}" for name, n in numbers.items())


def count(n: int, word: str) -> str:
    """ "1 trial", "2 trials"."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def write_count(number: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")
