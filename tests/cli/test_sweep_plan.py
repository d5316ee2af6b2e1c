"""`bbi sweep plan`: what it finds out, prints and refuses. It queues nothing and leaves nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bbi_lightning.cli import app

SMOKE = ["plan", "sweep=smoke"]


def invoke(*arguments, columns=100):
    runner = CliRunner()
    return runner.invoke(app, ["sweep", *map(str, arguments)], env={"COLUMNS": str(columns), "TERM": "dumb"})


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    return root, invoke(*SMOKE, "--dir", root, "--steps", 10, columns=84)


def test_it_shows_what_is_compared_and_what_it_needs_within_the_terminals_width(planned):
    _, result = planned
    assert result.exit_code == 0, result.output
    for words in (
        "What is compared",
        "What it needs",
        "of core time",
        "trials at a time on this machine",
        "all of them right",
    ):
        assert words in result.output
    body, _, command = result.output.partition("Next: ")
    assert command.startswith("bbi sweep run sweep=smoke --workers ")
    assert max(map(len, body.splitlines())) <= 84


def test_it_leaves_nothing_behind(planned):
    root, _ = planned
    assert list(root.iterdir()) == []


def test_for_scripts_the_same_is_json_and_what_was_not_measured_is_null(tmp_path):
    result = invoke(*SMOKE, "--dir", tmp_path, "--no-probe", "--json")
    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert facts["seconds"] is None
    assert facts["runs"] == sum(arm["runs"] for arm in facts["arms"].values()) > 0
    assert facts["checked"] > 0
    assert facts["packing"]["slots"] >= 1


def test_on_a_cluster_it_says_how_many_jobs_of_how_many_trials_and_how_to_submit_them(tmp_path):
    options = ["cluster.site=generic", "cluster.jobs=3", "cluster.slots=2", "cluster.time=1:00:00"]
    result = invoke(*SMOKE, *options, "--no-probe", "--dir", tmp_path)
    assert "2 trials at a time in each job (asked for)" in result.output
    assert "3 jobs at a time" in result.output
    assert "Next: bbi sweep submit sweep=smoke cluster.site=generic cluster.time=1:00:00" in result.output
    assert "cluster.slots=2 cluster.jobs=3" in result.output


def test_a_config_that_cannot_run_is_one_sentence_with_the_trial_and_exit_code_2(tmp_path):
    wrong = "sweep.arms.sgd.space.optim.lr={low: -2.0, high: -1.0, log: false}"
    result = invoke("plan", "sweep=digits_showdown", wrong, "--dir", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: sgd/0: optim.lr=-")
    assert "more are wrong" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep=nothing"], "sweep=nothing"),
        (["optim=sgd"], "which sweep is meant"),
        (["sweep=smoke", "cluster.site=mars"], "mars"),
        (["sweep=smoke", "cluster.memory=much"], "write it as 64G"),
        (["sweep=smoke", "cluster.slot=2"], "slots"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words):
    result = invoke("plan", *arguments)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert words in result.stderr


def test_a_disk_that_is_too_small_is_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    result = invoke(*SMOKE, "--dir", tmp_path, "--steps", 5)
    assert result.exit_code == 1
    assert "are free: use another --dir" in " ".join(result.output.split())


@pytest.mark.parametrize("seconds", [1.0, 7.0])
def test_ctrl_c_ends_it_at_once_and_leaves_nothing(tmp_path, seconds):
    program = "from bbi_lightning.cli import main; main()"
    words = [
        "sweep",
        "plan",
        "sweep=digits_showdown",
        "--steps",
        "1000000",
        "--dir",
        str(tmp_path / "sweeps"),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)  # nobody holds on to its output
    assert process.returncode == 130
    assert not (tmp_path / "sweeps").exists()
    assert list(tmp_path.glob("bbi-*")) == []


def test_help_teaches_by_example_and_is_instant():
    began = time.monotonic()
    program = "from bbi_lightning.cli import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", program, "sweep", "plan", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "bbi sweep plan sweep=digits_showdown cluster.cpus=8" in result.stdout
    for heavy in ("torch", "optuna", "scipy", "pytorch_lightning"):
        assert not re.search(rf"\|\s+{heavy}$", result.stderr, re.MULTILINE)
    assert time.monotonic() - began < 10
