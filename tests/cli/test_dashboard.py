"""`bbi dashboard` without W&B: what it writes, says and refuses. With W&B: see comparison/dashboard."""

import json

import pytest
import typer
from typer.testing import CliRunner

from bbi_lightning.cli import dashboard as verb
from tests.comparison.synthetic_sweep import SyntheticSweep, realistic

app = typer.Typer(rich_markup_mode="rich", add_completion=False)
app.command(help=verb.HELP)(verb.dashboard)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    realistic(root / "digits", trials=4)
    SyntheticSweep(root / "new", trials=0).write()
    return root


def run(sweeps, *arguments):
    return CliRunner().invoke(
        app, [*arguments, "--dir", str(sweeps)], env={"COLUMNS": "80", "TERM": "dumb", "WANDB_API_KEY": ""}
    )


def test_a_dry_run_writes_the_specification_and_says_what_it_would_make(sweeps):
    result = run(sweeps, "digits", "--dry-run")
    assert result.exit_code == 0, result.output
    plain = json.loads((sweeps / "digits" / "dashboard" / "dashboard.json").read_text())
    for view in plain["views"]:
        assert f'the view "{view["title"]}"' in result.output
    assert "the run summary-digits with" in result.output
    text = (sweeps / "digits" / "dashboard" / "report.md").read_text()
    assert text.startswith("# Handwritten digits: BBI, ECDSep, SGD and AdamW\n")


def test_the_specification_is_the_same_the_second_time(sweeps):
    files = [sweeps / "digits" / "dashboard" / name for name in ("dashboard.json", "report.md")]
    run(sweeps, "digits", "--dry-run")
    first = [file.read_bytes() for file in files]
    run(sweeps, "digits", "--dry-run")
    assert [file.read_bytes() for file in files] == first


def test_project_and_entity_are_those_of_the_runs_unless_given(sweeps):
    run_folder = next((sweeps / "digits" / "runs").iterdir())
    (run_folder / "config.yaml").write_text("tracking: {project: optics, entity: lab}\n")
    run(sweeps, "digits", "--dry-run")
    file = sweeps / "digits" / "dashboard" / "dashboard.json"
    assert [json.loads(file.read_text())[key] for key in ("project", "entity")] == ["optics", "lab"]
    run(sweeps, "digits", "--dry-run", "-p", "other", "-e", "me")
    assert [json.loads(file.read_text())[key] for key in ("project", "entity")] == ["other", "me"]
    (run_folder / "config.yaml").unlink()


def test_json_says_where_the_files_are(sweeps):
    answer = json.loads(run(sweeps, "digits", "--dry-run", "--json").output)
    assert answer["pushed"] is False
    assert answer["files"] == [
        str(sweeps / "digits" / "dashboard" / name) for name in ("dashboard.json", "report.md")
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("digitz",), "there is no sweep digitz"),
        (("new",), "has no runs yet"),
        (("digits", "--against", "adam"), "'adam' is no arm of sweep digits: use one of"),
        (("digits", "--project", "a/b"), "tracking.project='a/b' cannot be had"),
    ],
)
def test_a_mistake_is_one_sentence(sweeps, arguments, sentence):
    result = run(sweeps, *arguments, "--dry-run")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_without_the_extra_it_names_it(sweeps, monkeypatch):
    monkeypatch.setattr(
        "bbi_lightning.comparison.dashboard.service.importlib.util.find_spec", lambda name: None
    )
    result = run(sweeps, "digits")
    assert result.exit_code == 1
    assert "wandb-workspaces is not installed: pip install 'bbi-lightning[dashboard]'" in result.output


def test_a_folder_that_cannot_be_written_is_one_sentence(sweeps):
    (sweeps / "blocked").mkdir()
    for name in ("sweep.yaml", "runs"):
        (sweeps / "blocked" / name).symlink_to(sweeps / "digits" / name)
    (sweeps / "blocked" / "dashboard").write_text("a file in the way")
    result = run(sweeps, "blocked", "--dry-run")
    assert result.exit_code == 2
    assert "cannot be written" in result.output


def test_help_fits_eighty_columns_and_teaches_by_examples(sweeps):
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    lines = result.output.splitlines()
    examples = [line.strip() for line in lines if line.strip().startswith("bbi dashboard ")]
    assert len(examples) == 5
    assert all(line.split("  ")[-1].strip() for line in examples)
    assert "--dry-run" in result.output
