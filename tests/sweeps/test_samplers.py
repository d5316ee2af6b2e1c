import math

import numpy as np
import pytest
import toy_task

from bbi_lightning.sweeps.points import STARTUP, arm_points, point_sequence
from bbi_lightning.sweeps.samplers import Question, Seen, ask
from bbi_lightning.sweeps.section import SweepError

ADAPTIVE = ["tpe", "gp", "cmaes"]
SPACE = {
    "x": {"low": 0.001, "high": 1.0, "log": True},
    "y": {"low": -1.0, "high": 1.0},
    "n": {"type": "int", "low": 1, "high": 64, "log": True},
}


def spec(sampler, trials=40, seed=0, direction="maximize", **space):
    return toy_task.spec(
        search={"sampler": sampler, "trials": trials, "seed": seed},
        objective={"metric": "val/acc", "direction": direction},
        arms={"a": {"space": space or SPACE}, "b": {"space": space or SPACE}},
    )


def height(point):
    """A smooth hill: best, 0, at x = 0.03, y = 0.3, n = 8."""
    off = [math.log10(point["x"] / 0.03) / 3, (point["y"] - 0.3) / 2, math.log2(point["n"] / 8) / 6]
    return -sum(o * o for o in off)


def begun(sweep, count=STARTUP, value=height):
    """A history of `count` finished trials."""
    points = point_sequence(sweep, sweep.arm("a"), 0, count)
    return [
        Seen(i, point, value(point)) for i, (point, _) in enumerate(zip(points, range(count), strict=False))
    ]


def search(sweep, trials, sign=1.0):
    """The best of a whole search, one trial after the other."""
    arm = sweep.arm("a")
    history = [Seen(i, p, sign * height(p)) for i, p in enumerate(arm_points(sweep, arm)[:trials])]
    while len(history) < trials:
        point = ask(Question(sweep, arm, 0, len(history)), history)
        history.append(Seen(len(history), point, sign * height(point)))
    return max(sign * seen.value for seen in history)


@pytest.mark.parametrize("sampler", ADAPTIVE)
def test_the_same_history_gives_the_same_point(sampler):
    sweep = spec(sampler)
    question = Question(sweep, sweep.arm("a"), 0, 17)
    history = [*begun(sweep, 15), Seen(15, {"x": 0.5, "y": 0.5, "n": 3}, running=True)]
    first = ask(question, history)
    assert ask(question, list(reversed(history))) == first
    assert ask(Question(sweep, sweep.arm("a"), 0, 18), history) != first
    other = [Seen(3, seen.params, 1.0) if seen.number == 3 else seen for seen in history]
    assert ask(question, other) != first


@pytest.mark.parametrize("sampler", ADAPTIVE)
def test_a_search_that_learns_begins_with_the_points_of_one_that_does_not(sampler):
    sweep = spec(sampler)
    known = arm_points(sweep, sweep.arm("a"))
    assert known == arm_points(sweep, sweep.arm("b")) == arm_points(spec("halton"), sweep.arm("a"))[:STARTUP]
    assert len(arm_points(spec(sampler, trials=4), sweep.arm("a"))) == 4


@pytest.mark.parametrize("sampler", ADAPTIVE)
def test_until_enough_is_known_it_goes_on_as_one_that_does_not_learn(sampler):
    sweep = spec(sampler)
    sequence = arm_points(spec("halton"), sweep.arm("a"))
    running = [Seen(i, sequence[i], running=True) for i in range(STARTUP)]
    assert ask(Question(sweep, sweep.arm("a"), 0, STARTUP), running) == sequence[STARTUP]
    diverged = [Seen(i, sequence[i]) for i in range(STARTUP)]
    assert ask(Question(sweep, sweep.arm("a"), 0, STARTUP), diverged) in sequence


