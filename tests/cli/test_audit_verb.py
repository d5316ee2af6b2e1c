"""`bbi audit`: what it prints, and the exit code that scripts go by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from bbi_lightning.cli.audit import HELP, audit
from tests.comparison.synthetic_sweep import SyntheticSweep
from tests.comparison.test_audit import SOUND, edit_spec

app = typer.Typer(rich_markup_mode="rich", add_completion=False)
app.command(help=HELP)(audit)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweeps")
    SyntheticSweep(root / "sound", arms=SOUND, logs=False).write()
    SyntheticSweep(
        root / "narrow", arms=(replace(SOUND[0], high=0.3, best=3.0), *SOUND[1:]), logs=False
    ).write()
    SyntheticSweep(root / "new", trials=0).write()
    return root


def run(sweeps: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--dir", str(sweeps)], env={"COLUMNS": "80", "TERM": "dumb"})


def text(result: Result) -> str:
    return " ".join(result.output.split())


def test_a_sound_sweep_exits_with_zero(sweeps: Path):
    result = run(sweeps, "sound")
    assert result.exit_code == 0, result.output
    assert "78 runs of 3 arms, against SGD" in text(result)
    assert "warning" not in result.output


def test_a_doubtful_one_exits_with_one_and_says_what_to_do(sweeps: Path):
    result = run(sweeps, "narrow")
    assert result.exit_code == 1
    assert "warning · makes the result doubtful" in result.output
    assert "lies at the edge of its space" in text(result)
    assert "sweep.arms.bbi.space.optim.lr.high" in text(result)
    assert max(map(len, result.output.splitlines())) <= 80


def test_json_has_every_finding(sweeps: Path):
    result = run(sweeps, "narrow", "--json")
    (audited,) = json.loads(result.output)
    assert audited["sweep"] == "narrow"
    assert {"level", "code", "sentence", "remedy", "arm", "evidence"} == set(audited["findings"][0])
    assert "edge-of-space" in {finding["code"] for finding in audited["findings"]}
    assert result.exit_code == 1


def test_a_known_finding_can_be_left_out(sweeps: Path):
    result = run(sweeps, "narrow", "--ignore", "edge-of-space", "--ignore", "search-not-converged")
    assert "edge of its space" not in text(result)
    assert result.exit_code == 0, result.output


def test_claims_decide_the_exit_code(sweeps: Path):
    assert run(sweeps, "sound", "--claim", "adamw > sgd").exit_code == 0
    result = run(sweeps, "sound", "--claim", "adamw > sgd", "--claim", "bbi > sgd")
    assert result.exit_code == 1
    assert "“bbi > sgd” is not shown" in text(result)
    assert "“adamw > sgd” holds" in text(result)


def test_a_text_is_read(sweeps: Path, tmp_path: Path):
    paper = tmp_path / "paper.md"
    paper.write_text("# Results\n\nOn digits, AdamW is worse than SGD.\n")
    result = run(sweeps, "sound", "--text", str(paper))
    assert "paper.md, line 3: “On digits, AdamW is worse than SGD.” is contradicted" in text(result)
    assert "error · the comparison is wrong, or what is said about it" in result.output
    assert result.exit_code == 1


def test_a_claim_is_checked_in_every_task_that_has_both_arms(sweeps: Path, tmp_path: Path):
    other = SyntheticSweep(tmp_path / "other", arms=SOUND[1:], logs=False).write()
    edit_spec(other, lambda spec: spec["base"].append("data.val_size=99"))
    result = run(sweeps, "sound", str(other), "--claim", "adamw > bbi", "--json")
    claims = [
        [f["code"] for f in task["findings"] if "claim" in f["code"]] for task in json.loads(result.output)
    ]
    assert claims == [["claim-holds"], []]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "there is no sweep nosuch"),
        (("new",), "has no runs yet"),
        (("sound", "--against", "lion"), "'lion' is no arm of sweep sound"),
        (("sound", "--claim", "bbi"), 'write it as "bbi > sgd"'),
        (("sound", "--claim", "bbi > lion"), "'lion' is no arm"),
        (("sound", "--text", "nosuch.md"), "--text=nosuch.md is not there"),
        (("sound", "--ignore", "edge"), "--ignore=edge is no finding's code"),
    ],
)
def test_mistakes_are_one_sentence(sweeps: Path, words: tuple[str, ...], said: str):
    result = run(sweeps, *words)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_help_teaches_by_examples():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert '--claim "bbi > sgd"' in result.output
    assert "--text README.md" in result.output
