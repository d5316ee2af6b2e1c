"""What docs/jobs/resume.md says is what the code does, as far as a test can tell without training."""

from __future__ import annotations

import dataclasses
import re
import signal
from pathlib import Path

import pytest
import typer
import yaml

from bbi_lightning.cli import app
from bbi_lightning.training import interrupts, watchdog
from bbi_lightning.training.composition import compose
from bbi_lightning.training.config import run_name
from bbi_lightning.training.options import CheckpointOptions, RuntimeOptions

PAGE = Path(__file__).parents[2] / "docs" / "jobs" / "resume.md"
TEXT = PAGE.read_text()
COMMANDS = re.findall(r"^(?:    |srun \S+ )(bbi [^#\n]*)", TEXT, re.M)


def table(header: str) -> list[list[str]]:
    """The cells of the table whose header begins so, without the backticks around them."""
    rows = TEXT.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("| ").split(" | ")] for row in rows]


def test_exit_codes_are_those_of_the_code() -> None:
    codes = " ".join(row[0] for row in table("exit code"))
    promised = {int(code) for code in re.findall(r"\d+", codes)}
    signals = {interrupts.exit_code(number) for number in interrupts.STOPPING}
    ours = {interrupts.exit_code(interrupts.TIME_LIMIT), watchdog.LOST_RANK, 128 + signal.SIGKILL}
    assert promised == {0, 1, 2} | signals | ours
    requeued = {int(code) for code in re.findall(r"\d+", re.findall(r"case \$code in ([\d|]+)\)", TEXT)[0])}
    assert requeued < promised
    assert requeued.isdisjoint({0, 1, 2, 130})


def test_checkpoint_keys_and_defaults_are_those_of_the_code() -> None:
    written = {row[0].removeprefix("checkpoint."): yaml.safe_load(row[1]) for row in table("key")}
    defaults = dataclasses.asdict(CheckpointOptions())
    assert written == {**defaults, "milestones": list(defaults["milestones"])}


def test_runtime_keys_exist_and_a_stated_default_is_one() -> None:
    defaults = dataclasses.asdict(RuntimeOptions())
    named = set(re.findall(r"runtime\.(\w+)", TEXT))
    assert named <= set(defaults)
    assert f"`runtime.stop_within={defaults['stop_within']:g}`" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str) -> None:
    verb, *words = command.split()[1:]
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert verb in verbs
    options = {word for parameter in verbs[verb].params for word in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    overrides = [word for word in words if "=" in word and word.split(".")[0] != "start"]
    assert run_name(compose(overrides))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", TEXT):
        assert target.startswith("http") or (PAGE.parent / target).exists(), target
