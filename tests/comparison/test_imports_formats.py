"""What each tracker leaves is read as the runs it was made from."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from foreign_runs import Made, csv_folder, made, wandb_export, write_csv

from bbi_lightning.comparison.imports import (
    ForeignDataError,
    ForeignRun,
    Naming,
    name_runs,
    read_csv_folder,
    read_tensorboard,
    read_wandb_export,
)


def told(run: ForeignRun, metric: str) -> list[tuple[Any, Any]]:
    return [(row["step"], row[metric]) for row in run.rows if metric in row]


def compare_with_what_was_made(runs: tuple[ForeignRun, ...], tolerance: float = 1e-12) -> None:
    named = {
        (r.config["optim.name"], r.config["optim.lr"], r.config["seed"]): r for r in name_runs(runs).runs
    }
    assert len(named) == len(runs) == len(list(made()))
    for own in made():
        run = named[own.optimizer, own.lr, own.seed]
        for metric in ("train/loss", "val/loss", "val/acc", "test/acc"):
            expected = [(row["step"], row[metric]) for row in own.rows if metric in row]
            found = told(run, metric)
            assert [step for step, _ in found] == [step for step, _ in expected]
            assert [v for _, v in found] == pytest.approx([v for _, v in expected], rel=max(tolerance, 1e-12))
        assert run.summary["test/acc"] == pytest.approx(own.rows[-1]["test/acc"], rel=max(tolerance, 1e-12))
        assert run.config["width"] == 64
        assert run.state == "finished"


def test_csv_folder(tmp_path: Path) -> None:
    compare_with_what_was_made(read_csv_folder(csv_folder(tmp_path)))


@pytest.mark.parametrize("style", ["site", "pandas"])
@pytest.mark.parametrize("histories", ["csv", "jsonl", "parquet", "one"])
def test_wandb_tables(style: str, histories: str, tmp_path: Path) -> None:
    runs = read_wandb_export(wandb_export(tmp_path, style=style, histories=histories))
    compare_with_what_was_made(runs)
    named = name_runs(runs).runs[0]
    assert [row["time"] for row in named.rows] == [0.0, 1.5, 3.0, 4.5, 6.0]
    assert not any(key.startswith("_") for key in (*named.config, *named.summary, *named.rows[0]))
    assert style == "pandas" or named.created == "2026-03-01T10:00:00+00:00"
    assert style == "site" or math.isnan(named.summary["bad"])


def test_wandb_chart_export(tmp_path: Path) -> None:
    runs = list(made())[:2]
    write_csv(tmp_path / "runs.csv", [{"Name": run.name, "State": "crashed", **run.config} for run in runs])
    rows = []
    for n in range(5):
        row: dict[str, Any] = {"Step": 20 * (n + 1)}
        for run in runs:
            value = run.rows[n]["val/loss"]
            row |= {
                f"{run.name} - val/loss": value,
                f"{run.name} - val/loss__MIN": 0,
                f"{run.name} - _step": n,
            }
        rows.append(row)
    write_csv(tmp_path / "wandb_chart.csv", rows)
    found = name_runs(read_wandb_export(tmp_path)).runs
    assert [told(run, "val/loss") for run in found] == [
        [(row["step"], row["val/loss"]) for row in run.rows] for run in runs
    ]
    assert {run.state for run in found} == {"failed"}


def test_wandb_states_are_ours(tmp_path: Path) -> None:
    states = {"finished": "finished", "crashed": "failed", "failed": "failed", "killed": "interrupted",
              "running": "interrupted"}  # fmt: skip
    write_csv(tmp_path / "runs.csv", [{"Name": state, "State": state, "val/loss": 1.0} for state in states])
    assert {run.name: run.state for run in read_wandb_export(tmp_path)} == states


def test_wandb_local_folder(tmp_path: Path) -> None:
    """What `wandb.init(mode="offline")` writes, read with W&B's own reader."""
    program = """
import wandb
for seed in (0, 1):
    run = wandb.init(mode="offline", project="p", name=f"sgd-{seed}", id=f"abc{seed}", group="g", tags=["t"],
                     config={"optim": {"name": "sgd", "lr": 0.1}, "seed": seed})
    for n in range(3):
        run.log({"trainer/global_step": 10 * n, "val": {"loss": 1.0 / (n + 1)}, "train/loss": 2.0})
    run.log({"train/loss": float("nan")})
    run.finish()
run = wandb.init(mode="offline", project="p", id="abc1", resume="allow")  # from step 10 on again
for n in (1, 2, 3):
    run.log({"trainer/global_step": 10 * n, "val": {"loss": 7.0 + n}})
run.finish()
"""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=120)
    runs = read_wandb_export(tmp_path / "wandb")
    assert [(run.key, run.name, run.state) for run in runs] == [
        ("abc0", "sgd-0", "finished"), ("abc1", "sgd-1", "finished")
    ]  # fmt: skip
    assert runs[1].config == {"optim.name": "sgd", "optim.lr": 0.1, "seed": 1}
    assert runs[0].facts["group"] == "g"
    named = name_runs(runs).runs[0]
    assert [(row["step"], row["val/loss"]) for row in named.rows[:3]] == [(0, 1.0), (10, 0.5), (20, 1 / 3)]
    assert math.isnan(named.summary["train/loss"])
    again = name_runs(runs).runs[1]
    assert told(again, "val/loss") == [(0, 1.0), (10, 8.0), (20, 9.0), (30, 10.0)]


