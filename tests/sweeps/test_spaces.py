import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spaces import CategoricalSpace, FloatSpace, IntSpace, parse_space

UNIT = st.floats(0.0, 1.0)
SPACES = [
    FloatSpace(0.01, 1.0, log=True),
    FloatSpace(-1.0, 3.0),
    FloatSpace(0.1, 0.10005),
    FloatSpace(1e-12, 1e12, log=True),
    IntSpace(1, 8),
    IntSpace(16, 4096, log=True),
    IntSpace(-3, 0),
    CategoricalSpace(("a", None, True, 2)),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
@given(unit=UNIT, other=UNIT)
def test_values_stay_inside_and_keep_the_order(space, unit, other):
    values = [space.value(u) for u in sorted((unit, other))]
    if isinstance(space, CategoricalSpace):
        assert all(value in space.choices for value in values)
    else:
        assert space.low <= values[0] <= values[1] <= space.high


@pytest.mark.parametrize("space", SPACES[:-1], ids=str)
def test_the_ends_are_reached(space):
    assert (space.value(0.0), space.value(1.0)) == space.ends


def test_a_log_space_spreads_the_decades_evenly():
    space = FloatSpace(0.001, 1.0, log=True)
    assert space.value(1 / 3) == pytest.approx(0.01, rel=1e-3)
    assert space.value(2 / 3) == pytest.approx(0.1, rel=1e-3)


def test_a_sampled_float_can_be_typed_by_hand():
    assert len(str(FloatSpace(0.1, 0.9).value(math.pi / 10))) <= len("0.1234")


def test_a_narrow_range_is_not_rounded_away():
    space = FloatSpace(0.1, 0.10005)
    assert len({space.value(i / 100) for i in range(101)}) == 101


@pytest.mark.parametrize("log", [False, True])
def test_every_integer_owns_a_part(log):
    space = IntSpace(1, 5, log=log)
    assert {space.value(i / 200) for i in range(201)} == {1, 2, 3, 4, 5}
    assert space.size == 5


def test_integers_are_uniform():
    space = IntSpace(0, 9)
    counts = [sum(space.value((i + 0.5) / 1000) == k for i in range(1000)) for k in range(10)]
    assert counts == [100] * 10


def test_levels_of_a_grid():
    assert FloatSpace(0.01, 1.0, log=True, points=3).levels() == (0.01, 0.1, 1.0)
    assert IntSpace(1, 4).levels() == (1, 2, 3, 4)
    assert IntSpace(1, 100, points=2).levels() == (1, 100)
    assert CategoricalSpace(("a", "b")).levels() == ("a", "b")


@pytest.mark.parametrize(
    "space", [*SPACES, FloatSpace(0.1, 0.2, points=5), IntSpace(1, 9, points=3)], ids=str
)
def test_what_is_written_is_read(space):
    assert parse_space("x", space.plain()) == space


def test_integers_are_asked_for_by_name():
    assert parse_space("x", {"low": 0, "high": 1}) == FloatSpace(0.0, 1.0)
    assert parse_space("x", {"type": "int", "low": 0, "high": 1}) == IntSpace(0, 1)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (0.1, "x=0.1 is not a space: write {low: 0.01, high: 1.0, log: true} or {choices: [a, b]}"),
        ({"low": 1.0}, "x.high is missing: a range needs low and high"),
        ({"low": 1.0, "high": 1.0}, "x: low=1.0 is not below high=1.0: swap or widen them"),
        ({"low": 2.0, "high": 1.0}, "x: low=2.0 is not below high=1.0: swap or widen them"),
        ({"low": 0, "high": 1, "log": True}, "x: low=0 has no logarithm: raise low above 0 or drop log"),
        ({"low": "a", "high": 1}, "x.low=a must be a finite number"),
        ({"low": 0, "high": math.inf}, "x.high=inf must be a finite number"),
        ({"low": 0, "high": True}, "x.high=true must be a finite number"),
        ({"low": 0, "high": 1, "log": "yes"}, "x.log=yes must be true or false"),
        ({"low": 0, "high": 1, "points_": 3}, "x.points_ is not a key of a sweep: did you mean points?"),
        ({"low": 0, "high": 1, "points": 1}, "x.points=1 is too small: it must be at least 2"),
        ({"type": "integer", "low": 0, "high": 1}, "x.type=integer is unknown: did you mean int?"),
        (
            {"type": "int", "low": 0.5, "high": 3},
            "x: low=0.5 and high=3.0 must be whole numbers, or drop type: int",
        ),
        ({"choices": []}, "x.choices=[] must be a list with at least one value"),
        ({"choices": "ab"}, "x.choices=ab must be a list with at least one value"),
        ({"choices": [[1]]}, "x.choices holds [1]: a choice is a text, a number, true, false or null"),
        ({"choices": [1, 2, 1]}, "x.choices=[1, 2, 1] names a value twice: drop one of them"),
        ({"choices": [1], "low": 0}, "x.low is not a key of a sweep: use one of choices, when"),
    ],
)
def test_mistakes_get_one_sentence(data, sentence):
    with pytest.raises(SweepError) as error:
        parse_space("x", data)
    assert str(error.value) == sentence
