"""Claims about arms found in a text: a README, a paper's draft, a page of notes.

Reads plain English sentences of Markdown: one that names two arms and compares them ("BBI outperforms SGD",
"AdamW is no better than SGD", "is beaten by"), one that calls an arm the best, and percentages beside one
arm's name. It is no reader of English: what it cannot place is left alone, or handed back as a note, and a
sentence that hedges ("may", "whether") is no claim. Code blocks are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bbi_lightning.comparison.audit.claims import Claim, Relation, check_claim
from bbi_lightning.comparison.audit.finding import Finding
from bbi_lightning.comparison.audit.quoted import check_numbers
from bbi_lightning.comparison.results import Comparison

_NEVER = r"(?:not|never|n't|no|cannot|can't|hardly|nor)"
_WORDS: tuple[tuple[Relation, str], ...] = (
    (
        "worse",
        r"(?:is|are|was|were|gets?)\s+(?:\w+ly\s+)?(?:outperformed|beaten|surpassed|exceeded)\s+by|underperform\w*|"
        r"worse\s+than|inferior\s+to|loses?\s+(?:out\s+)?to|(?:falls?|lags?|is|are|stays?)\s+behind|"
        r"(?:lower|smaller)\s+(?:test\s+)?accurac\w+\s+than|"
        r"(?:higher|larger|greater)\s+(?:test\s+)?(?:loss|error)\w*\s+than",
    ),
    (
        "better",
        r"outperform\w*|beats?|beat|surpass\w*|better\s+(?:results?\s+|accurac\w+\s+)?than|superior\s+to|"
        r"improves?\s+(?:up)?on|improves?\s+over|wins?\s+(?:over|against)|ahead\s+of|more\s+accurate\s+than|"
        r"(?:higher|larger|greater)\s+(?:test\s+)?accurac\w+\s+than|"
        r"(?:lower|smaller)\s+(?:test\s+)?(?:loss|error)\w*\s+than",
    ),
    (
        "same",
        r"as\s+(?:good|accurate|well)\s+as|on\s+(?:a\s+)?par\s+with|indistinguishable\s+from|"
        r"(?:is|are)\s+equal\s+to|match(?:es)?(?=\s)|equivalent\s+to|cannot\s+be\s+told\s+from",
    ),
)
_MORE_OR_LESS = (
    r"(?P<more>higher|larger|greater)\s+than|(?P<less>lower|smaller)\s+than"  # of what stands before
)
_RELATIONS = re.compile(
    "|".join([*(f"(?P<{relation}>{words})" for relation, words in _WORDS), _MORE_OR_LESS]), re.IGNORECASE
)
_ASIDE = re.compile(r",?\s*\b(?:unlike|in contrast (?:to|with)|as opposed to)\s+[^,]*,", re.IGNORECASE)
_BEST = re.compile(
    r"(?:is|are|was|performs?|does|did)\s+(?:clearly\s+)?(?:the\s+)?best\b(?!\s+(?:trial|of|when|if|known))|"
    r"(?:the\s+)?(?:highest|best)\s+(?:test\s+)?accuracy|(?:outperforms?|beats?)\s+(?:all|every)\b",
    re.IGNORECASE,
)
_NO_DIFFERENCE = re.compile(r"\bno\s+(?:\w+\s+){0,2}differences?\s+(?:\w+\s+){0,2}between\b", re.IGNORECASE)
_HEDGED = re.compile(
    r"\b(?:may|might|could|would|should|whether|if|expect\w*|hope\w*|suppos\w*|hypothes\w*|question|unless)\b|\?\s*$",
    re.IGNORECASE,
)
_OTHER_MATTER = re.compile(
    r"\b(?:fast\w*|quick\w*|slow\w*|speed|time|seconds|memory|training\s+loss|tuning|robust\w*|steps?|easier|"
    r"simpler|energy|convergence)\b",
    re.IGNORECASE,
)
_SIZE = re.compile(
    r"\bby\s+(?:about\s+|some\s+|around\s+)?(\d+(?:\.\d+)?)\s*(?:%|points?|percentage points?|pp)", re.I
)
_PARTS = re.compile(
    r"[,;:]\s+(?=but|while|whereas|and|yet|though)|;\s+|\s+(?:while|whereas)\s+", re.IGNORECASE
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z“\"*`(\[])")


@dataclass(frozen=True)
class Sentence:
    """A sentence and the number of the line that it begins on, from 1."""

    line: int
    text: str


def check_text(comparison: Comparison, text: str, name: str) -> tuple[Finding, ...]:
    """Hold every claim that a text makes about the arms against the numbers.

    Args:
        text: Markdown, or plain text.
        name: of the file, for the findings: "README.md".
    """
    return tuple(f for sentence in sentences(text) for f in _check(comparison, sentence, name))


def sentences(text: str) -> list[Sentence]:
    """The sentences of a Markdown text; a table's row, a heading and an item of a list are one each."""
    found: list[Sentence] = []
    paragraph: list[str] = []
    first, fenced = 1, False

    def close() -> None:
        whole = " ".join(paragraph)
        offset, lines = 0, _starts(paragraph)
        for part in _SENTENCES.split(whole):
            at = whole.index(part, offset)
            offset = at + len(part)
            found.append(Sentence(first + sum(start <= at for start in lines) - 1, part))
        paragraph.clear()

    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        fence = line.startswith(("```", "~~~"))
        apart = bool(re.match(r"[-*+]\s|\d+[.)]\s|#|\|", line)) or fence or fenced or not line
        if apart and paragraph:
            close()
        fenced ^= fence
        if fence or fenced or not line or (raw.startswith(("    ", "\t")) and not paragraph):
            continue
        if not paragraph:
            first = number
        paragraph.append(line)
        if line.startswith(("#", "|")):
            close()
    if paragraph:
        close()
    return [sentence for sentence in found if sentence.text.strip()]


