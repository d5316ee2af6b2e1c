"""`bbi train` and `bbi config` as a user runs them: real processes, exit codes, what is said where."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.config import compose, run_name
from bbi_lightning.training.run import train

BBI = Path(sys.executable).with_name("bbi")  # the entry point that installing the package makes
QUICK = ["tracking=none", "runtime.threads=1", "runtime.accelerator=cpu"]


def bbi(*words: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [str(BBI), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_train_prints_a_result_and_where_it_is_and_the_second_time_finds_it(tmp_path: Path) -> None:
    command = ["train", "optim=sgd", "trainer.max_epochs=2", *QUICK]
    first = bbi(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    for text in ("finished", "train", "val", "test", "accuracy", f"run folder: runs/{folder.name}"):
        assert text in first.stdout
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["overrides"] == command[1:]
    assert f"{100 * record['summary']['test/acc']:.2f} %" in first.stdout
    assert "Traceback" not in first.stderr
    assert "Warning" not in first.stderr

    second = bbi(*command, cwd=tmp_path)
    assert second.returncode == 0
    assert "has finished already" in second.stderr
    assert json.loads((folder / "run.json").read_text()) == record


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "optim=bbbi"], "error: optim=bbbi is not an option of optim: did you mean bbi?"),
        (["train", "optim.lrr=1"], "error: optim.lrr=1 is unknown: did you mean optim.lr?"),
        (["train", "data=mnist", "data.data_dir=/nowhere"], "error: data: /nowhere/MNIST/raw has no file"),
        (
            ["config", "trainer.max_epoch=1"],
            "error: trainer.max_epoch=1 is unknown: did you mean trainer.max_epochs?",
        ),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2(words: list[str], sentence: str, tmp_path: Path) -> None:
    result = bbi(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(sentence)
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_config_prints_the_resolved_yaml_and_the_name(tmp_path: Path) -> None:
    result = bbi("config", "optim=ecdsep", "optim.nu=1e-3", "seed=4", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("# run digits-cnn-ecdsep-")
    assert "_target_: bbi_lightning.optim.ECDSep" in result.stdout
    assert "nu: 0.001" in result.stdout
    assert result.stdout.count("seed: 4") >= 3  # the root's, the optimizer's, the data's
    assert "${" not in result.stdout
    assert "\x1b" not in result.stdout  # colour is for terminals
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(tmp_path: Path) -> None:
    result = bbi("train", "--help", cwd=tmp_path)
    assert result.returncode == 0
    words = " ".join(result.stdout.split())
    assert "bbi train optim=sgd optim.lr=0.05 seed=1" in words
    assert "adam, adamw, bbi, bi" in words
    assert "constant, cosine, multistep, step" in words


def test_help_and_version_come_quickly_and_import_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys, bbi_lightning.cli; "
        "print([m for m in ('torch', 'pytorch_lightning', 'hydra', 'wandb', 'optuna') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert bbi("--help", cwd=tmp_path).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # seconds
    version = bbi("--version", cwd=tmp_path).stdout
    assert re.fullmatch(r"bbi_lightning \d+\.\d+\.\d+\S*\n", version)


def interrupt_after(rows: int, number: signal.Signals, *words: str, cwd: Path) -> tuple[int, str]:
    """Start `bbi train`, send a signal when so many rows are logged; its exit code and stderr."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [str(BBI), "train", *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        logs = list(cwd.glob("runs/*/metrics.jsonl"))
        if logs and len(read_metrics(logs[0])) >= rows:
            break
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "number"), [("bbi", signal.SIGTERM), ("sgd", signal.SIGINT), ("adamw", signal.SIGUSR1)]
)
def test_interrupted_process_resumes_to_the_same_bits(
    optimizer: str, number: signal.Signals, tmp_path: Path
) -> None:
    words = [f"optim={optimizer}", "data.augment=true", "model.dropout=0.1", "trainer.max_epochs=40", *QUICK]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    parts.mkdir()
    train(compose([*words, f"runtime.root={whole}", "runtime.progress=none"]))

    code, stderr = interrupt_after(20, number, *words, cwd=parts)
    assert code == 128 + number
    assert "Traceback" not in stderr
    (folder,) = (parts / "runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "interrupted"
    assert record["attempts"][0]["reason"] == number.name

    again = bbi("train", *words, cwd=parts)
    assert again.returncode == 0, again.stderr
    assert "resuming" in again.stderr
    assert json.loads((folder / "run.json").read_text())["attempts"][1]["from_step"] > 0

    one, other = (max(root.glob("*/checkpoints/checkpoint-*/state.pt")) for root in (whole, parts / "runs"))
    expected = torch.load(one, weights_only=True)["state_dict"]
    for name, value in torch.load(other, weights_only=True)["state_dict"].items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.slow
def test_killed_process_is_taken_up_from_its_last_checkpoint(tmp_path: Path) -> None:
    words = ["optim=bbi", "trainer.max_epochs=40", "checkpoint.every=0.1", *QUICK]
    code, _ = interrupt_after(40, signal.SIGKILL, *words, cwd=tmp_path)
    assert code == -signal.SIGKILL
    again = bbi("train", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (file,) = tmp_path.glob("runs/*/run.json")
    record = json.loads(file.read_text())
    assert [a["reason"] for a in record["attempts"]] == ["lost", "trained to the end"]
    assert record["attempts"][1]["from_step"] > 0
    steps = [row["step"] for row in read_metrics(file.with_name("metrics.jsonl"))]
    assert steps == sorted(steps)
    assert record["summary"]["steps"] == 720


def test_run_that_is_being_trained_is_refused(tmp_path: Path) -> None:
    name = run_name(compose(QUICK))
    folder = RunFolder.create(tmp_path / "runs" / name, config="")
    folder.acquire()
    result = bbi("train", *QUICK, cwd=tmp_path)
    folder.release()
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(os.getpid()) in result.stderr


@pytest.mark.slow
def test_two_processes_share_a_run(tmp_path: Path) -> None:
    words = ["train", "trainer.max_epochs=2", "runtime.devices=2", *QUICK]
    result = bbi(*words, cwd=tmp_path, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("run folder:") == 1
    (file,) = tmp_path.glob("runs/*/run.json")
    record = json.loads(file.read_text())
    assert (record["state"], len(record["attempts"])) == ("finished", 1)
    rows = read_metrics(file.with_name("metrics.jsonl"))
    assert [row["step"] for row in rows if "val/acc" in row] == [18, 36]
    assert record["summary"]["test/acc"] > 0.5
