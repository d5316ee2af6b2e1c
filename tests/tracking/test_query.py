"""The language that chooses runs: what it says, and what it refuses."""

import contextlib
import math
import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.tracking.field_names import FieldNames
from bbi_lightning.tracking.query import (
    QueryError,
    as_text,
    comparisons,
    matches,
    number,
    parse,
    predicate,
)

RUNS = {
    "bbi": {
        "state": "finished",
        "optim": "bbi",
        "optim.lr": 0.3,
        "test/acc": 0.97,
        "dirty": True,
        "tags": ["paper", "figure-2"],
        "started": "2026-11-25T09:31:05+00:00",
        "duration": 7300.0,
    },
    "sgd": {
        "state": "finished",
        "optim": "sgd",
        "optim.lr": 0.1,
        "optim.momentum": 0.9,
        "test/acc": 0.95,
        "dirty": False,
        "started": "2026-11-20T09:31:05+00:00",
        "duration": 60.0,
    },
    "adamw": {
        "state": "diverged",
        "optim": "adamw",
        "optim.lr": 0.001,
        "optim.betas": [0.9, 0.999],
        "test/acc": math.nan,
        "dirty": False,
        "note": "spike (at step 400)",
    },
    "broken": {"state": "failed", "optim": "AdamW", "reason": "OutOfMemoryError", "dirty": True},
}
NAMES = FieldNames(set().union(*RUNS.values()))


def chosen(query: str) -> set[str]:
    holds = predicate(parse(query), NAMES.resolve)
    return {name for name, fields in RUNS.items() if holds(fields)}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"bbi", "sgd", "adamw", "broken"}),
        ("optimizer=bbi", {"bbi"}),
        ("optim = ADAMW", {"adamw", "broken"}),
        ("optimizer==bbi and test/acc>0.9 or state=failed and lr in (0.1,0.3)", {"bbi"}),
        ("optimizer=bbi and test/acc>0.9 or state=failed", {"bbi", "broken"}),
        ("optim.lr in (1e-1, 3.0e-1)", {"bbi", "sgd"}),
        ("lr not in (0.1, 0.3)", {"adamw", "broken"}),
        ("lr>=0.1 and lr<0.3", {"sgd"}),
        ("NOT state=finished AND NOT state=failed", {"adamw"}),
        ("not (state=finished or state=failed)", {"adamw"}),
        ("momentum != 0.9", {"bbi", "adamw", "broken"}),
        ("momentum <> 0.9", {"bbi", "adamw", "broken"}),
        ("momentum is null", {"bbi", "adamw", "broken"}),
        ("momentum is not null", {"sgd"}),
        ("momentum < 1", {"sgd"}),
        ("dirty", {"bbi", "broken"}),
        ("not dirty", {"sgd", "adamw"}),
        ("dirty = no", {"sgd", "adamw"}),
        ("tags = paper", {"bbi"}),
        ("tags != paper", {"sgd", "adamw", "broken"}),
        ("tags ~ ^fig", {"bbi"}),
        ("betas = 0.999", {"adamw"}),
        ("started > 2026-11-24", {"bbi"}),
        ("started ~ 2026-11-2[05]", {"bbi", "sgd"}),
        ("duration > 2h", {"bbi"}),
        ("duration <= 1min", {"sgd"}),
        ("test/acc = nan", {"adamw"}),
        ("test/acc < 2", {"bbi", "sgd"}),
        ("not test/acc < 2", {"adamw", "broken"}),
        ("reason ~ memory", {"broken"}),
        ("reason !~ memory", {"bbi", "sgd", "adamw"}),
        ("note = 'spike (at step 400)'", {"adamw"}),
        ('note ~ "\\(at"', {"adamw"}),
        ("'optim.lr' = 0.3", {"bbi"}),
        ("state = 'finished' and optim in (bbi, 'sgd')", {"bbi", "sgd"}),
    ],
)
def test_a_query_chooses(query, expected):
    assert chosen(query) == expected


def expressions() -> st.SearchStrategy[str]:
    numbers = st.integers(-2, 2).map(str)
    columns = st.sampled_from(["a", "b", "c"])
    comparison = st.one_of(
        st.tuples(columns, st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="]), numbers).map(" ".join),
        st.tuples(columns, st.sampled_from([" in (", " not in ("]), numbers, numbers).map(
            lambda parts: f"{parts[0]}{parts[1]}{parts[2]}, {parts[3]})"
        ),
        st.tuples(columns, st.sampled_from([" is null", " is not null"])).map("".join),
    )
    return st.recursive(
        comparison,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
            inner.map(lambda text: f"({text})"),
            inner.map(lambda text: f"not ({text})"),
            inner.map(lambda text: f"not {text}"),
        ),
        max_leaves=12,
    )


