"""A small, safe language to choose runs by: `optimizer=bbi and test/acc>0.9 or state=failed`.

    query       = alternative {"or" alternative}
    alternative = condition {"and" condition}
    condition   = "not" condition | "(" query ")" | comparison
    comparison  = field ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~") value
                | field ["not"] "in" "(" value {"," value} ")"
                | field "is" ["not"] "null"
                | field                                            true, of a field that is true or false

A word ends at a blank, a parenthesis, a comma, a quote or an operator; anything else goes into quotes.
Words have a type by what they are compared with, see `matches`. The text is parsed here and applied to plain
mappings: none of it ever reaches a database.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

Fields = Mapping[str, Any]
Predicate = Callable[[Fields], bool]

_KEYWORDS = ("and", "or", "not", "in", "is", "null")
_ORDERINGS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_WITH_UNIT = re.compile(r"([+-]?\d+(?:\.\d+)?)(s|min|h|d|w)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<symbol>==|!=|!~|<=|>=|<>|[=<>~(),])
      | (?P<word>[^\s"'=<>~!(),]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_DEEPEST = 50
_LONGEST = 200  # characters of a query that are repeated to the user


class QueryError(ValueError):
    """A mistake in a query: one sentence that says where, and what to write."""


class Token(NamedTuple):
    """A piece of the text: kind "word", "quoted", "symbol" or "end", its text, and where it begins."""

    kind: str
    text: str
    at: int

    def is_keyword(self, word: str) -> bool:
        """Whether this is that keyword, in any case, and not in quotes."""
        return self.kind == "word" and self.text.lower() == word


@dataclass(frozen=True)
class Comparison:
    """A field held against values: operator "=" (any of them), "<", "<=", ">", ">=", "~" or "null" (none)."""

    field: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Not:
    """What must not hold."""

    operand: Expression


@dataclass(frozen=True)
class All:
    """What must hold together."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Any_:  # noqa: N801  `Any` is typing's
    """What may hold in place of one another."""

    operands: tuple[Expression, ...]


Expression = Comparison | Not | All | Any_


def parse(text: str) -> Expression:
    """The query's tree; an empty text is true of every run.

    Raises:
        QueryError: the text is no query.
    """
    return _Parser(text).whole()


def comparisons(expression: Expression) -> Iterator[Comparison]:
    """Every comparison of a query, in the order written."""
    if isinstance(expression, Comparison):
        yield expression
    elif isinstance(expression, Not):
        yield from comparisons(expression.operand)
    else:
        for operand in expression.operands:
            yield from comparisons(operand)


def predicate(expression: Expression, resolve: Callable[[str], str] = str) -> Predicate:
    """A function that says of a run's fields whether the query holds.

    Args:
        expression: from `parse`.
        resolve: turns a name as the user wrote it into a key of the fields; may raise.
    """
    if isinstance(expression, Comparison):
        key, test = resolve(expression.field), _test(expression)
        return lambda fields: test(fields.get(key))
    if isinstance(expression, Not):
        inner = predicate(expression.operand, resolve)
        return lambda fields: not inner(fields)
    parts = [predicate(operand, resolve) for operand in expression.operands]
    if isinstance(expression, All):
        return lambda fields: all(part(fields) for part in parts)
    return lambda fields: any(part(fields) for part in parts)


def number(word: str) -> float | None:
    """The number that a word is: "1e-3", "inf", "90", or with a unit of time in seconds ("2h", "30min")."""
    timed = _WITH_UNIT.fullmatch(word)
    if timed:
        return float(timed[1]) * _UNITS[timed[2]]
    return float(word) if _NUMBER.fullmatch(word) else None


def matches(value: Any, comparator: str, word: str) -> bool:
    """Whether a field's value stands in this relation to a word of the query.

    A number is compared with numbers (NaN equals NaN and is in no order), a truth value with true and false,
    text with text regardless of case; text is ordered alphabetically, which for dates in ISO 8601 is their
    order. A list fulfils what any of its elements does. "~" searches a regular expression in what the value
    looks like, regardless of case. What is missing (None), or of another type, fulfils nothing.
    """
    return _test(Comparison("", comparator, (word,)))(value)


