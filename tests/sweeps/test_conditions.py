import itertools

import pytest
import toy_task
from hypothesis import given, settings
from hypothesis import strategies as st

from bbi_lightning.sweeps.conditions import check_point, count_levels, count_points, ends, grid, is_active
from bbi_lightning.sweeps.overrides import trial_overrides
from bbi_lightning.sweeps.points import arm_points, point_sequence
from bbi_lightning.sweeps.samplers import Question, Seen, ask
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spaces import CategoricalSpace, FloatSpace, parse_space
from bbi_lightning.sweeps.spec import parse_spec

SPACE = {
    "x": {"low": 0.001, "high": 1.0, "log": True, "points": 2},
    "kind": {"choices": ["sgd", "adam", "bbi"]},
    "momentum": {"low": 0.0, "high": 0.9, "points": 3, "when": {"kind": "sgd"}},
    "nesterov": {"choices": [True, False], "when": {"kind": ["sgd", "adam"]}},
    "depth": {"type": "int", "low": 1, "high": 3, "when": {"nesterov": True, "kind": "sgd"}},
}


def spec(space=SPACE, **search):
    search = {"sampler": "halton", "trials": 40, "seed": 0} | search
    return toy_task.spec(search=search, arms={"a": {"overrides": ["fixed=1"], "space": space}})


def parsed(space):
    return {key: parse_space(key, value) for key, value in space.items()}


def right(point):
    """Exactly the keys that the description says are searched at this point."""
    keys = {"x", "kind"}
    keys |= {"momentum"} if point["kind"] == "sgd" else set()
    keys |= {"nesterov"} if point["kind"] in ("sgd", "adam") else set()
    keys |= {"depth"} if point["kind"] == "sgd" and point["nesterov"] is True else set()
    return set(point) == keys


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random"])
def test_a_key_is_in_a_point_exactly_when_its_condition_holds(sampler):
    points = arm_points(spec(sampler=sampler), spec().arm("a"))
    assert all(map(right, points))
    assert {point["kind"] for point in points} == {"sgd", "adam", "bbi"}
    assert any("depth" in point for point in points)


def test_a_key_that_is_not_active_is_in_no_command_line():
    sweep = spec()
    for point in arm_points(sweep, sweep.arm("a")):
        overrides = trial_overrides(sweep, sweep.arm("a"), point, 0)
        assert any(text.startswith("momentum=") for text in overrides) == (point["kind"] == "sgd")


def test_tpe_and_the_gaussian_process_respect_conditions():
    for sampler in ("tpe", "gp"):
        sweep = spec(sampler=sampler)
        arm = sweep.arm("a")
        points = itertools.islice(point_sequence(sweep, arm, 0, 16), 16)
        history = [Seen(i, point, value=float(i)) for i, point in enumerate(points)]
        assert all(right(ask(Question(sweep, arm, 0, number), history)) for number in (16, 17, 18))


def test_a_grid_has_each_combination_of_what_is_active_once():
    points = grid(parsed(SPACE))
    assert all(map(right, points))
    assert len({repr(point) for point in points}) == len(points) == count_levels(parsed(SPACE))
    assert len(points) == 2 * (3 * (3 + 1) + 2 + 1)
    assert parse_spec(spec(sampler="grid", trials=30).plain()).search.trials == 30


@settings(max_examples=50)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms())
def test_points_are_counted_as_they_are_listed(sizes, random):
    space = {}
    for number, size in enumerate(sizes):
        when = {}
        for other, known in space.items():
            if random.random() < 0.5:
                when[other] = random.sample(known["choices"], random.randint(1, len(known["choices"])))
        space[f"k{number}"] = {"choices": list(range(size))} | ({"when": when} if when else {})
    points = grid(parsed(space))
    assert count_points(parsed(space)) == count_levels(parsed(space)) == len(points)
    assert len({repr(point) for point in points}) == len(points)


def test_many_integers_are_counted_without_being_listed():
    space = parsed(
        {
            "n": {"type": "int", "low": 1, "high": 10**9},
            "m": {"type": "int", "low": 1, "high": 10**6, "when": {"n": [7, 9]}},
        }
    )
    assert count_points(space) == 10**9 - 2 + 2 * 10**6


