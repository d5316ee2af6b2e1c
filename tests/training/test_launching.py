"""A run finds its peers whoever started its processes, and says when their number is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.launching import cluster_environment
from bbi_lightning.training.options import RuntimeOptions

LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "LSB_", "OMPI_", "PMI_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "JSM_")
STEP = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "n[1-2]",
    "SLURM_JOB_NAME": "train",
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)


def started_by(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_srun_tells_the_ranks_of_a_step_and_never_requeues(monkeypatch: pytest.MonkeyPatch) -> None:
    started_by(monkeypatch, STEP)
    environment = cluster_environment(RuntimeOptions(devices=2, num_nodes=2))
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    assert (environment.global_rank(), environment.local_rank(), environment.world_size()) == (3, 1, 4)


def test_torchrun_goes_before_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    started_by(monkeypatch, STEP | TORCHRUN)
    environment = cluster_environment(RuntimeOptions(devices=2))
    assert isinstance(environment, TorchElasticEnvironment)
    assert (environment.global_rank(), environment.world_size()) == (1, 2)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_only_task_of_a_step_starts_its_ranks_itself(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    started_by(monkeypatch, STEP | {"SLURM_NTASKS": "1"})
    assert isinstance(cluster_environment(RuntimeOptions(devices=devices)), LightningEnvironment)


def test_a_batch_script_without_srun_is_like_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    started_by(monkeypatch, {name: value for name, value in STEP.items() if name != "SLURM_STEP_ID"})
    assert isinstance(cluster_environment(RuntimeOptions(devices=4)), LightningEnvironment)


@pytest.mark.parametrize(("launcher", "variables", "started"), [("srun", STEP, 4), ("torchrun", TORCHRUN, 2)])
def test_another_number_of_processes_than_the_run_has_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, launcher: str, variables: dict[str, str], started: int
) -> None:
    started_by(monkeypatch, variables)
    with pytest.raises(ConfigError) as error:
        cluster_environment(RuntimeOptions(devices=3))
    assert str(error.value) == (
        "runtime.devices=3 and runtime.num_nodes=1 make 3 processes, "
        f"but {launcher} started {started}: make them equal"
    )


def test_a_machine_that_merely_has_srun_gives_no_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(cluster_environment(RuntimeOptions()), LightningEnvironment)
