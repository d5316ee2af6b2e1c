"""`bbi compare`: what it prints, writes and refuses."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bbi_lightning.cli import app
from tests.comparison.synthetic_sweep import SyntheticSweep, realistic


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    realistic(root / "digits", trials=4)
    SyntheticSweep(root / "new", trials=0).write()
    return root


def run(sweeps, *arguments):
    return CliRunner().invoke(
        app, ["compare", *arguments, "--dir", str(sweeps)], env={"COLUMNS": "80", "TERM": "dumb"}
    )


def test_prints_the_verdict_and_the_page_last(sweeps):
    result = run(sweeps, "digits")
    assert result.exit_code == 0, result.output
    assert "than SGD" in " ".join(result.output.split())
    assert "conclusion" in result.output
    assert result.output.splitlines()[-1] == f"page: {sweeps / 'digits' / 'report.html'}"
    assert (sweeps / "digits" / "report.html").read_text().startswith("<!doctype html>")


def test_takes_a_folder_as_well_as_a_name(sweeps, tmp_path):
    page = tmp_path / "pages" / "digits.html"
    result = run(tmp_path, str(sweeps / "digits"), "--out", str(page), "--against", "adamw")
    assert result.exit_code == 0, result.output
    assert "minus AdamW" in result.output
    assert page.is_file()
    assert (page.parent / "summary.csv").is_file()


def test_a_folder_as_out_gets_the_page(sweeps, tmp_path):
    assert run(sweeps, "digits", "--out", str(tmp_path)).exit_code == 0
    assert (tmp_path / "report.html").is_file()


def test_text_writes_nothing(tmp_path):
    realistic(tmp_path / "digits", trials=2, logs=False)
    before = sorted(tmp_path.rglob("*"))
    result = run(tmp_path, "digits", "--text")
    assert result.exit_code == 0
    assert "page:" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digit"], "there is no sweep digit in"),
        (["digit"], "did you mean digits?"),
        (["zzz"], "digits, new"),
        (["new"], "has no runs yet"),
        (
            ["digits", "--against", "lion"],
            "'lion' is no arm of sweep digits: use one of bbi, ecdsep, sgd, adamw",
        ),
        (["digits", "--out", "page.pdf"], "--out=page.pdf does not end in .html"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(sweeps, arguments, words):
    result = run(sweeps, *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_without_any_sweep_it_says_how_to_start_one(tmp_path):
    assert "start one with bbi sweep run" in run(tmp_path, "digits").output


def test_help_teaches():
    result = CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == 0
    for words in ("Examples", "--against adamw", "fresh", "--table latex", "or the first"):
        assert words in result.output


def test_a_real_process_never_loads_torch(sweeps):
    """A page is made in about a second; torch alone would take longer to import."""
    program = (
        "import sys; from bbi_lightning.cli import app\n"
        "light = {'scipy', 'matplotlib', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "app(['compare', 'digits', '--dir', sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'optuna', 'hydra'} & set(sys.modules)\n"
        "sys.exit(f'at import {light}, later {heavy}' if light or heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(sweeps)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout


def test_sweeps_of_several_tasks_are_one_page_and_said_over_all(sweeps, tmp_path):
    realistic(tmp_path / "letters", trials=4, logs=False)
    spec = tmp_path / "letters" / "sweep.yaml"
    spec.write_text(spec.read_text().replace("data=digits", "data=letters"))
    page = tmp_path / "both.html"
    result = run(sweeps, "digits", str(tmp_path / "letters"), "--out", str(page))
    assert result.exit_code == 0, result.output
    assert "Over all tasks:" in " ".join(result.output.split())
    assert page.is_file()


@pytest.mark.parametrize(("kind", "sign"), [("markdown", "| Optimizer |"), ("latex", "\\begin{tabular}")])
def test_a_table_for_a_paper_is_all_that_is_printed(sweeps, kind, sign):
    result = run(sweeps, "digits", "--table", kind)
    assert result.exit_code == 0, result.output
    assert sign in result.output
    assert "page:" not in result.output


@pytest.mark.slow
def test_figures_are_written_for_a_paper(tmp_path):
    realistic(tmp_path / "digits", trials=4)
    result = run(tmp_path, "digits", "--text", "--figures", str(tmp_path / "figures"))
    assert result.exit_code == 0, result.output
    written = {file.suffix for file in (tmp_path / "figures").iterdir()}
    assert written == {".pdf", ".png", ".txt"}
    assert not (tmp_path / "digits" / "report.html").exists()
