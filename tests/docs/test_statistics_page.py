"""The page on the estimators names all of them, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bbi_lightning.comparison import statistics

PAGE = (Path(__file__).parents[2] / "docs" / "jobs" / "statistics.md").read_text()
ESTIMATORS = [
    name
    for name in statistics.__all__
    if name.islower() and name != "rank_trials"  # the rule of choice estimates nothing
]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_explained(name: str):
    assert f"`{name}`" in PAGE


def test_the_page_names_nothing_that_does_not_exist():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= set(statistics.__all__)
    assert len(named) > 15


def test_the_example_runs(capsys: pytest.CaptureFixture[str]):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(block, "statistics.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "bootstrap-t" in printed
    assert "SeedPlan" in printed