def _starts(lines: Iterable[str]) -> list[int]:
    """Where each line begins in the lines joined by blanks."""
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    return starts


def claims_in(c: Comparison, sentence: str) -> Iterator[Claim]:
    """The claims that a sentence makes; none from one that hedges."""
    plain = re.sub(r"[*_`]", "", re.sub(r'"[^"]*"|“[^”]*”', "…", sentence))  # what is quoted is not said
    if _HEDGED.search(plain):
        return
    size = _SIZE.search(plain)
    subjects: list[str] = []
    for part in _PARTS.split(_ASIDE.sub("", plain)):
        found = list(_claims(c, part, subjects))
        own = float(size[1]) if size and len(found) == 1 and size[0] in part else None
        for arm, relation, other in found:
            yield Claim(arm, relation, other, own if relation in ("better", "worse") else None, plain.strip())


def _claims(c: Comparison, part: str, subjects: list[str]) -> Iterator[tuple[str, Relation, str]]:
    """(arm, relation, other) of a clause. `subjects`: of the clause before, and afterwards of this one."""
    arms = list(mentions(c, part))
    words = list(_RELATIONS.finditer(part))
    best = _BEST.search(part)
    if (best and not words) or (best and re.search(r"all|every", best[0])):
        before = [name for at, name in arms if at < best.start()]
        if len(set(before)) == 1 and not _denied(part, best.start()):
            yield from ((before[0], "better", arm.name) for arm in c.sweep.arms if arm.name != before[0])
        return
    between = _NO_DIFFERENCE.search(part)
    if between:
        both = [name for at, name in arms if at >= between.end()][:2]
        if len(set(both)) == 2:
            yield both[0], "same", both[1]
        return
    for place, word in enumerate(words):
        start = words[place - 1].end() if place else 0
        end = words[place + 1].start() if place + 1 < len(words) else len(part)
        left = [name for at, name in arms if start <= at < word.start()]
        right = [name for at, name in arms if word.end() <= at < end]
        if place:  # of the arms between two verbs the last is the second's, unless it has the first's subject
            left = left[-1:] if len(left) > 1 else subjects
        if place + 1 < len(words) and len(right) > 1:
            right = right[:-1]
        subjects[:] = left or subjects
        relation = _relation(word, part[start : word.start()], _denied(part, word.start()))
        for arm in subjects if relation else ():
            yield from ((arm, relation, other) for other in right if relation and other != arm)


def _relation(word: re.Match[str], before: str, denied: bool) -> Relation | None:
    """What the words say, None if "higher than" is said of something that is not known to be good or bad."""
    relation = next((relation for relation, _ in _WORDS if word[relation] is not None), None)
    if relation is None:
        good, bad = (re.search(words, before, re.IGNORECASE) for words in (r"accurac", r"\b(?:loss|error)"))
        if bool(good) == bool(bad):
            return None
        relation = "better" if bool(word["more"]) == bool(good) else "worse"
    if not denied or relation == "same":
        return relation
    return "not better" if relation == "better" else "not worse"


def _denied(part: str, at: int) -> bool:
    """Whether a "not" stands within three words before the place."""
    return bool(re.search(rf"(?:\b|(?<=n)){_NEVER}(?:\s+\w+){{0,2}}\s*$", part[:at], re.IGNORECASE))


def mentions(c: Comparison, text: str) -> Iterator[tuple[int, str]]:
    """Where a text names arms, by label or name: (position, the arm's name), in the text's order."""
    words = {word.lower(): arm.name for arm in c.sweep.arms for word in (arm.name, arm.label)}
    longest = sorted(map(re.escape, words), key=len, reverse=True)  # "SGD with momentum" before "SGD"
    pattern = rf"(?<![\w/.=-])(?:{'|'.join(longest)})(?![\w=]|[/.-]\w)"
    for match in re.finditer(pattern, text, re.IGNORECASE):
        yield match.start(), words[match[0].lower()]


def _check(c: Comparison, sentence: Sentence, name: str) -> Iterator[Finding]:
    named = list(mentions(c, sentence.text))
    if not named:
        return
    where = f"{name}, line {sentence.line}"
    claims = list(claims_in(c, sentence.text))
    if claims and _OTHER_MATTER.search(sentence.text) and not re.search(r"accura|test", sentence.text, re.I):
        yield Finding(
            "note",
            "claim-not-checked",
            f"{where}: “{_short(sentence.text)}” is about something else than {c.test.label}.",
            "Look for it in the pictures of `bbi compare`.",
            evidence={"line": sentence.line},
        )
    else:
        for claim in claims:
            quoted = Claim(claim.arm, claim.relation, claim.other, claim.size, _short(claim.text))
            yield check_claim(c, quoted, where=where)
    if not _SIZE.search(sentence.text):
        yield from check_numbers(c, sentence.text, named, where)


def _short(text: str, most: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
