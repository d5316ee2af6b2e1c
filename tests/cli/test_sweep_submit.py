"""`bbi sweep submit` and `work` where there is no SLURM: the script, and what is refused before there is a
folder. With SLURM: tests/slurm."""

import os
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))

import toy_task

from bbi_lightning.cli import app
from bbi_lightning.cli.sweep.work import _places


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """`bbi sweep submit` of the toy sweep, on a machine without SLURM."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    description = tmp_path / "toy.yaml"
    description.write_text(yaml.safe_dump(toy_task.description(task="toy_task:TASK")))

    def invoke(*words):
        arguments = ["sweep", "submit", f"sweep={description}", *words, "--dir", str(tmp_path / "sweeps")]
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "300", "TERM": "dumb"})

    invoke.root = tmp_path / "sweeps"
    return invoke


def test_print_shows_the_script_and_leaves_nothing(submit):
    result = submit("cluster.gpus=1", "cluster.time=4:00:00", "cluster.jobs=10", "cluster.slots=8", "--print")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("#!/bin/bash")
    for line in ("--array=0-9", "--time=4:00:00", "--gpus-per-node=1", "--ntasks-per-node=1"):
        assert f"#SBATCH {line}\n" in result.output
    unfolded = " ".join(result.output.replace("\\\n", " ").split())
    assert f"bbi_lightning.cli sweep work {submit.root}/toy --slots=8" in unfolded
    assert not submit.root.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cluster.gpu=1"], "did you mean gpus?"),
        (["cluster.jobs=0"], "cluster.jobs=0 must be a whole number, 1 or more"),
        (["cluster.slots=two"], "cluster.slots=two must be a whole number, 1 or more"),
        (["cluster.nodes=2"], "a sweep's job is one process on one node; use cluster.jobs"),
        (["cluster.site=nowhere"], "nowhere"),
        (["cluster.trial_memory=much"], "much"),
        (["cluster.gpus"], "cluster.gpus says nothing: write it as cluster.gpus=1"),
        (["search.trials=3"], "search.trials=3 changes nothing of a sweep: write it as sweep.search.trials"),
        ([], "scontrol is not on the PATH: go to a login node of the cluster, or use bbi sweep run here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_a_sentence_and_leaves_nothing(submit, words, sentence):
    result = submit(*words)
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ")
    assert sentence in result.output
    assert len(result.output.splitlines()) == 1
    assert not submit.root.exists()


def test_slots_share_the_cores_and_the_gpus_equally(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    places = _places(4, "0,1")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "1", "0", "1"]
    assert {place["OMP_NUM_THREADS"] for place in places} == {"2"}
    assert all("CUDA_VISIBLE_DEVICES" not in place for place in _places(4, None))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert {place["CUDA_VISIBLE_DEVICES"] for place in _places(2, None)} == {"3"}


def test_more_slots_than_cores_still_have_one_each(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert {place["OMP_NUM_THREADS"] for place in _places(6, None)} == {"1"}
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert int(_places(1, None)[0]["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))
