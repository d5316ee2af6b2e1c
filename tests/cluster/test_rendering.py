"""A job becomes exactly the script that the golden files show, and a wrong one becomes a sentence."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from bbi_lightning.cluster import ClusterError, Resources, Site, load_site, render
from cluster.cases import GOLDEN, TRAIN, WORKER, cases


@pytest.mark.parametrize("name", cases())
def test_the_script_is_the_golden_one(name: str) -> None:
    assert render(*cases()[name]) == (GOLDEN / f"{name}.sh").read_text()


def test_every_golden_file_is_of_a_case() -> None:
    assert {file.stem for file in GOLDEN.glob("*.sh")} == set(cases())


@pytest.mark.parametrize("name", cases())
def test_the_shell_takes_it(name: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(*cases()[name]))
    subprocess.run(["bash", "-n", script], check=True)


def test_the_work_gets_its_words_as_they_are(tmp_path: Path) -> None:
    words = ("a b", "it's", 'say "x"', "$HOME", "`date`", "back\\slash", "", "*", "x" * 120)
    script = render(dataclasses.replace(TRAIN, command=("printf", "%s\\n", *words)), Site())
    work = script[script.index("srun ") : script.index("code=$?")]
    stand_in = 'srun() { while [[ $1 == -* ]]; do shift; done; "$@"; }\n'
    done = subprocess.run(["bash", "-c", stand_in + work], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == list(words)


@pytest.mark.parametrize(("nodes", "devices"), [(1, 1), (1, 8), (4, 8)])
def test_tasks_are_devices_times_nodes(nodes: int, devices: int) -> None:
    resources = Resources(nodes=nodes, devices=devices)
    assert resources.tasks == nodes * devices
    script = render(dataclasses.replace(TRAIN, resources=resources), Site())
    assert f"--nodes={nodes}\n" in script
    assert f"--ntasks-per-node={devices}\n" in script
    assert "--ntasks=" not in script


def test_what_is_asked_for_goes_before_the_sites_defaults() -> None:
    site = Site(defaults={"partition": "low", "time": "1:00:00", "gpus": 2})
    script = render(dataclasses.replace(WORKER, resources=Resources(partition="high")), site)
    assert "--partition=high\n" in script
    assert "--partition=low" not in script
    assert "--time=1:00:00\n" in script
    assert "--gpus-per-node=2\n" in script


@pytest.mark.parametrize(("asked", "option"), [({"gpus": 0}, "--gpus"), ({"nodes": 1}, "--nodes=2")])
def test_asking_for_the_least_goes_before_the_sites_defaults_too(asked: dict[str, int], option: str) -> None:
    resources = Resources.read(asked)
    site = Site(defaults={"gpus": 1, "nodes": 2})
    assert option in render(dataclasses.replace(WORKER, resources=Resources()), site)
    for given in (resources, resources.over(site.defaults)):  # over twice is as over once
        assert option not in render(dataclasses.replace(WORKER, resources=given), site)


def test_a_step_gets_all_the_cores_of_its_job() -> None:
    """Since 22.05 srun takes one core a task, whatever sbatch was asked for."""
    assert '--cpus-per-task="${SLURM_CPUS_PER_TASK:-1}"' in render(WORKER, Site())


def test_a_comment_in_the_sites_setup_does_not_hide_its_failure() -> None:
    script = render(WORKER, Site(setup=("false # module load cuda",)))
    environment = script[script.index("# 1. The environment") : script.index("# 2. The work")]
    done = subprocess.run(["bash", "-c", "fail() { exit 9; }\n" + environment], check=False)
    assert done.returncode == 9


def test_a_folder_may_have_a_space_in_it() -> None:
    script = render(dataclasses.replace(WORKER, folder="/my sweeps/x", workdir="/my sweeps"), Site())
    assert "#SBATCH --output='/my sweeps/x/%A_%a.log'\n" in script
    assert "#SBATCH --chdir='/my sweeps'\n" in script


def test_a_short_job_is_not_told_for_most_of_its_time() -> None:
    job = dataclasses.replace(WORKER, resources=Resources(time="1:00"))
    assert "--signal=USR1@15\n" in render(job, Site(notice=120))
    assert "--signal" not in render(job, Site(notice=0))


def test_a_site_that_never_requeues_queues_nothing() -> None:
    script = render(WORKER, Site(requeue="never"))
    assert "--no-requeue" in script
    assert "scontrol requeue" not in script
    assert "sbatch --parsable" not in script


def test_a_container_needs_a_runtime() -> None:
    job = dataclasses.replace(TRAIN, resources=Resources(container="/i.sif"))
    with pytest.raises(ClusterError, match=r"container=/i\.sif, but the site generic names no runtime"):
        render(job, load_site("generic"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a b"}, "the job's name a b"),
        ({"command": ()}, "has no command"),
        ({"folder": "relative"}, "folder relative must be an absolute path"),
        ({"title": "two\n#SBATCH lines"}, "must be one line"),
        ({"workdir": "/50%"}, "which SLURM reads as a pattern"),
    ],
)
def test_a_job_that_cannot_be_is_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ClusterError, match=sentence):
        dataclasses.replace(TRAIN, **changes)
