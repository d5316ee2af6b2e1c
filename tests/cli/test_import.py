"""`bbi import`: what it says, what it refuses, and that the result is compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "comparison"))

from foreign_runs import csv_folder, wandb_export

from bbi_lightning.cli import app


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["import", *map(str, words)])
    return result.exit_code, result.output


def test_import_and_compare(tmp_path: Path) -> None:
    csv_folder(tmp_path / "csv")
    command = ("csv", tmp_path / "csv", "--sweep", "theirs", "--dir", tmp_path / "sweeps")
    code, output = invoke(*command)
    assert code == 0
    assert "12 runs (12 new)" in output
    assert "optimizer as optim.name" in output
    assert f"bbi compare {tmp_path / 'sweeps' / 'theirs'}" in output.replace("\n", "")
    code, output = invoke(*command)
    assert (code, "12 runs (12 as they were)" in output) == (0, True)
    told = CliRunner().invoke(app, ["compare", str(tmp_path / "sweeps" / "theirs"), "--text"])
    assert told.exit_code == 0
    assert "imported from CSV" in told.output


def test_names_and_scales(tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    for seed in (0, 1):
        (folder / f"opt=sgd_seed={seed}.csv").write_text("step,top1\n1,91.5\n")
    command = ("csv", folder, "--sweep", "s", "--dir", tmp_path, "--map", "top1=val/acc")
    code, output = invoke(*command)
    assert code == 2
    assert "add --scale val/acc=0.01" in output.replace("\n", " ")
    assert not (tmp_path / "s").exists()
    assert invoke(*command, "--scale", "val/acc=0.01")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["excel", "."], "excel cannot be imported: use one of wandb-export, tensorboard, csv"),
        (["csv", "nowhere"], "nowhere is no folder"),
        (["csv", ".", "--map", "loss"], "--map loss says nothing"),
        (["csv", ".", "--scale", "val/acc=percent"], "--scale val/acc=percent is no factor"),
        (["csv", ".", "--like", "nobody"], "--like nobody: there is no such sweep"),
        (["csv", ".", "--objective", "val/f1:up"], "--objective val/f1:up ends on neither :maximize nor"),
        (["csv", ".", "--sweep", "../x"], "--sweep ../x names a folder"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = invoke(*words[:2], *(["--sweep", "s"] if "--sweep" not in words else []), *words[2:])
    assert code == 2
    assert f"error: {said}" in output.replace("\n", " ")
    assert "Traceback" not in output


def test_wandb_export_of_the_help(tmp_path: Path) -> None:
    code, output = invoke(
        "wandb-export", wandb_export(tmp_path / "e"), "--sweep", "w", "--arm", "optimizer", "--dir", tmp_path
    )
    assert code == 0
    assert "steps are counted by trainer/global_step" in output


def test_the_verbs_of_a_sweep_that_runs_say_that_it_does_not(tmp_path: Path) -> None:
    invoke("csv", csv_folder(tmp_path / "csv"), "--sweep", "theirs", "--dir", tmp_path)
    told = CliRunner().invoke(app, ["sweep", "status", "theirs", "--dir", str(tmp_path)])
    assert told.exit_code == 2
    assert "error: theirs holds imported runs" in told.output


def test_help_teaches() -> None:
    code, output = invoke("--help")
    assert code == 0
    for word in (
        "bbi import wandb-export",
        "bbi import tensorboard",
        "bbi import csv",
        "--like",
        "Exit codes",
    ):
        assert word in output