@pytest.mark.parametrize("sampler", ADAPTIVE)
def test_eight_who_ask_at_once_get_eight_points(sampler):
    sweep = spec(sampler)
    history = begun(sweep, 12)
    for number in range(12, 20):
        point = ask(Question(sweep, sweep.arm("a"), 0, number), history)
        history.append(Seen(number, point, running=True))
    assert len({repr(seen.params) for seen in history}) == 20
    spread = np.std([math.log10(seen.params["x"]) for seen in history[12:]])
    assert spread > 0.01, "not eight times the same"


@pytest.mark.parametrize("sampler", ADAPTIVE)
def test_values_lie_inside_and_can_be_typed_by_hand(sampler):
    sweep = spec(sampler)
    arm = sweep.arm("a")
    history = begun(sweep, 12)
    for number in range(12, 16):
        point = ask(Question(sweep, arm, 0, number), history)
        assert all(arm.space[key].contains(value) for key, value in point.items())
        assert [type(value) for value in point.values()] == [float, float, int]
        assert all(len(str(value).lstrip("-").replace("0.", "").lstrip("0")) <= 6 for value in point.values())
        history.append(Seen(number, point, height(point)))


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("cmaes", 40), ("gp", 20)])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_learning_beats_chance_on_a_smooth_hill(sampler, trials, direction):
    sign = 1.0 if direction == "maximize" else -1.0
    seeds = (0,) if sampler == "gp" else (0, 1, 2)
    learned = [search(spec(sampler, seed=s, direction=direction), trials, sign) for s in seeds]
    by_chance = []
    for seed in range(20):
        chance = spec("random", trials=trials, seed=seed)
        by_chance.append(max(map(height, arm_points(chance, chance.arm("a")))))
    assert np.mean(learned) > np.quantile(by_chance, 0.75)


@pytest.mark.parametrize("sampler", ADAPTIVE)
def test_what_diverged_is_not_tried_again(sampler):
    # the half x > 0.1 diverges; the values of the other half rise towards it
    sweep = spec(sampler, x={"low": 0.0, "high": 0.2}, y={"low": 0.0, "high": 1.0})
    arm = sweep.arm("a")
    history = []
    for number in range(24):
        known = arm_points(sweep, arm)
        point = known[number] if number < STARTUP else ask(Question(sweep, arm, 0, number), history)
        history.append(Seen(number, point, point["x"] if point["x"] < 0.1 else None))
    diverged = sum(seen.value is None for seen in history[STARTUP:])
    assert diverged < 0.5 * (24 - STARTUP)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_finite_space_gives_no_point_twice(sampler):
    sweep = spec(sampler, trials=15, k={"choices": [1, True, "1"]}, n={"type": "int", "low": 1, "high": 5})
    arm = sweep.arm("a")
    history = begun(sweep, 10, value=lambda point: float(point["n"]))
    for number in range(10, 15):
        history.append(Seen(number, ask(Question(sweep, arm, 0, number), history), 1.0))
    assert len({repr(seen.params) for seen in history}) == 15


def test_cmaes_goes_on_where_a_trial_has_failed():
    sweep = spec("cmaes")
    history = begun(sweep, 30)
    whole = ask(Question(sweep, sweep.arm("a"), 0, 30), history)
    without = [seen for seen in history if seen.number not in (3, 12)]
    assert ask(Question(sweep, sweep.arm("a"), 0, 30), without) != whole


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            {"choices": ["a", "b", "c", "d"]},
            "arms.a.space.x is a list of choices, which sampler=cmaes cannot search: use sampler=tpe",
        ),
        (
            {"low": 0.0, "high": 1.0, "when": {"k": 1}},
            "arms.a.space.x is conditional, which sampler=cmaes cannot search: use sampler=tpe",
        ),
    ],
)
def test_cmaes_refuses_what_it_cannot_search(space, sentence):
    with pytest.raises(SweepError) as error:
        spec("cmaes", trials=4, k={"type": "int", "low": 1, "high": 4}, x=space)
    assert str(error.value) == sentence
