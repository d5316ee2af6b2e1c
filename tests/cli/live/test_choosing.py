"""Keys change the choice, the choice picks and orders the runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bbi_lightning.cli.live.choosing import ORDERS, VIEWS, Choice, label
from bbi_lightning.tracking.live.alarms import Alarm
from bbi_lightning.tracking.live.run_watch import RunView


def run(name: str, state: str = "running", **facts) -> RunView:
    return RunView(Path("/r") / name, name, state, metric=facts.pop("metric", "val/acc"), **facts)


BAD = (Alarm("error", "nan", "the loss is nan"),)
ODD = (Alarm("warning", "silent", "no row"),)
RUNS = [
    run("c", "finished", since=5.0, best=0.9, loss=0.1, arm="sgd", number=3, phase="search"),
    run("a", "running", since=1.0, best=math.nan, loss=math.nan, eta=50.0, alarms=BAD),
    run("b", "running", since=2.0, best=0.8, loss=0.5, eta=20.0, steps_per_second=3.0),
    run("d", "running", since=0.5, best=None, newest=0.85, loss=0.3, eta=None, alarms=ODD),
    run("e", "failed", since=9.0, alarms=BAD, arm="bbi", number=7, phase="replicate"),
]


def names(choice: Choice) -> str:
    return "".join(found.name for found in choice.of(RUNS))


@pytest.mark.parametrize(
    ("order", "expected"),
    [("state", "adbec"), ("eta", "bacde"), ("loss", "cdbae"), ("best", "cdbae"), ("speed", "bacde")],
)
def test_orders_put_what_is_missing_last(order, expected):
    assert names(Choice(order=order)) == expected


def test_a_loss_is_better_when_it_is_less():
    losses = [run("x", metric="val/loss", best=0.5), run("y", metric="val/loss", best=0.2)]
    assert [found.name for found in Choice(order="best").of(losses)] == ["y", "x"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "adbec"), ("running", "adb"), ("RUNNING !silent", "ab"), ("nan", "ae"), ("bbi r7", "e"),
        ("sgd t3", "c"), ("nothing", ""), ("!", ""), ("running nan", "a"),
    ],
)  # fmt: skip
def test_a_filter_is_words(words, expected):
    assert names(Choice(words=words)) == expected


def test_views():
    assert names(Choice(view="running")) == "adb"
    assert names(Choice(view="alarms")) == "ade"


def press(choice: Choice | None, *keys: str) -> Choice | None:
    for key in keys:
        assert choice is not None
        choice = choice.pressed(key, page=10, count=30)
    return choice


@pytest.mark.parametrize("key", ["q", "Q", "interrupt", "end of input"])
def test_leaving(key):
    assert press(Choice(), key) is None


def test_orders_go_round_and_back():
    assert press(Choice(), *"s" * len(ORDERS)) == Choice()
    assert press(Choice(), "s", "S") == Choice()
    assert press(Choice(), *"a" * len(VIEWS)) == Choice()


def test_typing_a_filter():
    typed = press(Choice(cursor=7), "f", *"sq d", "backspace", "enter")
    assert typed == Choice(words="sq ")
    assert press(typed, "q") is None  # a command again
    assert press(typed, "escape") == Choice()
    assert press(Choice(), "/", "x", "escape") == Choice()
    assert press(Choice(), "f", "end of input") is None
    assert press(Choice(), "f", "up", "unknown") == Choice(typing=True)


def test_moving_pages_and_stays_among_the_runs():
    assert press(Choice(), "up").cursor == 0
    assert press(Choice(), "down", "j", "page down").cursor == 12
    assert press(Choice(cursor=12), "page up", "home").cursor == 0
    assert press(Choice(), "end").cursor == 29
    assert press(Choice(), "end", "down", "up").cursor == 28
    assert press(Choice(cursor=4), "unknown") == Choice(cursor=4)
    assert Choice().pressed("down", page=10, count=0) == Choice()


def test_enter_shows_one_at_length_and_escape_leaves_it_before_the_filter():
    chosen = press(Choice(words="bbi"), "down", "enter")
    assert (chosen.detail, chosen.cursor) == (True, 1)
    assert press(chosen, "down").cursor == 2
    assert press(chosen, "enter") == press(chosen, "escape") == Choice(words="bbi", cursor=1)
    assert press(chosen, "escape", "escape") == Choice()


def test_labels():
    assert label(RUNS[4]) == "bbi r7"
    assert label(run("x", arm="bbi", phase="search", number=2, sweep="s"), with_sweep=True) == "s/bbi t2"
    assert label(run("digits-mlp", phase="")) == "digits-mlp"
