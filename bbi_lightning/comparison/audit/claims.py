"""What somebody says about two arms, held against the numbers.

A claim is a sentence of the form "BBI is better than SGD": it holds where a comparison with that baseline
says so itself, interval and corrected test alike. "No better" and "as good as" are no proofs of equality:
they are contradicted by a difference that is shown, and by nothing else.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from bbi_lightning.comparison.audit.finding import Finding, Level, command
from bbi_lightning.comparison.results import ArmResult, Comparison, compare_sweep
from bbi_lightning.comparison.verdict import count, write_p

Relation = Literal["better", "worse", "same", "not better", "not worse"]

_SIGNS: dict[str, Relation] = {
    ">": "better", "<": "worse", "=": "same", "==": "same", "~": "same", "≈": "same",
    "<=": "not better", "≤": "not better", ">=": "not worse", "≥": "not worse",
}  # fmt: skip
_CLAIM = re.compile(
    r"(?P<arm>[^<>=~≈≤≥]+?)\s*(?P<sign><=|>=|==|[<>=~≈≤≥])\s*(?P<other>[^<>=~≈≤≥]+?)"
    r"(?:\s+by\s+(?P<size>\d+(?:\.\d+)?)\s*(?:%|points?|pp)?)?\s*"
)


@dataclass(frozen=True)
class Claim:
    """`arm` is `relation` (than, as) `other`: names of arms.

    `size`: by how much, in the metric's written unit (points of accuracy), None where that is not said.
    `text`: as it was said.
    """

    arm: str
    relation: Relation
    other: str
    size: float | None = None
    text: str = ""


def parse_claim(comparison: Comparison, text: str) -> Claim:
    """Read "bbi > sgd", "bbi > sgd by 0.3", "adamw = sgd", "bbi <= sgd"; > means better, in whatever metric.

    Raises:
        ValueError: it is no such form, or names no two different arms; one sentence with the remedy.
    """
    match = _CLAIM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'the claim {text!r} cannot be read: write it as "bbi > sgd" or "bbi > sgd by 0.3"')
    arm, other = (_arm(comparison, match[side]) for side in ("arm", "other"))
    if arm == other:
        raise ValueError(f"the claim {text!r} is about one arm, {arm}: name two")
    relation = _SIGNS[match["sign"]]
    size = float(match["size"]) if match["size"] else None
    if size is not None and relation not in ("better", "worse"):
        raise ValueError(f"the claim {text!r} has a size but no direction: use > or < with by")
    return Claim(arm, relation, other, size, text.strip())


def _arm(c: Comparison, word: str) -> str:
    by_word = {arm.label.lower(): arm.name for arm in c.sweep.arms} | {
        arm.name.lower(): arm.name for arm in c.sweep.arms
    }
    word = word.strip().lower()
    if word in by_word:
        return by_word[word]
    near = difflib.get_close_matches(word, list(by_word), n=1, cutoff=0.6)
    names = [arm.name for arm in c.sweep.arms]
    hint = f"did you mean {by_word[near[0]]}?" if near else f"use one of {', '.join(names)}"
    raise ValueError(f"{word!r} is no arm of sweep {c.sweep.name}: {hint}")


def check_claim(comparison: Comparison, claim: Claim, *, where: str = "") -> Finding:
    """A finding about a claim: a note where it holds, a warning where it is not shown, an error where the
    numbers say the contrary.

    Args:
        comparison: of a sweep that has both arms; its own baseline does not matter.
        where: the place of the claim, as "README.md, line 12"; the finding quotes the claim with it.
    """
    c = _against(comparison, claim.other)
    result = c.result(claim.arm)
    level, code, judgement = _judge(claim, result)
    size = _judge_size(c, claim, result) if level == "note" else None
    if size is not None:
        level, code, judgement = size
    said = f"{where}: “{claim.text}” {judgement}" if where else f"“{claim.text}” {judgement}"
    remedy = ""
    if code == "claim-not-shown" and result.more_seeds is not None and result.more_seeds.more:
        more = result.more_seeds.more
        remedy = f"Do not say so, or train more seeds: {command(c, 'extend', '--replicates', more)}."
    elif level != "note":
        remedy = "Do not say so." if code == "claim-contradicted" else "Say what the numbers say."
    return Finding(
        level, code, f"{said}: {_numbers(c, claim, result)}.", remedy, claim.arm, _evidence(result, claim)
    )


def _judge(claim: Claim, result: ArmResult) -> tuple[Level, str, str]:
    seen = result.conclusion
    shown = seen in ("better", "worse")
    if claim.relation in ("better", "worse"):
        if seen == claim.relation:
            return "note", "claim-holds", "holds"
        if shown:
            return "error", "claim-contradicted", "is contradicted"
        return "warning", "claim-not-shown", "is not shown"
    denied = {"same": ("better", "worse"), "not better": ("better",), "not worse": ("worse",)}[claim.relation]
    if seen in denied:
        return "error", "claim-contradicted", "is contradicted"
    if seen == "no data":
        return "warning", "claim-not-shown", "is not shown"
    return "note", "claim-holds", "is not contradicted" if not shown else "holds"


def _judge_size(c: Comparison, claim: Claim, result: ArmResult) -> tuple[Level, str, str] | None:
    if claim.size is None or result.versus is None:
        return None
    d = result.versus.difference
    half = 0.5 * 10.0 ** -_decimals(claim.text)  # what rounding may have done to the number
    low, high = sorted(abs(end) * c.test.scale for end in (d.low, d.high))
    if low - half <= claim.size <= high + half:
        return None
    return "warning", "claim-size", "has the direction right and the size wrong"


def _decimals(text: str) -> int:
    numbers = re.findall(r"\d+(?:\.(\d+))?", text)
    return len(numbers[-1]) if numbers else 0


def _numbers(c: Comparison, claim: Claim, result: ArmResult) -> str:
    if result.versus is None:
        return "no replicates of the two share a seed"
    d, unit = result.versus.difference, " points" if c.test.is_share else ""
    p = f", {write_p(result.p_value)} after correction" if math.isfinite(result.p_value) else ""
    unstable = ", and replicates diverged" if result.conclusion == "unstable" else ""
    return (
        f"{result.arm.label} minus {c.baseline.label} is {c.test.number(d.value, signed=True)}{unit} in "
        f"{c.test.label}, 95 % interval {c.test.interval(d, signed=True)}, {count(d.n, 'pair')}{p}{unstable}"
    )


def _evidence(result: ArmResult, claim: Claim) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "arm": claim.arm, "relation": claim.relation, "other": claim.other, "conclusion": result.conclusion,
    }  # fmt: skip
    if result.versus is not None:
        d = result.versus.difference
        evidence |= {"difference": d.value, "low": d.low, "high": d.high, "n": d.n, "p": result.p_value}
    return evidence


def _against(comparison: Comparison, other: str) -> Comparison:
    if comparison.baseline.name == other:
        return comparison
    return _compared(_Held(comparison), other)


class _Held:
    """A comparison by identity: it holds dictionaries, and has no hash of its own."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def __hash__(self) -> int:
        return id(self.comparison)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.comparison is self.comparison


@lru_cache(maxsize=16)
def _compared(held: _Held, other: str) -> Comparison:
    """The same sweep against another arm; computed once for all claims about it."""
    return compare_sweep(held.comparison.sweep, other)