def _test(comparison: Comparison) -> Callable[[Any], bool]:
    """The comparison as a function of the value."""
    if comparison.operator == "null":
        return lambda value: value is None
    tests = [_word_test(comparison.operator, word) for word in comparison.values]
    single = tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def holds(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return any(single(element) for element in value)
        return single(value)

    return holds


def _word_test(comparator: str, word: str) -> Callable[[Any], bool]:
    if comparator == "~":
        pattern = _pattern(word)
        return lambda value: value is not None and pattern.search(as_text(value)) is not None
    as_number, folded = number(word), word.casefold()
    truth = {"true": True, "yes": True, "false": False, "no": False}.get(folded)
    if comparator == "=":
        if as_number is not None and math.isnan(as_number):
            return lambda value: (isinstance(value, float) and math.isnan(value)) or value == word
        return lambda value: (
            value.casefold() == folded
            if isinstance(value, str)
            else value is truth
            if isinstance(value, bool)
            else value is not None and value == as_number
        )
    order = _ORDERINGS[comparator]
    return lambda value: (
        order(value.casefold(), folded)
        if isinstance(value, str)
        else isinstance(value, (int, float))
        and not isinstance(value, bool)
        and as_number is not None
        and order(value, as_number)
    )


def _pattern(word: str) -> re.Pattern[str]:
    try:
        return re.compile(word, re.IGNORECASE)
    except re.error as error:
        raise QueryError(
            f"{word!r} after ~ is no regular expression ({error}): put a backslash before ( [ * + ?"
        ) from None


def as_text(value: Any) -> str:
    """What a value looks like to "~": numbers in their shortest form, lists with commas."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(as_text(element) for element in value)
    return str(value)


class _Parser:
    """Recursive descent; one token of lookahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens: Sequence[Token] = tuple(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        if self._now.kind == "end":
            return All(())
        expression = self._query()
        if self._now.kind != "end":
            self._fail('"and", "or" or the end is expected')
        return expression

    @property
    def _now(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._now
        self._next += token.kind != "end"
        return token

    def _skip(self, kind: str, text: str) -> bool:
        """Pass over a keyword or symbol if it is the next."""
        found = self._now.is_keyword(text) if kind == "word" else self._now[:2] == ("symbol", text)
        self._next += found
        return found

    def _query(self) -> Expression:
        operands = [self._alternative()]
        while self._skip("word", "or"):
            operands.append(self._alternative())
        return operands[0] if len(operands) == 1 else Any_(tuple(operands))

    def _alternative(self) -> Expression:
        operands = [self._condition()]
        while self._skip("word", "and"):
            operands.append(self._condition())
        return operands[0] if len(operands) == 1 else All(tuple(operands))

    def _condition(self) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"more than {_DEEPEST} parentheses or nots inside one another are not read")
        try:
            if self._skip("word", "not"):
                return Not(self._condition())
            if self._skip("symbol", "("):
                inside = self._query()
                if not self._skip("symbol", ")"):
                    self._fail('")" is expected')
                return inside
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Expression:
        field = self._word("a field's name")
        if self._skip("word", "is"):
            negated = self._skip("word", "not")
            if not self._skip("word", "null"):
                self._fail('"null" is expected')
            missing = Comparison(field, "null")
            return Not(missing) if negated else missing
        negated = self._skip("word", "not")
        if negated and not self._now.is_keyword("in"):
            self._fail('"in" is expected')
        if self._skip("word", "in"):
            chosen = Comparison(field, "=", self._list())
            return Not(chosen) if negated else chosen
        if self._now.kind != "symbol" or self._now.text in "(),":
            return Comparison(field, "=", ("true",))
        symbol = self._take().text
        symbol = {"==": "=", "<>": "!="}.get(symbol, symbol)
        value = self._word(f'a value after "{symbol}"')
        if symbol == "~" or symbol == "!~":
            _pattern(value)
        if symbol.startswith("!"):
            return Not(Comparison(field, symbol[1:], (value,)))
        return Comparison(field, symbol, (value,))

    def _list(self) -> tuple[str, ...]:
        if not self._skip("symbol", "("):
            self._fail('"(" is expected after "in"')
        values = [self._word("a value")]
        while self._skip("symbol", ","):
            values.append(self._word("a value"))
        if not self._skip("symbol", ")"):
            self._fail('"," or ")" is expected')
        return tuple(values)

    def _word(self, what: str) -> str:
        token = self._now
        if token.kind == "quoted":
            self._take()
            return re.sub(r"\\([\\\"'])", r"\1", token.text[1:-1])
        if token.kind != "word":
            self._fail(f"{what} is expected")
        if token.text.lower() in _KEYWORDS:
            self._fail(f'{what} is expected ("{token.text}" as a word of its own needs quotes)')
        return self._take().text

    def _fail(self, what: str) -> NoReturn:
        token = self._now
        place = "at the end" if token.kind == "end" else f"at {token.text!r} (character {token.at + 1})"
        raise QueryError(f"the query {_shown(self.text)} cannot be read {place}: {what}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def _tokens(text: str) -> Iterator[Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            quote = text[at] in "\"'"
            remedy = "close the quote" if quote else "use =, !=, <, <=, >, >=, ~, !~, or quotes"
            raise QueryError(
                f"the query {_shown(text)} cannot be read at {text[at]!r} (character {at + 1}): {remedy}"
            )
        kind = found.lastgroup or ""
        yield Token(kind, found[kind], found.start(kind))
        position = found.end()
    yield Token("end", "", end)
