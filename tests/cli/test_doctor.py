"""`bbi doctor` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bbi_lightning.cli import app


def doctor(*words: object) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, words)])


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without SLURM's programs."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_laptop_is_looked_at_and_left_as_it_was(nowhere: Path) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    assert "this machine belongs to no cluster" in result.output
    assert "GiB free" in result.output
    assert list(nowhere.iterdir()) == []
    findings = json.loads(doctor("--json").output)
    assert {"about", "level", "says", "remedy"} == set(findings[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--site", "gneric"), "site gneric is unknown: did you mean generic?"),
        (("nosuch",), "there is no sweep nosuch"),
    ],
)
def test_a_mistake_is_a_sentence(nowhere: Path, words: tuple[str, ...], sentence: str) -> None:
    result = doctor(*words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
