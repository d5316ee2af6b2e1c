import itertools

import numpy as np
import pytest
import toy_task

from bbi_lightning.sweeps.points import arm_points, edge_points, shared_columns, unit_points

LR = {"low": 0.001, "high": 1.0, "log": True}
MOMENTUM = {"low": 0.0, "high": 0.99}


def spec(trials=8, sampler="halton", seed=0, **arms):
    return toy_task.spec(
        search={"sampler": sampler, "trials": trials, "seed": seed},
        arms={name: {"space": space} for name, space in arms.items()},
    )


def points(sweep, arm):
    return arm_points(sweep, sweep.arm(arm))


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random"])
@pytest.mark.parametrize(
    "space", [{"lr": LR, "momentum": MOMENTUM}, {"n": {"type": "int", "low": 1, "high": 99}}]
)
def test_a_longer_search_starts_with_the_shorter_one(sampler, space):
    long = points(spec(64, sampler, a=space), "a")
    for trials in (1, 5, 16, 63):
        assert points(spec(trials, sampler, a=space), "a") == long[:trials]


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random"])
def test_the_points_depend_on_the_seed_alone(sampler):
    same = [points(spec(sampler=sampler, seed=s, a={"lr": LR}), "a") for s in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random"])
def test_equal_spaces_share_their_coordinates(sampler):
    decay = {"low": 1e-6, "high": 1e-2, "log": True}
    sweep = spec(
        16,
        sampler,
        sgd={"momentum": MOMENTUM, "lr": LR, "decay": decay},
        adam={"lr": LR, "beta": MOMENTUM, "decay": decay},
        other={"lr": LR | {"high": 2.0}, "decay": decay},
    )
    sgd, adam, other = (points(sweep, arm) for arm in ("sgd", "adam", "other"))
    for key in ("lr", "decay"):
        assert [p[key] for p in sgd] == [p[key] for p in adam]
    assert [p["decay"] for p in sgd] == [p["decay"] for p in other]
    assert all(a["lr"] != o["lr"] for a, o in zip(adam, other, strict=True))


def test_two_keys_of_an_arm_never_share_a_coordinate_and_few_are_used():
    a, b, c, d = ({"low": 0.0, "high": float(i)} for i in range(1, 5))
    sweep = spec(x={"p": a, "q": b}, y={"q": b, "r": c}, z={"r": c, "p": a}, w={"s": d})
    columns = shared_columns(sweep)
    for arm in sweep.arms:
        used = [columns[pair] for pair in arm.space.items()]
        assert len(set(used)) == len(used)
    assert set(columns.values()) == {
        0,
        1,
        2,
    }  # a triangle of neighbours needs three, `s` needs none of its own


def test_adding_an_arm_without_common_keys_moves_nobody():
    alone = points(spec(a={"lr": LR, "m": MOMENTUM}), "a")
    assert points(spec(a={"lr": LR, "m": MOMENTUM}, b={"x": LR, "y": MOMENTUM}), "a") == alone


def test_halton_covers_better_than_chance():
    cells = lambda u: len({tuple(row) for row in np.floor(u * [8, 9]).astype(int)})  # noqa: E731
    assert cells(unit_points("halton", 72, 2, 0)) == 72  # 2³·3² points: one in each cell
    assert cells(unit_points("random", 72, 2, 0)) < 60


def test_a_grid_is_the_whole_product():
    space = {"lr": LR | {"points": 4}, "kind": {"choices": ["a", "b"]}}
    grid = points(spec(8, "grid", a=space), "a")
    expected = itertools.product((0.001, 0.01, 0.1, 1.0), ("a", "b"))
    assert [tuple(p.values()) for p in grid] == list(expected)


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random"])
def test_a_finite_space_gives_no_point_twice(sampler):
    space = {"kind": {"choices": [1, True, "1"]}, "n": {"type": "int", "low": 1, "high": 4}}
    everything = points(spec(12, sampler, a=space), "a")
    assert len({repr(p) for p in everything}) == 12
    assert points(spec(7, sampler, a=space), "a") == everything[:7]


def test_the_edges_visit_every_end_and_choice():
    space = {"lr": LR, "n": {"type": "int", "low": 1, "high": 4}, "kind": {"choices": ["a", "b", "c"]}}
    edges = edge_points(spec(4, a=space).arm("a"))
    seen = {key: {p[key] for p in edges} for key in space}
    assert seen == {"lr": {0.001, 1.0}, "n": {1, 4}, "kind": {"a", "b", "c"}}


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random"])
def test_each_study_has_points_of_its_own_those_of_the_next_seed(sampler):
    sweep = spec(8, sampler, a={"lr": LR})
    second = arm_points(sweep, sweep.arm("a"), study=1)
    assert not {repr(p) for p in second} & {repr(p) for p in points(sweep, "a")}
    assert second == points(spec(8, sampler, seed=1, a={"lr": LR}), "a")


def test_sobol_takes_any_count_and_covers_better_than_chance():
    cells = lambda u: len({tuple(row) for row in np.floor(u * 8).astype(int)})  # noqa: E731
    assert cells(unit_points("sobol", 64, 2, 0)) == 64  # 2³·2³ points: one in each cell
    assert unit_points("sobol", 7, 3, 0).shape == (7, 3)
    assert unit_points("sobol", 1, 1, 0).shape == (1, 1)
