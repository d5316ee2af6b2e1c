"""The short check of very many points: it says what the long one says."""

import pytest

from bbi_lightning.training import point_check
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.composition import compose
from bbi_lightning.training.config import validate
from bbi_lightning.training.point_check import PointCheck

BASE = ["data=digits", "model=mlp", "scheduler=cosine", "trainer.max_epochs=2", "tracking=none"]


def words(point):
    return [f"{key}={value}".replace(" ", "") for key, value in point.items()]


def long_way(base, point):
    """What the trial itself would be told."""
    try:
        validate(compose([*base, *words(point)]))
    except ConfigError as error:
        return str(error)
    return None


def short_way(check, point):
    try:
        check.check(point, words(point))
    except ConfigError as error:
        return str(error)
    return None


POINTS = [
    {"optim.lr": 0.1},
    {"optim.lr": -0.1},
    {"optim.lr": 0.2},
    {"optim.lr": "a"},
    {"optim.lr": 0.3, "optim.momentum": 0.9},
    {"optim.lr": 0.3, "optim.momentum": -1.0},
    {"optim.momentun": 0.9},
    {"data.batch_size": 32},
    {"data.batch_size": 0},
    {"data.batch_size": 64},
    {"model.dropout": 0.1},
    {"trainer.gradient_clip_val": 1.0},
    {"trainer.gradient_clip_val": -1.0},
    {"trainer.gradient_clip_val": 2.0},
    {"trainer.precision": "16-mixed", "runtime.accelerator": "cpu"},
    {"optim": "adamw", "optim.lr": 0.1},
    {"optim": "adamw", "optim.lr": -0.1},
    {"optim": "sgd", "optim.lr": 0.2},
    {"scheduler": "constant"},
    {"seed": 3},
]


def test_it_says_of_every_point_what_the_long_check_says():
    base = [*BASE, "optim=sgd"]
    check = PointCheck(base)
    said = [long_way(base, point) for point in POINTS]
    assert [short_way(check, point) for point in POINTS] == said
    assert 5 < said.count(None) < 15


def test_the_order_of_the_points_does_not_matter():
    base = [*BASE, "optim=sgd"]
    forth, back = PointCheck(base), PointCheck(base)
    said = [short_way(forth, point) for point in POINTS]
    assert [short_way(back, point) for point in reversed(POINTS)] == said[::-1]


@pytest.mark.parametrize("key", ["optim.lr", "trainer.gradient_clip_val"])
def test_many_points_of_a_kind_are_composed_once(monkeypatch, key):
    composed = []
    monkeypatch.setattr(point_check, "compose", lambda words: composed.append(words) or compose(words))
    check = PointCheck([*BASE, "optim=sgd"])
    for number in range(1, 30):
        check.check({key: number / 100}, [f"{key}={number / 100}"])
    assert len(composed) == 1
