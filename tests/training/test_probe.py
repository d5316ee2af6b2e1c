"""The probe of a run: some of its steps tell what all of it takes."""

import time

import pytest

from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.composition import compose
from bbi_lightning.training.config import run_name
from bbi_lightning.training.probe import probe
from bbi_lightning.training.run import train

QUICK = [
    "data=digits",
    "model=mlp",
    "optim=sgd",
    "scheduler=constant",
    "tracking=none",
    "runtime.threads=1",
    "runtime.progress=none",
    "runtime.accelerator=cpu",
]


def figures(root, *overrides, steps=20, seconds=30.0):
    facts = {}
    probe(compose([*QUICK, *overrides]), root, steps, seconds, facts.update)
    return facts


def test_the_whole_runs_steps_validations_and_checkpoints_are_those_of_its_config(tmp_path):
    facts = figures(tmp_path, "trainer.max_epochs=8", "trainer.check_val_every_n_epoch=2")
    assert facts["total_steps"] == 8 * 18  # 1,157 images
    assert facts["validations"] == 4
    assert facts["checkpoints"] == 3  # the two newest and the best
    assert facts["checkpoint_bytes"] > 100_000
    assert facts["log_bytes"] > 0
    assert "gpu_bytes" not in facts


def test_only_some_steps_are_trained_and_their_time_is_that_of_the_whole_run(tmp_path):
    config = ["trainer.max_epochs=100", "data.batch_size=64"]
    began = time.perf_counter()
    facts = figures(tmp_path / "probe", *config)
    probed = time.perf_counter() - began
    began = time.perf_counter()
    train(compose([*QUICK, *config, f"runtime.root={tmp_path}"]))
    whole = time.perf_counter() - began
    parts = facts["setup_s"] + facts["total_steps"] * facts["step_s"] + facts["test_s"]
    expected = parts + facts["validations"] * facts["validation_s"]
    assert probed < whole
    assert 0.3 < expected / whole < 3  # machines are busy


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_shorter_than_the_probe_is_measured_all_the_same(tmp_path, epochs):
    facts = figures(tmp_path, "data.batch_size=256", f"trainer.max_epochs={epochs}", steps=1000)
    assert facts["total_steps"] == 4 * epochs
    assert 0 < facts["step_s"] < 1
    assert facts["validations"] == epochs
    assert facts["validation_s"] > 0


def test_a_probe_ends_when_its_seconds_are_over(tmp_path):
    facts = figures(tmp_path, "trainer.max_epochs=1000", steps=10**9, seconds=0.3)
    assert facts["step_s"] > 0


def test_a_run_of_a_single_step_can_be_probed(tmp_path):
    facts = figures(tmp_path, "trainer.max_steps=1")
    assert facts["total_steps"] == 1
    assert facts["step_s"] >= 0


def test_a_run_that_diverges_is_measured_as_far_as_it_goes(tmp_path):
    facts = figures(tmp_path, "optim.lr=1e30", "trainer.max_epochs=1000", steps=10**6)
    assert facts["step_s"] > 0
    assert facts["total_steps"] > 1000


def test_a_run_of_several_processes_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="several processes cannot be measured"):
        figures(tmp_path, "runtime.devices=2")


def test_it_leaves_the_run_itself_alone(tmp_path):
    figures(tmp_path / "probe", "trainer.max_epochs=1", f"runtime.root={tmp_path / 'runs'}")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "probe" / run_name(compose(QUICK))).exists()