def tensorboard_folder(folder: Path, *, hparams: str) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    for run in made():
        place = folder / run.optimizer / run.name
        writer = SummaryWriter(str(place))
        for row in run.rows:
            for tag, value in row.items():
                if tag != "step":
                    writer.add_scalar(tag, value, row["step"])
        if hparams == "add_hparams":
            writer.add_hparams(run.config, {"hparam/loss": 1.0})
        writer.close()
        if hparams == "hparams.yaml":
            odd = "act: !!python/name:torch.nn.modules.activation.ReLU ''\n"
            (place / "hparams.yaml").write_text(
                json.dumps(run.config)[1:-1].replace(", ", "\n").replace('"', "") + "\n" + odd
            )
    return folder


@pytest.mark.parametrize("hparams", ["add_hparams", "hparams.yaml"])
def test_tensorboard(hparams: str, tmp_path: Path) -> None:
    runs = read_tensorboard(tensorboard_folder(tmp_path, hparams=hparams))
    compare_with_what_was_made(runs, tolerance=1e-6)  # event files hold float32
    assert {run.name.partition("/")[0] for run in runs} == {"bbi", "sgd"}


def test_tensorboard_cut_short_keeps_what_is_whole(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "a"))
    for step in range(50):
        writer.add_scalar("val/loss", 1.0 / (step + 1), step)
    writer.close()
    (file,) = (tmp_path / "a").iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    (run,) = read_tensorboard(tmp_path)
    assert 45 <= len(run.rows) < 50


def test_lightnings_csv_logger(tmp_path: Path) -> None:
    for version, run in enumerate(made()):
        place = tmp_path / f"version_{version}"
        write_csv(place / "metrics.csv", run.rows)
        (place / "hparams.yaml").write_text(json.dumps(run.config))
    compare_with_what_was_made(read_csv_folder(tmp_path))


def test_settings_in_file_names(tmp_path: Path) -> None:
    for run in made():
        name = "_".join(f"{key}={value}" for key, value in run.config.items())
        write_csv(tmp_path / f"{name}.csv", run.rows)
    compare_with_what_was_made(read_csv_folder(tmp_path))


def test_words_for_numbers_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,val/loss,train/loss\n1,nan,\n2,inf,0.5\n3,-inf,text\n")
    (run,) = read_csv_folder(tmp_path)
    values = [row.get("val/loss") for row in run.rows]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    assert [row.get("train/loss") for row in run.rows] == [None, 0.5, None]


def one(tmp_path: Path, **columns: list[Any]) -> tuple[ForeignRun, ...]:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    write_csv(tmp_path / "a.csv", rows)
    return read_csv_folder(tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("train_loss", "train/loss"), ("valid/accuracy", "val/acc"), ("accuracy/val", "val/acc"),
     ("eval_loss", "val/loss"), ("test_acc", "test/acc"), ("Validation Loss", "val/loss"),
     ("train_loss_epoch", "train/loss"), ("loss", "loss"), ("val_f1", "val_f1")],
)  # fmt: skip
def test_names_that_are_known(theirs: str, ours: str, tmp_path: Path) -> None:
    assert name_runs(one(tmp_path, step=[1], **{theirs: [0.5]})).runs[0].summary == {ours: 0.5}


def test_a_known_name_gives_way_to_what_the_user_says_and_to_what_is_there(tmp_path: Path) -> None:
    runs = one(tmp_path, step=[1], val_loss=[0.5], ema_loss=[0.4], train_loss=[1.0], **{"train/loss": [2.0]})
    summary = name_runs(runs, Naming({"ema_loss": "val/loss"})).runs[0].summary
    assert summary == {"val_loss": 0.5, "val/loss": 0.4, "train_loss": 1.0, "train/loss": 2.0}


def test_scales_and_last_values(tmp_path: Path) -> None:
    runs = one(tmp_path, step=[1, 2], acc1_val=[91.0, 90.0])
    named = name_runs(runs, Naming({"acc1_val": "val/acc"}, {"val/acc": 0.01}))
    assert named.runs[0].summary["val/acc"] == pytest.approx(0.9)