def test_a_finite_conditional_space_is_searched_whole():
    space = {
        "kind": {"choices": ["a", "b"]},
        "n": {"type": "int", "low": 1, "high": 5, "when": {"kind": "a"}},
    }
    sweep = spec(space, trials=6)
    assert len({repr(p) for p in arm_points(sweep, sweep.arm("a"))}) == 6
    with pytest.raises(SweepError, match="has only 6 different points"):
        spec(space, trials=7)


def test_the_ends_visit_every_end_of_every_key_however_deep():
    points = ends(parsed(SPACE))
    assert all(map(right, points))
    for key, space in parsed(SPACE).items():
        seen = {repr(point[key]) for point in points if key in point}
        assert {repr(value) for value in space.ends} <= seen


def test_what_is_written_is_read():
    sweep = spec()
    assert parse_spec(sweep.plain()) == sweep
    assert sweep.plain()["arms"]["a"]["space"]["momentum"]["when"] == {"kind": ["sgd"]}


def test_one_and_true_are_different_values():
    space = FloatSpace(0.0, 1.0, when=(("flag", (True,)),))
    assert is_active(space, {"flag": True})
    assert not is_active(space, {"flag": 1})
    assert not is_active(space, {})


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            {"x": {"low": 0.1, "high": 1.0, "when": {"kidn": "a"}}},
            "arms.a.space.x.when: kidn is not searched by this arm: it needs a key above it",
        ),
        (
            {"kind": {"choices": ["a"]}, "x": {"low": 0.1, "high": 1.0, "when": {"kidn": "a"}}},
            "arms.a.space.x.when: kidn is not searched by this arm: did you mean kind?",
        ),
        (
            {"x": {"low": 0.1, "high": 1.0, "when": {"kind": "a"}}, "kind": {"choices": ["a", "b"]}},
            "arms.a.space.x.when: kind comes later in the space: write it above x",
        ),
        (
            {"y": {"low": 0.1, "high": 1.0}, "x": {"low": 0.1, "high": 1.0, "when": {"y": 0.5}}},
            "arms.a.space.x.when: y is a range of floats: only choices and integers can be a condition",
        ),
        (
            {"kind": {"choices": ["a", "b"]}, "x": {"low": 0.1, "high": 1.0, "when": {"kind": "c"}}},
            "arms.a.space.x.when: kind is never c: use a value of its space",
        ),
        (
            {"kind": {"choices": ["a", "b"]}, "x": {"low": 0.1, "high": 1.0, "when": "a"}},
            "arms.a.space.x.when=a must be a mapping, such as {optim.kind: adam}",
        ),
        (
            {"kind": {"choices": ["a", "b"]}, "x": {"low": 0.1, "high": 1.0, "when": {"kind": []}}},
            "arms.a.space.x.when.kind=[] must be a value or a list of values",
        ),
    ],
)
def test_mistakes_get_one_sentence(space, sentence):
    with pytest.raises(SweepError) as error:
        spec(space, trials=1)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"x": 0.1}, "arm a searches x, kind, momentum, nesterov, depth: give kind=VALUE"),
        (
            {"x": 0.1, "kind": "bbi", "momentum": 0.5},
            "momentum is only searched when kind=sgd: drop it",
        ),
        ({"x": 2.0, "kind": "bbi"}, "x=2.0 is outside the space of arm a: it goes from 0.001 to 1.0"),
        ({"x": 0.1, "kind": "c"}, "kind=c is outside the space of arm a: use one of sgd, adam, bbi"),
        (
            {"x": 0.1, "kind": "bbi", "z": 1},
            "arm a does not search z: use one of x, kind, momentum, nesterov, depth",
        ),
    ],
)
def test_a_point_by_hand_is_checked(point, sentence):
    with pytest.raises(SweepError) as error:
        check_point("a", parsed(SPACE), point)
    assert str(error.value) == sentence


def test_every_point_of_the_search_could_have_been_given_by_hand():
    sweep = spec()
    for point in arm_points(sweep, sweep.arm("a")):
        check_point("a", sweep.arm("a").space, point)
    check_point("a", {"k": CategoricalSpace((None,))}, {"k": None})