@given(expressions())
def test_and_or_not_bind_as_in_sql(query):
    """SQLite reads the same text, where nothing is missing."""
    rows = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    with_sql = sqlite3.connect(":memory:")
    with_sql.execute("CREATE TABLE runs (a, b, c)")
    with_sql.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
    expected = set(with_sql.execute(f"SELECT a, b, c FROM runs WHERE {query}"))
    with_sql.close()
    holds = predicate(parse(query))
    assert {row for row in rows if holds(dict(zip("abc", row, strict=True)))} == expected


@given(st.text(max_size=40))
def test_any_text_is_a_query_or_a_sentence(text):
    with contextlib.suppress(QueryError):
        assert predicate(parse(text))({}) in (True, False)


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\\" not in text))
def test_quotes_hold_any_text(text):
    quoted = '"' + text.replace('"', '\\"') + '"'
    (comparison,) = comparisons(parse(f"name = {quoted}"))
    assert comparison.values == (text,)
    assert predicate(parse(f"name = {quoted}"))({"name": text})


@pytest.mark.parametrize("value", [None, True, 0.5, 3, "bbi", "0.5", ["a", "b"], [], math.nan])
@pytest.mark.parametrize("word", ["0.5", "bbi", "true", "nan", "a"])
def test_different_is_not_equal(value, word):
    fields = {"x": value}
    assert predicate(parse(f"x != {word}"))(fields) == (not predicate(parse(f"x = {word}"))(fields))
    assert predicate(parse(f"x in ({word})"))(fields) == predicate(parse(f"x = {word}"))(fields)


def test_types_are_not_mixed():
    assert matches(1, "=", "1.0")
    assert not matches(True, "=", "1")
    assert matches(True, "=", "yes")
    assert matches("10", "<", "9")  # text is in alphabetical order
    assert not matches(10, "<", "9")
    assert not any(matches(None, symbol, "1") for symbol in ("=", "<", ">=", "~"))
    assert not any(matches(math.nan, symbol, "1") for symbol in ("=", "<", "<=", ">", ">="))
    assert matches(math.inf, ">", "1e300")


@pytest.mark.parametrize(
    ("word", "value"),
    [("1e-3", 1e-3), (".5", 0.5), ("-2", -2.0), ("inf", math.inf), ("90s", 90.0), ("2d", 172800.0)],
)
def test_a_number(word, value):
    assert number(word) == value


@pytest.mark.parametrize("word", ["", "1e", "0x10", "1_000", "2026-11-25", "bbi", "3 h", "٣"])
def test_not_a_number(word):
    assert number(word) is None


def test_as_text():
    assert as_text([True, 0.1, "a"]) == "true, 0.1, a"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("lr >", 'at the end: a value after ">" is expected'),
        ("lr > and state=failed", 'a value after ">" is expected ("and" as a word of its own needs quotes)'),
        ("(lr>1", 'at the end: ")" is expected'),
        ("lr>1)", 'at \')\' (character 5): "and", "or" or the end is expected'),
        ("lr>1 state=failed", 'at \'state\' (character 6): "and", "or" or the end is expected'),
        ("lr in ()", "a value is expected"),
        ("lr in 0.1", '"(" is expected after "in"'),
        ("lr in (0.1 0.2)", '"," or ")" is expected'),
        ("lr is 3", '"null" is expected'),
        ("lr not 3", '"in" is expected'),
        ("and", "a field's name is expected"),
        ("=3", "a field's name is expected"),
        ("name='open", "(character 6): close the quote"),
        ("lr ! 3", "at '!' (character 4): use =, !="),
        ("name ~ '('", "is no regular expression"),
        ("(" * 60 + "lr>1" + ")" * 60, "more than 50"),
        ("not " * 10_000 + "lr>1", "more than 50"),
    ],
)
def test_a_mistake_is_a_sentence_that_says_where(query, sentence):
    with pytest.raises(QueryError, match=re.escape(sentence)):
        parse(query)


def test_names_are_found_by_their_ending_and_corrected():
    names = FieldNames(
        ["optim.lr", "optim.base.lr", "data.seed", "optim.seed", "test/acc", "val/acc", "a.b.deep"]
    )
    assert names.resolve("optimizer") == "optim"
    assert names.resolve("seed") == "seed"  # a whole name comes first
    assert names.resolve("lr") == "optim.lr"  # the shortest, for there is only one
    assert names.resolve("base.lr") == "optim.base.lr"
    assert names.resolve("deep") == names.resolve("b.deep") == "a.b.deep"
    with pytest.raises(QueryError, match=r"acc could be test/acc or val/acc: write one"):
        names.resolve("acc")
    with pytest.raises(QueryError, match=r"did you mean test/acc"):
        names.resolve("tset/acc")
    with pytest.raises(QueryError, match=r"`bbi runs ls --fields` lists them all"):
        names.resolve("zzzzzz")


@pytest.mark.parametrize("name", ["optim.lr", "optim.base.lr", "data.seed", "test/acc", "a.b.deep"])
def test_a_short_name_means_the_field(name):
    names = FieldNames(["optim.lr", "optim.base.lr", "data.seed", "optim.seed", "test/acc", "a.b.deep"])
    assert names.resolve(names.short(name)) == name
