"""`bbi sweep best`, `export`, `logs` and `status`: what they say of a sweep of every kind of result."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))

import toy_task

from bbi_lightning.cli import app
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.study import Studies

X = {"x": {"low": 0.001, "high": 1.0, "log": True}}
ARMS = {
    "plain": {"label": "Plain", "space": X},
    "fails": {"label": "Fails", "overrides": ["raise_above=0.1"], "space": X},
    "diverges": {"overrides": ["diverge_above=0"], "space": X},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A sweep that has been run, one more of which nothing has begun."""
    root = tmp_path_factory.mktemp("sweeps")
    toy_task.go(root, toy_task.spec(arms=ARMS))
    fresh = toy_task.spec(name="fresh")
    folder = SweepFolder(root / "fresh")
    folder.write_spec(fresh)
    Studies(folder.journal, fresh).plan()
    return root


def invoke(root, verb, *words, code=0, columns=100):
    arguments = ["sweep", verb, *map(str, words), "--dir", str(root)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns), "TERM": "dumb"})
    assert result.exit_code == code, result.output
    return result.output


def rows(root):
    return list(csv.DictReader(invoke(root, "export", "toy").splitlines()))


def test_best_ranks_by_the_objective_and_names_the_command(root):
    best = json.loads(invoke(root, "best", "toy", "-n", 2, "--json"))
    assert [row["arm"] for row in best] == ["plain", "plain", "fails", "fails"], "none of what diverged"
    for first, second in (best[:2], best[2:]):
        assert (first["value"], -first["tie_breaker"]) >= (second["value"], -second["tie_breaker"])
    finished = [row for row in rows(root) if (row["arm"], row["phase"]) == ("plain", "search")]
    assert best[0]["value"] == max(float(row["value"]) for row in finished)
    assert best[0]["command"] == f"bbi train seconds=0 x={best[0]['x']!r} seed=0"
    said = invoke(root, "best", "toy")
    assert best[0]["trial"] in said
    assert best[0]["run"] in said.replace("\n", "").replace(" ", "")


def test_best_of_nothing_says_so(root):
    assert "No trial has finished yet." in invoke(root, "best", "fresh")
    assert json.loads(invoke(root, "best", "fresh", "--json")) == []


def test_export_has_a_row_for_every_trial_and_a_column_for_everything_searched(root):
    table = rows(root)
    assert len(table) == 12 + 2 + 2
    assert {row["state"] for row in table} == {"finished", "failed", "diverged"}
    failed = next(row for row in table if row["state"] == "failed")
    assert failed["error"] == f"RuntimeError: x={failed['x']} is more than I can bear"
    assert (failed["value"], failed["host"] != "") == ("", True)
    assert {row["run"] for row in table} == {file.name for file in (root / "toy" / "runs").iterdir()}


def test_csv_and_parquet_say_the_same(root, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("trials.csv", "trials.parquet"):
        assert f"16 trials are in {tmp_path / name}" in invoke(
            root, "export", "toy", "-o", tmp_path / name, columns=300
        )
    exported = parquet.read_table(tmp_path / "trials.parquet").to_pylist()
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in exported]
    assert as_text == rows(root)
    assert (tmp_path / "trials.csv").read_text() == invoke(root, "export", "toy")


def test_export_to_an_unknown_kind_of_file_is_refused(root, tmp_path):
    said = invoke(root, "export", "toy", "-o", tmp_path / "trials.xlsx", code=2, columns=300)
    assert "is neither .csv nor .parquet" in said
    assert not list(tmp_path.iterdir())


def test_logs_are_what_the_trial_printed(root):
    failed = next(row for row in rows(root) if row["state"] == "failed")
    said = invoke(root, "logs", "toy", failed["trial"])
    assert f"attempt 1 of {failed['run']}" in said
    assert "is more than I can bear" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["toy", "plain/7"], "plain/7 is not there: plain has plain/0 to plain/3"),
        (["fresh", "plain/0"], "plain/0 is waiting: it has not been started, so there is no output"),
        (["tot", "plain/0"], "there is no sweep tot in"),
    ],
)
def test_logs_of_what_is_not_there(root, words, sentence):
    assert f"error: {sentence}" in invoke(root, "logs", *words, code=2)


def test_following_a_log_shows_what_comes_until_one_stops(root):
    row = next(row for row in rows(root) if row["trial"] == "plain/0")
    log = root / "toy" / "runs" / row["run"] / "log.txt"
    words = ["sweep", "logs", "toy", "plain/0", "-f", "--dir", str(root)]
    with subprocess.Popen(
        [sys.executable, "-m", "bbi_lightning.cli", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert "attempt 1" in process.stdout.readline()
        with log.open("a") as stream:
            stream.write("one line more\n")
        assert process.stdout.readline() == "one line more\n"
        process.send_signal(2)
        assert process.wait(timeout=30) == 0


def test_status_groups_what_failed_and_says_where_to_read_on(root):
    said = invoke(root, "status", "toy")
    failed = [row["trial"] for row in rows(root) if row["state"] == "failed"]
    assert f"{len(failed)} of the runs failed:" in said
    assert len(failed) > 1
    assert f"  {len(failed)} × RuntimeError: x=" in said, "one cause, whatever the numbers"
    assert f"bbi sweep logs {root}/toy {failed[0]}" in said or f"bbi sweep logs toy {failed[0]}" in said
    assert "16/16 runs · done" in said


def test_status_of_a_sweep_that_nobody_has_begun(root):
    assert "0/12 runs · nobody works on it" in invoke(root, "status", "fresh")


def test_watching_a_sweep_that_is_done_ends_with_an_exit_code_for_scripts(root):
    assert "16/16 runs · done" in invoke(root, "status", "toy", "--watch", code=1)


def test_watching_can_be_stopped(root):
    words = ["sweep", "status", "fresh", "--watch", "--dir", str(root)]
    with subprocess.Popen(
        [sys.executable, "-m", "bbi_lightning.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        time.sleep(4)
        process.send_signal(2)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output
