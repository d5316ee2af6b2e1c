"""`bbi sweep`: what it runs, prints and refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

from bbi_lightning.cli import app
from bbi_lightning.cli.sweep.asking import described
from bbi_lightning.cli.sweep.task import task_named
from bbi_lightning.sweeps.run import candidates
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.config_files import groups

QUICK = ["sweep=smoke", "sweep.workers=2"]
PATIENCE = 120.0  # seconds


def invoke(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)], env={"COLUMNS": "90", "TERM": "dumb"})


def bbi(*arguments, **options):
    program = "from bbi_lightning.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "sweep", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finish(process):
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    return root, *finish(bbi("run", *QUICK, "--dir", root))


def records(root, name="smoke"):
    return [RunFolder(path.parent).record for path in sorted((root / name / "runs").glob("*/run.json"))]


def test_a_real_sweep_from_one_command(smoke):
    root, code, output = smoke
    assert code == 0, output
    assert output.splitlines()[-1] == f"Next: bbi compare {root / 'smoke'}"
    assert "6/6 runs" in output
    runs = records(root)
    assert len(runs) == 6
    assert {run.state for run in runs} == {"finished"}
    assert all(run.summary["val/acc"] > 0.5 for run in runs)
    for run in runs:
        assert run.labels["sweep"] == "smoke"
        assert f"optim={run.labels['arm']}" in run.overrides
        assert f"optim.lr={run.labels['params']['optim.lr']}" in run.overrides
        assert not any(override.startswith("runtime.") for override in run.overrides), "no part of the recipe"
    replicates = [run for run in runs if run.labels["phase"] == "replicate"]
    assert sorted(run.name.rsplit("-", 1)[1] for run in replicates) == ["s1000", "s1000"]


def test_each_run_says_where_it_belongs_and_used_one_thread(smoke):
    root, *_ = smoke
    for file in (root / "smoke" / "runs").glob("*/config.yaml"):
        runtime = yaml.safe_load(file.read_text())["runtime"]
        assert (runtime["threads"], runtime["group"]) == (1, "smoke")
        assert (file.parent / "log.txt").stat().st_size > 0


def test_the_same_command_again_runs_nothing(smoke):
    root, *_ = smoke
    before = records(root)
    began = time.monotonic()
    result = invoke("run", *QUICK, "--dir", root)
    assert result.exit_code == 0, result.output
    assert "6/6 runs" in result.output
    assert records(root) == before
    assert time.monotonic() - began < 10


def test_status(smoke):
    root, *_ = smoke
    for name in ("smoke", root / "smoke"):
        result = invoke("status", name, "--dir", root)
        assert result.exit_code == 0, result.output
        assert "6/6 runs · done" in result.output
        assert "BBI" in result.output
    plain = json.loads(invoke("status", "smoke", "--dir", root, "--json").output)
    assert (plain["ended"], plain["total"], plain["done"], plain["workers"]) == (6, 6, True, [])
    assert plain["arms"]["sgd"]["best"]["value"] > 0.5


def test_a_changed_sweep_under_the_old_name_is_refused(smoke):
    root, *_ = smoke
    result = invoke("run", *QUICK, "sweep.arms.sgd.space.optim.lr.high=0.3", "--dir", root)
    assert result.exit_code == 2
    assert "arms.sgd.space.optim.lr.high is 0.3, but the sweep" in result.output
    assert "was begun with 0.2" in result.output


@pytest.mark.slow
def test_interrupted_and_extended(tmp_path):
    bigger = [*QUICK, "sweep.search.trials=3"]
    process = bbi("run", *QUICK, "--dir", tmp_path, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "smoke").exists() or not any(run.attempts for run in records(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code, output = finish(process)
    assert code == 130, output
    assert "The same command goes on where it was." in output
    assert "Traceback" not in output

    code, output = finish(bbi("run", *bigger, "--dir", tmp_path))
    assert code == 0, output
    runs = records(tmp_path)
    assert {run.state for run in runs} == {"finished"}
    assert sum(run.labels["phase"] == "search" for run in runs) == 6
    assert all(len([a for a in run.attempts if a.reason == "trained to the end"]) == 1 for run in runs)


def test_ctrl_c_while_checking_leaves_nothing(tmp_path):
    process = bbi("run", *QUICK, "--dir", tmp_path, start_new_session=True)
    assert process.stdout.readline().startswith("checking")
    time.sleep(0.5)  # the fork server is at its imports now
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code, output = finish(process)  # ends when the last process lets go of standard output
    assert (code, output) == (130, "")
    assert time.monotonic() - began < 5
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_failed_runs_give_exit_code_1_and_say_where_to_look(tmp_path):
    """SparseAdam can be built for any parameters, and refuses their dense gradients at the first step."""
    dense_only = ["~optim.weight_decay", "~optim.amsgrad", "~optim.fused"]
    overrides = ["optim=adam", "optim._target_=torch.optim.SparseAdam", *dense_only]
    arm = "sweep.arms.sgd.overrides=[" + ",".join(f"'{override}'" for override in overrides) + "]"
    code, output = finish(bbi("run", *QUICK, arm, "--dir", tmp_path))
    assert code == 1, output
    assert "2 of the runs failed:" in output
    assert f"bbi sweep logs {tmp_path}/smoke sgd/0" in output
    assert f"bbi sweep retry {tmp_path}/smoke --failed" in output
    status = invoke("status", "smoke", "--dir", tmp_path)
    assert "2 of the runs failed:" in status.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sweep=smok"], "sweep=smok is not an option of sweep: did you mean smoke?"),
        (
            ["sweep.search.trials=4"],
            "which sweep is meant is missing: add sweep=NAME, "
            "one of digits_baselines, digits_showdown, own_module, smoke",
        ),
        (["sweep=smoke", "sweep.search.trials=0"], "search.trials=0 is too small: it must be at least 1"),
        (["sweep=smoke", "sweep.search.sampler=best"], "search.sampler=best is unknown: use one of halton"),
        (
            ["sweep=smoke", "sweep.objective.metric=val/accuracy"],
            "objective.metric=val/accuracy is not reported by a run: did you mean val/acc?",
        ),
        (["sweep=smoke", "+sweep.serch.trials=4"], "serch is not a key of a sweep: did you mean search?"),
        (
            ["sweep=smoke", "sweep.arms.sgd.overrides=['optim=sdg']"],
            "arm sgd: optim=sdg is not an option of optim",
        ),
        (
            [
                "sweep=smoke",
                "sweep.arms.sgd.space.optim.lr.low=-1",
                "sweep.arms.sgd.space.optim.lr.log=false",
            ],
            "arm sgd: optim.lr=-",
        ),
        (
            ["sweep=smoke", "+sweep.arms.sgd.space.optim.learning_rate={low:0.1,high:0.2}"],
            "arm sgd: optim.learning_rate=",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_found_before_anything_starts(tmp_path, arguments, sentence):
    result = invoke("run", *arguments, "--dir", tmp_path)
    assert result.exit_code == 2, result.output
    assert f"error: {sentence}" in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_status_of_a_sweep_that_is_not_there(tmp_path):
    result = invoke("status", "smoke", "--dir", tmp_path)
    assert result.exit_code == 2
    assert f"error: there is no sweep smoke in {tmp_path}: start one with bbi sweep run" in result.output
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "sweep.yaml").touch()
    assert "did you mean smoke?" in invoke("status", "smok", "--dir", tmp_path).output


@pytest.mark.parametrize("name", groups()["sweep"])
def test_every_shipped_sweep_is_valid_and_gives_its_arms_equal_chances(name):
    spec = described([f"sweep={name}"])
    assert spec.name == name, "its folder is found by the name it is started by"
    assert len({len(arm.space) for arm in spec.arms}) == 1
    for _, overrides in candidates(spec):
        task_named("train").validate(overrides)


VERBS = ["run", "submit", "status", "best", "logs", "export", "retry", "extend", "add", "cancel", "work"]


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
def test_help_teaches(verb):
    result = invoke(*verb, "--help")
    assert result.exit_code == 0
    if verb:
        assert "bbi sweep" in result.output
        assert "digits_showdown" in result.output


def test_help_is_instant():
    program = "import sys\nfrom bbi_lightning.cli import app\n"
    program += "app(['sweep', 'run', '--help'], standalone_mode=False)\n"
    program += "print(sorted({'torch', 'optuna', 'hydra', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


def test_the_fork_server_starts_no_thread_and_touches_no_gpu():
    """Neither would survive the fork: a child of such a server hangs, or cannot use CUDA."""
    program = """
import os, threading, torch

def refuse(*_): raise SystemExit("the preload asked CUDA for its devices")

torch._C._cuda_getDeviceCount = refuse
torch.cuda.is_available = torch.cuda.device_count = refuse
import bbi_lightning.cli.sweep_preload
print(threading.active_count(), torch.cuda.is_initialized(), len(os.listdir("/proc/self/task")))
"""
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["1", "False", "1"], result.stdout + result.stderr
