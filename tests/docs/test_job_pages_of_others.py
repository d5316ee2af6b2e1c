"""docs/jobs/your_own_model.md and import.md: their code runs verbatim, their commands are understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from bbi_lightning.cli import app
from bbi_lightning.training.config_files import config_folder

JOBS = Path(__file__).parents[2] / "docs" / "jobs"
OWN = (JOBS / "your_own_model.md").read_text()
IMPORT = (JOBS / "import.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", OWN, flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files in it."""
    folder = tmp_path_factory.mktemp("own")
    for _, text in BLOCKS:
        named = re.match(r"# ([\w.]+)\n", text)
        if named:
            (folder / named[1]).write_text(text)
    return folder


def shell(command: str, place: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=place, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_run_as_they_stand(place: Path) -> None:
    commands = [text for language, text in BLOCKS if language == "bash"]
    told = [shell(command, place) for command in commands]
    for label in ("BBI", "SGD", "AdamW", "Schedule-free AdamW", "Schedule-free SGD", "Muon", "SAM"):
        assert re.search(rf"^{label} ", told[0].rpartition("bbi compare")[2], re.M), label
    assert "nadam" in told[1]
    states = [yaml.safe_load(file.read_text())["state"] for file in place.glob("sweeps/look/runs/*/run.json")]
    assert states == ["finished"] * 14


@pytest.mark.slow
def test_the_loop_of_ones_own_runs_as_it_stands(place: Path) -> None:
    (loop,) = [text for language, text in BLOCKS if language == "python" and not text.startswith("# ")]
    (place / "loop.py").write_text(loop)
    told = shell("python loop.py 2>/dev/null", place)
    losses = {name: float(loss) for name, loss in re.findall(r"^(\w+) (\d\.\d{3})$", told, re.M)}
    assert set(losses) == {"BBI", "SAM", "Muon", "ScheduleFreeAdamW"}
    assert max(losses.values()) < 2.2  # below chance, ln 10


def test_it_is_twenty_lines() -> None:
    (study,) = [text for language, text in BLOCKS if text.startswith("# study.py")]
    first = next(text for language, text in BLOCKS if language == "bash")
    lines = [line for line in (study + first).splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


def test_what_the_page_says_of_the_sweep_is_so() -> None:
    spec = yaml.safe_load((config_folder() / "sweep" / "own_module.yaml").read_text())
    arms, trials, count = len(spec["arms"]), spec["search"]["trials"], spec["replicates"]["count"]
    assert f"{arms * (trials + count)} runs in all" in OWN
    baselines = yaml.safe_load((config_folder() / "sweep" / "digits_baselines.yaml").read_text())
    assert spec["arms"] == baselines["arms"]


@pytest.mark.parametrize("command", re.findall(r"^ {4}(bbi .*?)(?:  +#.*)?$", IMPORT + OWN, re.M))
def test_a_command_is_understood(command: str) -> None:
    words = command.split()[1:]
    group: typer.core.TyperGroup = typer.main.get_command(app)  # type: ignore[assignment]
    verb = group.commands[words[0]]
    while hasattr(verb, "commands"):
        words = words[1:]
        verb = verb.commands[words[0]]
    options = {word for parameter in verb.params for word in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("text", [OWN, IMPORT], ids=["your_own_model", "import"])
def test_links_lead_somewhere(text: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("http") or (JOBS / target).exists(), target


def test_names_that_the_page_promises_are_recognised() -> None:
    from bbi_lightning.comparison.imports.naming import _SETTINGS, _STEP, _guess

    promised = re.findall(r"`([^`]+)`", IMPORT.split("| `train/loss`")[1].split("\n")[0].split("|")[1])
    ours = {"train/loss", "val/loss", "test/loss", "val/acc", "test/acc"}
    assert {_guess(name) for name in promised} <= ours
    for name in ("trainer/global_step", "global_step", "_step"):
        assert name in _STEP
    for name in ("optimizer", "learning_rate", "wd", "random_seed"):
        assert name in _SETTINGS