def test_the_last_value_counts_and_not_the_trackers_best(tmp_path: Path) -> None:
    write_csv(tmp_path / "runs.csv", [{"Name": "a", "State": "finished", "test/acc": 0.99}])
    write_csv(tmp_path / "a.csv", [{"_step": 1, "test/acc": 0.99}, {"_step": 2, "test/acc": 0.9}])
    named = name_runs(read_wandb_export(tmp_path))
    assert named.runs[0].summary["test/acc"] == 0.9
    assert any("test/acc of 1 of 1 runs ends on another value" in note for note in named.notes)


def test_epochs_serve_for_steps_and_clocks_for_seconds(tmp_path: Path) -> None:
    named = name_runs(one(tmp_path, epoch=[1, 2], wall_time=[100.5, 103.0], val_loss=[1, 2]))
    assert [(row["step"], row["epoch"], row["time"]) for row in named.runs[0].rows] == [
        (1, 1, 0.0),
        (2, 2, 2.5),
    ]


@pytest.mark.parametrize(
    ("columns", "naming", "words"),
    [
        ({"val_loss": [1.0]}, Naming(), "nothing says at which step"),
        ({"step": [1.5], "val_loss": [1.0]}, Naming(), "step=1.5 is no step"),
        ({"step": [1], "val_loss": [1.0]}, Naming({"vall_loss": "x"}), "did you mean val_loss?"),
        ({"step": [1], "a": [1.0], "b": [2.0]}, Naming({"a": "c", "b": "c"}), "a and b would both become c"),
        ({"step": [1], "val_acc": [97.0]}, Naming(), "add --scale val/acc=0.01"),
        ({"step": [1], "val_acc": [0.9]}, Naming({}, {"val/ac": 0.01}), "did you mean val/acc?"),
    ],
)
def test_mistakes_with_names(columns: dict[str, Any], naming: Naming, words: str, tmp_path: Path) -> None:
    with pytest.raises(ForeignDataError) as caught:
        name_runs(one(tmp_path, **columns), naming)
    assert words in str(caught.value)


def damaged_table(folder: Path) -> None:
    (folder / "runs.csv").write_text("Name,config\na,[1 2]\n")


def no_table(folder: Path) -> None:
    write_csv(folder / "x.csv", [{"_step": 1, "loss": 1}])


def stray_history(folder: Path) -> None:
    wandb_export(folder)
    shutil.copy(folder / "history" / "id00.csv", folder / "history" / "idOO.csv")


def two_of_a_name(folder: Path) -> None:
    write_csv(folder / "runs.csv", [{"Name": "a"}, {"Name": "a"}])


def one_name_for_two(folder: Path) -> None:
    write_csv(folder / "runs.csv", [{"Name": "a", "ID": "x"}, {"Name": "a", "ID": "y"}])
    write_csv(folder / "a.csv", [{"_step": 1, "loss": 1}])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_table, "put W&B's table of runs there as runs.csv"),
        (damaged_table, "a cell of column config is no dict"),
        (stray_history, "belongs to no run of the table"),
        (two_of_a_name, "add the column ID"),
        (one_name_for_two, "may belong to 2 runs of that name"),
    ],
)
def test_mistakes_in_an_export(make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ForeignDataError) as caught:
        read_wandb_export(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_in_a_csv_folder(tmp_path: Path) -> None:
    with pytest.raises(ForeignDataError, match="holds no tables"):
        read_csv_folder(tmp_path)
    write_csv(tmp_path / "runs.csv", [{"run": "a", "lr": 1}, {"run": "b", "lr": 1}])
    write_csv(tmp_path / "a.csv", [{"step": 1}])
    with pytest.raises(ForeignDataError, match=r"tells of run b, which has no table"):
        read_csv_folder(tmp_path)
    write_csv(tmp_path / "c.csv", [{"step": 1}])
    with pytest.raises(ForeignDataError, match=r"c\.csv has no line in runs\.csv"):
        read_csv_folder(tmp_path)
    with pytest.raises(ForeignDataError, match="is no folder"):
        read_csv_folder(tmp_path / "nowhere")
    with pytest.raises(ForeignDataError, match="holds no event files"):
        read_tensorboard(tmp_path)


def test_damaged_event_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"\x18" + bytes(40))
    with pytest.raises(ForeignDataError, match=r"events\.out\.tfevents\.1\.host|no scalars"):
        read_tensorboard(tmp_path)


def test_made_is_what_it_says() -> None:
    assert Made("bbi", 0.1, 0).accuracy(5) > Made("sgd", 0.1, 0).accuracy(5) > Made("sgd", 1.0, 0).accuracy(5)
