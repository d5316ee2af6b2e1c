"""docs/jobs/wandb.md says what the code does: its commands exist, its names are those that are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from bbi_lightning.cli import app
from bbi_lightning.comparison.dashboard.content import dashboard
from bbi_lightning.comparison.dashboard.summary import summarise
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.tracking import wandb_logger
from tests.comparison.synthetic_sweep import SyntheticSweep

PAGE = (Path(__file__).parents[2] / "docs" / "jobs" / "wandb.md").read_text()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compare_sweep(
        read_sweep(SyntheticSweep(tmp_path_factory.mktemp("s") / "digits", trials=3).write())
    )


def test_its_commands_are_understood():
    verb = typer.main.get_command(app).commands["dashboard"]  # type: ignore[attr-defined]
    options = {option for parameter in verb.params for option in parameter.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert used
    assert used <= options


def test_it_names_every_view_and_section(comparison):
    built = dashboard(comparison, project="p")
    for view in built.views:
        assert f'"{view.title.replace("digits", "<sweep>")}"' in PAGE
    row = next(line for line in PAGE.splitlines() if line.startswith("| report |"))
    listed = [words.split(" (")[0].strip() for words in row.split("|")[2].split(":")[0].split(",")]
    assert len(listed) == len(built.sections)


def test_its_keys_are_written(comparison):
    values = summarise(comparison).values
    written = {key.split("/")[-1] for key in values}
    row = next(line for line in PAGE.splitlines() if "`compare/<arm>/mean`" in line)
    assert {"mean", *re.findall(r"`([a-z_]+)`", row)} <= written
    assert "summary-<sweep>".replace("<sweep>", "digits") == summarise(comparison).run


def test_its_flat_config_keys_are_those_of_the_logger():
    row = next(line for line in PAGE.splitlines() if line.startswith("| config |"))
    named = set(re.findall(r"`([a-z_]+)`", row.partition("and flat:")[2]))
    flat = {*wandb_logger._FLAT_LABELS.values(), *wandb_logger._FLAT_PARTS.values()}
    assert flat <= named
    assert named - flat == {"parameters", "commit", "dirty", "host"}


def test_its_axes_are_those_of_the_logger():
    row = next(line for line in PAGE.splitlines() if line.startswith("| axes |"))
    assert {wandb_logger.STEP, *wandb_logger.OTHER_AXES} <= set(re.findall(r"`([^`]+)`", row))
