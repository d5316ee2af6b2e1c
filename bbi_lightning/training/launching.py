"""Who starts the processes of a run: srun, torchrun, another launcher, or the run itself."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.options import RuntimeOptions


def cluster_environment(runtime: RuntimeOptions) -> ClusterEnvironment:
    """Where this process finds its rank and its peers.

    torchrun goes first, since it may itself be started by srun. srun counts where it started as many tasks as
    the run has processes; the only task of a step starts the others itself, as on any machine.

    Raises:
        ConfigError: srun or torchrun started another number of processes than the run has.
    """
    if TorchElasticEnvironment.detect():
        _check("torchrun", int(os.environ["WORLD_SIZE"]), runtime)
        return TorchElasticEnvironment()
    tasks = _srun_tasks()
    if tasks > 1:
        _check("srun", tasks, runtime)
        return SLURMEnvironment(auto_requeue=False)
    for kind in (LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


def _srun_tasks() -> int:
    """How many tasks srun started together with this process; 0 if it did not start it."""
    # a batch script has SLURM's variables too; only a step's processes were started by srun
    return int(os.environ["SLURM_NTASKS"]) if {"SLURM_STEP_ID", "SLURM_NTASKS"} <= os.environ.keys() else 0


def _check(launcher: str, started: int, runtime: RuntimeOptions) -> None:
    if started != runtime.world_size:
        raise ConfigError(
            f"runtime.devices={runtime.devices} and runtime.num_nodes={runtime.num_nodes} make "
            f"{runtime.world_size} processes, but {launcher} started {started}: make them equal"
        )
