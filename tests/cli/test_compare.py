"""`bbi compare`: what it prints, writes and refuses."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from bbi_lightning.cli.compare import compare
from tests.comparison.synthetic_sweep import SyntheticSweep, realistic

app = typer.Typer(rich_markup_mode="rich", add_completion=False)
app.command()(compare)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    realistic(root / "digits", trials=4)
    SyntheticSweep(root / "new", trials=0).write()
    return root


def run(sweeps, *arguments):
    return CliRunner().invoke(app, [*arguments, "--dir", str(sweeps)], env={"COLUMNS": "80", "TERM": "dumb"})


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
        (["digit"], "there is no sweep digit here or in"),
        (["digit"], "did you mean digits?"),
        (["zzz"], "use one of digits, new"),
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
    assert "bbi sweep run sweep=" in run(tmp_path, "digits").output


def test_help_teaches():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == 0
    for words in ("Examples:", "--against adamw", "fresh seeds", "summary.csv", "or the first"):
        assert words in result.output


def test_a_real_process_never_loads_torch(sweeps):
    """A page is made in about a second; torch alone would take longer to import."""
    program = (
        "import sys; from bbi_lightning.cli.compare import compare\n"
        "light = {'scipy', 'matplotlib', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "import typer; app = typer.Typer(); app.command()(compare)\n"
        "app(['digits', '--dir', sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'optuna', 'hydra'} & set(sys.modules)\n"
        "sys.exit(f'at import {light}, later {heavy}' if light or heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(sweeps)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
