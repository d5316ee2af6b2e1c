import copy

import pytest
import toy_task
import yaml

from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import check_metrics, parse_spec


def changed(path, value):
    """The toy description with one key set (or, for ..., removed)."""
    data = copy.deepcopy(toy_task.description())
    *parents, last = path.split(".")
    section = data
    for parent in parents:
        section = section[parent]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return data


def test_what_is_written_is_read():
    spec = toy_task.spec(
        arms={
            "one": {
                "label": "One",
                "overrides": ["a=b"],
                "space": {"c.d": {"choices": ["x", None, 1.5, True]}},
            },
            "two": {"space": {"n": {"type": "int", "low": 1, "high": 64, "log": True}}},
        },
        title="A title — with signs: 'quoted'",
    )
    assert parse_spec(yaml.safe_load(yaml.safe_dump(spec.plain()))) == spec


def test_defaults():
    data = changed("replicates", ...)
    del data["base"], data["workers"], data["search"]["seed"], data["search"]["sampler"]
    spec = parse_spec(data)
    assert (spec.title, spec.base, spec.workers, spec.replicates.count) == ("toy", (), 1, 0)
    assert (spec.search.sampler, spec.search.seed) == ("halton", 0)
    assert spec.arm("plain").label == "plain"


def test_a_key_may_be_nested_so_that_a_command_line_reaches_it():
    lr, decay = {"low": 0.1, "high": 1.0}, {"choices": [0.0, 0.1, 0.2, 0.3]}
    flat = parse_spec(changed("arms.plain.space", {"optim.lr": lr, "optim.w.decay": decay}))
    nested = parse_spec(changed("arms.plain.space", {"optim": {"lr": lr, "w": {"decay": decay}}}))
    assert nested == flat
    assert list(flat.arm("plain").space) == ["optim.lr", "optim.w.decay"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("serach", {}, "serach is not a key of a sweep: did you mean search?"),
        ("search.trails", 4, "search.trails is not a key of a sweep: did you mean trials?"),
        ("name", ..., "name is missing: every sweep needs it"),
        ("name", "a/b", "name=a/b must be letters, digits, '-', '_' or '.': it names a file"),
        ("name", "..", "name=.. must be letters, digits, '-', '_' or '.': it names a file"),
        ("format", 2, "format=2 is newer than this program: update bbi_lightning"),
        ("base", "a=1", "base=a=1 must be a list of overrides such as [optim=sgd]"),
        ("base", [1], "base holds 1: write each override as text, key=value"),
        ("objective", ..., "objective is missing: every sweep needs it"),
        ("objective", 3, "objective=3 must be a mapping with the keys metric, direction, tie_breaker"),
        (
            "objective.metric",
            "accuracy",
            "objective.metric=accuracy is not a metric's name: write it as val/acc",
        ),
        ("objective.metric", "test/acc", "objective.metric=test/acc would select on test data: use val/acc"),
        (
            "objective.direction",
            "maximise",
            "objective.direction=maximise is unknown: did you mean maximize?",
        ),
        (
            "objective.tie_breaker.metric",
            "test/loss",
            "objective.tie_breaker.metric=test/loss would select on test data: use val/loss",
        ),
        ("search.sampler", "haltn", "search.sampler=haltn is unknown: did you mean halton?"),
        (
            "search.sampler",
            "best",
            "search.sampler=best is unknown: use one of halton, sobol, random, grid, tpe, gp, cmaes",
        ),
        ("search.trials", 0, "search.trials=0 is too small: it must be at least 1"),
        ("search.trials", 1.5, "search.trials=1.5 must be a whole number"),
        ("search.trials", True, "search.trials=true must be a whole number"),
        ("search.seed", -1, "search.seed=-1 is too small: it must be at least 0"),
        ("replicates.count", -1, "replicates.count=-1 is too small: it must be at least 0"),
        (
            "replicates.first_seed",
            0,
            "replicates.first_seed=0 makes the search's own seed 0 a replicate: "
            "a replicate needs a fresh seed, use first_seed=1 or more",
        ),
        ("workers", 0, "workers=0 is too small: it must be at least 1"),
        ("arms", {}, "arms={} must be a mapping with at least one arm, such as sgd: {…}"),
        ("arms.plain.space", {}, "arms.plain.space is empty: give the keys to search, such as optim.lr"),
        ("arms.plain.space", ..., "arms.plain.space is missing: every sweep needs it"),
        ("arms.plain.spce", {}, "arms.plain.spce is not a key of a sweep: did you mean space?"),
        (
            "arms.plain.space.x.low",
            -1.0,
            "arms.plain.space.x: low=-1.0 has no logarithm: raise low above 0 or drop log",
        ),
        (
            "arms.plain.space.x y",
            {"low": 0, "high": 1},
            "arms.plain.space: x y is not a config key: write it as optim.lr",
        ),
        (
            "arms.plain.space.seed",
            {"low": 0, "high": 1},
            "arms.plain.space: seed cannot be searched, the sweep sets it: drop it",
        ),
        (
            "arms.plain.space.runtime.root",
            {"choices": ["a", "b"]},
            "arms.plain.space: runtime.root cannot be searched, the sweep sets it: drop it",
        ),
        (
            "arms.plain.overrides",
            ["x=1"],
            "arms.plain: x is both searched and in overrides: drop one of them",
        ),
        (
            "arms.plain.space",
            {"k": {"choices": [1, 2, 3]}},
            "search.trials=4, but arms.plain.space has only 3 different points: "
            "use at most 3 trials or widen the space",
        ),
        (
            "arms.plain.space",
            {"a.b": {"choices": [1, 2]}, "a": {"b": {"choices": [1, 2]}}},
            "arms.plain.space: a.b is given twice: drop one of them",
        ),
        (
            "search.sampler",
            "grid",
            "arms.plain.space.x has no levels for sampler=grid: add points: 4",
        ),
    ],
)
def test_mistakes_get_one_sentence(path, value, sentence):
    if path == "arms.plain.space.runtime.root":
        data = changed("arms.plain.space", {"runtime.root": value})
    else:
        data = changed(path, value)
    with pytest.raises(SweepError) as error:
        parse_spec(data)
    assert str(error.value) == sentence


def test_a_grid_has_as_many_points_as_trials():
    data = changed("search.sampler", "grid")
    data["arms"] = {"a": {"space": {"x": {"low": 0.0, "high": 1.0, "points": 3}, "k": {"choices": [1, 2]}}}}
    with pytest.raises(SweepError) as error:
        parse_spec(data)
    assert str(error.value) == ("search.trials=4, but the grid of arms.a.space has 6 points: make them equal")
    data["search"]["trials"] = 6
    parse_spec(data)


def test_a_metric_that_no_run_reports_is_found_before_the_start():
    spec = toy_task.spec(objective={"metric": "val/accuracy", "direction": "maximize"})
    with pytest.raises(
        SweepError, match=r"^objective.metric=val/accuracy is not reported by a run: did you mean val/acc\?$"
    ):
        check_metrics(spec, ["val/acc", "val/loss"])
    check_metrics(spec, [])
