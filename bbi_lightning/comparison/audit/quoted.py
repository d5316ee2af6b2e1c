"""Percentages that a text gives for an arm, held against that arm's own.

A percentage belongs to the arm that the sentence names, or to the one right before it where it names
several; in a table's row to the arm of the first cell. Only what could be a result is looked at: from five
points below the arm's worst replicate up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from bbi_lightning.comparison.audit.finding import Finding
from bbi_lightning.comparison.results import ArmResult, Comparison

_PERCENT = re.compile(
    r"(?<![\w.+−-])(\d{1,3}(?:\.\d+)?)\s*(?:%|per\s?cent)(?!\s*(?:interval|confidence|CI|level))",
    re.IGNORECASE,
)
_CELL = re.compile(r"(?<![\w.+−-])(\d{1,3}\.\d+)(?![\w.])")  # of a table, whose head has the unit
_SAYS_BEST = re.compile(r"\b(?:best|luckiest|max\w*)\b|\bvalidation\b", re.IGNORECASE)
_REACH = 12  # letters from an arm's name to its number, where a sentence names several
_BELOW = 5.0  # points


def check_numbers(c: Comparison, text: str, arms: list[tuple[int, str]], where: str) -> Iterator[Finding]:
    """Numbers beside an arm's name that are none of its own, or its luckiest run's without saying so.

    Args:
        text: a sentence.
        arms: the arms it names: (position, name), in its order.
        where: the sentence's place, for the findings.
    """
    if not c.test.is_share or _SAYS_BEST.search(text):
        return
    for match in (_CELL if text.startswith("|") else _PERCENT).finditer(text):
        arm = _owner(text, arms, match.start())
        if arm is not None:
            yield from _judge(c, c.result(arm), match[1], text, where)


def _owner(text: str, arms: list[tuple[int, str]], at: int) -> str | None:
    if len({name for _, name in arms}) == 1:
        return arms[0][1]
    before = [(place, name) for place, name in arms if place < at]
    if not before:
        return None
    place, name = before[-1]
    word = re.match(r"\S+", text[place:])
    return name if at - place - (word.end() if word else 0) <= _REACH else None


def _judge(c: Comparison, result: ArmResult, said: str, text: str, where: str) -> Iterator[Finding]:
    values = [v for run in result.finished if math.isfinite(v := run.final(c.test.name))]
    if result.mean is None or not values:
        return
    number, half = float(said), 0.5 * 10.0 ** -len(said.partition(".")[2]) + 1e-9

    def among(numbers: Iterable[float]) -> bool:
        return any(abs(100 * own - number) <= half for own in numbers)

    estimates = [e for e in (result.mean, result.median, result.iqm) if e is not None]
    # the ends of a median's interval are runs themselves, often the best: quoted only where it is spoken of
    medians = text.startswith("|") or "median" in text.lower()
    ends = [end for e in estimates if medians or e is not result.median for end in (e.low, e.high)]
    quotable = [own for own in (*ends, *(e.value for e in estimates)) if math.isfinite(own)]
    if among(quotable) or not 100 * min(values) - _BELOW <= number <= 100:
        return
    right = f"{c.test.text(result.mean.value)}, 95 % interval {c.test.interval(result.mean)}"
    evidence = {"said": number, "mean": result.mean.value}
    if among([max(values)]):
        yield Finding(
            "warning",
            "best-seed-quoted",
            f"{where}: {said} % for {result.arm.label} is what the best of its {len(values)} replicates "
            f"has; their mean is {right}.",
            "Quote the mean with its interval and n.",
            result.arm.name,
            evidence,
        )
    elif not among(values):
        yield Finding(
            "warning",
            "number-not-found",
            f"{where}: {said} % for {result.arm.label} is none of its numbers in {c.sweep.name}; its mean is "
            f"{right}.",
            "Bring the text up to date (`bbi compare --table markdown`), or say where it is from.",
            result.arm.name,
            evidence,
        )
