"""Few characters, and never more than there is room for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.cli.live import words


@given(
    st.floats(-1e99, -1e-98) | st.floats(1e-98, 1e99) | st.sampled_from([0.0, math.nan, math.inf, -math.inf])
)
def test_numbers_fit_their_columns(value):
    assert len(words.short_number(value)) <= 8
    if value >= 0 and value < 1e14:
        assert len(words.short_count(value)) <= 7
    assert len(words.metric_value("val/acc", value)) <= 8 or not 0 <= value <= 1


@given(st.floats(0, 1e8))
def test_durations_fit_their_columns(seconds):
    assert len(words.short_duration(seconds)) <= 8


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (2.3026, "2.303"), (0.0214, "0.0214"), (123.4, "123.4"), (2.4e-7, "2.4e-07"),
     (math.nan, "nan"), (-0.5, "-0.5000"), (1234567, "1.2e+06")],
)  # fmt: skip
def test_numbers(value, text):
    assert words.short_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.83, "0.8"),
        (12.4, "12"),
        (940.2, "940"),
        (9999, "9999"),
        (14853, "14.9k"),
        (2_140_000, "2.1M"),
        (None, "–"),
    ],
)
def test_counts(value, text):
    assert words.short_count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.2, "8 s"), (200, "3m20"), (7500, "2h05"), (4.3 * 86400, "4d07h"), (None, "–")]
)
def test_durations(seconds, text):
    assert words.short_duration(seconds) == text


@given(st.lists(st.floats(), max_size=200), st.integers(1, 40), st.booleans())
def test_a_sparkline_is_never_longer_than_asked(values, width, plain):
    line = words.sparkline(values, width, plain=plain)
    assert len(line) == min(len(values), width)
    assert not plain or line.isascii()


def test_a_sparkline_is_logarithmic_and_shows_what_is_no_number():
    assert words.sparkline([1e-0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7], 8) == "█▇▆▅▄▃▂▁"
    assert words.sparkline([8, 4, 0, math.nan], 8) == "█▅▁×"
    assert words.sparkline([3.0, 3.0], 8) == "▁▁"
    assert words.sparkline([], 8) == ""


@given(st.floats(0, 1) | st.none(), st.integers(1, 40))
def test_a_bar_is_as_long_as_asked_and_full_only_at_the_end(share, width):
    full, empty = words.bar(share, width)
    assert len(full) + len(empty) == width
    assert empty or share == 1 or (share or 0) > 1 - 1e-8


@given(st.text(max_size=60), st.integers(1, 40))
def test_what_is_elided_keeps_both_ends(text, width):
    short = words.elided(text, width)
    assert len(short) == min(len(text), width)
    if len(text) > width > 4:
        assert short[0] == text[0]
        assert short[-1] == text[-1]


@given(st.lists(st.floats(), max_size=200), st.integers(1, 40), st.integers(1, 12))
def test_a_chart_has_its_size_and_no_holes(values, width, height):
    lines = words.chart(values, width, height)
    assert len(lines) == height
    assert all(len(line) == min(len(values), width) for line in lines)
    for column in zip(*lines, strict=True):  # what stands on nothing is nowhere
        filled = [c != " " for c in column]
        assert filled == sorted(filled)
        assert not filled or filled[-1]


def test_a_chart_of_one_line_is_a_sparkline():
    curve = [2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]
    assert words.chart(curve, 8, 1) == [words.sparkline(curve, 8)]
    assert words.chart(curve, 8, 2) == ["█▆▄▂    ", "████▇▅▃▁"]
