"""`bbi runs …`: what it prints, writes and refuses."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bbi_lightning.cli.runs import app, find_run
from bbi_lightning.tracking.annotations import read_annotations
from bbi_lightning.tracking.environment import CodeFacts
from bbi_lightning.tracking.field_names import FACTS
from bbi_lightning.tracking.metric_log import MetricLog
from bbi_lightning.tracking.query import parse
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.components import ConfigError

CONFIG = """\
optim: {{_target_: torch.optim.{optimizer}, _partial_: true, lr: {lr}}}
data: {{_target_: bbi_lightning.data.digits.DigitsDataModule, batch_size: 64}}
trainer: {{_target_: bbi_lightning.training.options.TrainerOptions, max_epochs: 3}}
seed: {seed}
"""
SGD, ADAMW, BAD = "digits-sgd-aa-s0", "digits-adamw-bb-s1", "digits-adamw-cc-s2"


def make(path, *, lr, optimizer, seed, losses, accuracy, state="finished", labels=None):
    folder = RunFolder.create(
        path, config=CONFIG.format(lr=lr, optimizer=optimizer, seed=seed), labels=labels or {}
    )
    folder.begin_attempt()
    with MetricLog(folder.metrics_file) as log:
        for step, loss in enumerate(losses, 1):
            log.append(step, step // 2, {"train/loss": loss, "val/acc": 1 - loss / 3})
    summary = {"train/loss": losses[-1], "val/acc": 0.8, "test/acc": accuracy, "parameters": 12345}
    failure = RuntimeError("out of memory") if state == "failed" else None
    folder.end_attempt(state, summary=summary, exception=failure)
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    clean = CodeFacts("c" * 40, dirty=False, diff_sha256=None)
    monkeypatch.setattr("bbi_lightning.tracking.run_folder.code_facts", lambda: clean)
    make(f"runs/{SGD}", lr=0.1, optimizer="SGD", seed=0, losses=[2.0, 1.0, 0.5, 0.6], accuracy=0.9)
    labels = {"sweep": "show", "arm": "adamw", "phase": "search", "trial": 3}
    sweep = "sweeps/show/runs"
    make(
        f"{sweep}/{ADAMW}",
        lr=1e-3,
        optimizer="AdamW",
        seed=1,
        losses=[2.0, 0.9],
        accuracy=0.95,
        labels=labels,
    )
    labels = labels | {"trial": 4}
    bad = make(
        f"{sweep}/{BAD}",
        lr=1.0,
        optimizer="AdamW",
        seed=2,
        losses=[2.0, math.nan],
        accuracy=math.nan,
        state="failed",
        labels=labels,
    )
    (bad.checkpoints / "checkpoint-000002-step-120").mkdir(parents=True)
    (bad.checkpoints / "checkpoint-000002-step-120" / "state.pt").write_bytes(bytes(2000))
    return tmp_path


def bbi(*words, code=0, **more):
    result = CliRunner().invoke(app, list(words), **more)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output or "attempts" in result.output
    return result.stdout if code == 0 else result.output


def test_ls_shows_what_differs_and_counts(root):
    said = bbi("ls", "--sort", "name")
    heading, *rows = said.splitlines()
    assert heading.split()[:4] == ["name", "state", "test/acc", "val/acc"]
    assert {"arm", "lr", "age", "duration", "sweep"} <= set(heading.split())
    assert [row.split()[0] for row in rows[:3]] == [ADAMW, BAD, SGD]
    assert rows[0].split()[1:4] == ["finished", "95.00", "%"]
    assert "3 runs in runs/, sweeps/: 2 finished · 1 failed" in said


def test_ls_chooses_sorts_limits_and_names_columns(root):
    said = bbi(
        "ls", "--where", "lr < 0.5 or state=failed", "--sort", "-lr", "--columns", "name,lr", "-n", "2"
    )
    assert [line.split() for line in said.splitlines()[:3]] == [["name", "lr"], [BAD, "1"], [SGD, "0.1"]]
    assert "the first 2 are shown: --limit 0 shows all" in said
    assert bbi("ls", "-w", "optimizer=bbi").splitlines() == [
        "none of the 3 runs in runs/, sweeps/ is such a one"
    ]
    assert "batch_size" in bbi("ls", "-c", "+batch_size").splitlines()[0]
    assert bbi("ls", "--dir", "sweeps", "--sort", "-test/acc").splitlines()[1].startswith(ADAMW)


def test_ls_for_scripts(root):
    rows = {row["name"]: row for row in json.loads(bbi("ls", "--json"))}
    assert rows.keys() == {SGD, ADAMW, BAD}
    assert rows[BAD]["test/acc"] == "nan"
    assert rows[ADAMW]["optim.lr"] == 0.001
    assert json.loads(bbi("ls", "--json", "-w", "arm=adamw", "-c", "name,trial", "-s", "trial")) == [
        {"name": ADAMW, "trial": 3},
        {"name": BAD, "trial": 4},
    ]
    table = list(csv.DictReader(io.StringIO(bbi("ls", "--csv", "-s", "name"))))
    assert [row["name"] for row in table] == [ADAMW, BAD, SGD]
    assert table[2]["arm"] == ""
    assert float(table[2]["optim.lr"]) == 0.1


def test_ls_fields(root):
    lines = {line.split()[0]: line.split() for line in bbi("ls", "--fields").splitlines()}
    assert lines["optim.lr"] == ["optim.lr", "lr", "3", "3", lines["optim.lr"][4]]
    assert lines["seed"][1:3] == ["3", "3"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ls", "-w", "lr >"], 'a value after ">" is expected'),
        (["ls", "-w", "learning_rate=1"], "no run has a field 'learning_rate'"),
        (["ls", "-s", "tset/acc"], "did you mean test/acc"),
        (["ls", "-c", "optimiser"], "did you mean optimizer"),
        (["ls", "--json", "--csv"], "choose one"),
        (["ls", "--dir", "nowhere"], "nowhere is not a folder"),
        (["show", "digits-adamv-bb-s1"], f"did you mean {ADAMW}?"),
        (["show", "adamw"], "could be 2 runs"),
        (["diff", SGD, "nothing"], "there is no run nothing"),
        (["tag", SGD], "no tag is given: write +TAG"),
        (["tag", "+paper"], "no run is named: give names of runs, or --where QUERY"),
        (["tag", SGD, "+a", "-a"], "contradict each other"),
        (["tag", SGD, "+two words"], "is no word"),
        (["tag", SGD, "--force", "+a"], "there is no option --force"),
        (["rm"], "no run is named"),
        (["rm", SGD], "nobody is there to answer: say --yes"),
        (["rm", SGD, "--empty-trash"], "without runs or --where"),
        (["restore", SGD], f"there is no run {SGD} in the trash"),
        (["export", "runs.txt"], "ends in none of .csv, .parquet, .jsonl"),
        (["export", "runs.csv", "--metric", "train/loss"], "add --curves"),
        (["export", "runs.csv", "--where", "state=pruned"], "there is nothing to write"),
    ],
)
def test_a_mistake_is_one_sentence(root, words, sentence):
    said = bbi(*words, code=2)
    assert sentence in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert len(list(root.glob("**/run.json"))) == 3


def test_nowhere_to_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "neither runs/ nor sweeps/" in bbi("ls", code=2)


def test_show(root):
    said = bbi("show", "adamw-bb")
    for part in (
        ADAMW,
        "finished",
        "sweep show · arm adamw · phase search · trial 3",
        "95.00 %",
        "lr 0.001",
        "12,345",
    ):
        assert part in said
    curve = next(line for line in said.splitlines() if line.split()[:1] == ["train/loss"] and "█" in line)
    assert curve.split()[-4:] == ["2.000", "0.9000", "0.9000", "2"]
    said = bbi("show", BAD)
    assert "RuntimeError: out of memory" in said
    assert "checkpoints/ (1, after step 120)" in said
    assert "2 kB" in said
    (root / f"runs/{SGD}/metrics.jsonl").write_text("no row\n")
    assert "line 1 is damaged" in " ".join(bbi("show", SGD).split())


def test_show_for_scripts(root):
    facts = json.loads(bbi("show", BAD, "--json"))
    assert facts["fields"]["test/acc"] == "nan"
    assert facts["record"]["labels"]["trial"] == 4
    assert facts["checkpoints"] == [
        {"path": f"sweeps/show/runs/{BAD}/checkpoints/checkpoint-000002-step-120", "step": 120, "bytes": 2000}
    ]
    files = [file for file in (root / facts["folder"]).rglob("*") if file.is_file()]
    assert facts["bytes"] == sum(file.stat().st_size for file in files)


def test_a_run_without_anything_can_be_shown(root):
    RunFolder.create("runs/bare-s0", config="seed: 0\n")
    assert "interrupted" in bbi("show", "bare-s0")
    assert "bare-s0" in bbi("diff", "bare-s0", SGD)


def test_diff(root):
    said = bbi("diff", SGD, ADAMW)
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["optim.lr"] == ["optim.lr", "0.1", "0.001"]
    assert rows["seed"] == ["seed", "0", "1"]
    assert "the same machine, versions and code" in said
    assert "part at step 2" in said
    assert rows["test/acc"] == ["test/acc", "90.00", "%", "95.00", "%", "+5.00", "points"]
    facts = json.loads(bbi("diff", SGD, ADAMW, "--json"))
    assert facts["config"]["optim.lr"] == [0.1, 0.001]
    assert [c["parts_at"] for c in facts["curves"] if c["metric"] == "train/loss"] == [2]


def test_tags_and_notes(root):
    assert bbi("tag", SGD, ADAMW, "+paper", "+figure-2") == (
        f"{SGD}: figure-2, paper\n{ADAMW}: figure-2, paper\n"
    )
    bbi("tag", "--where", "optimizer=adamw", "-figure-2", "-heavy")
    assert read_annotations(root / f"sweeps/show/runs/{ADAMW}").tags == ("paper",)
    assert {row["name"] for row in json.loads(bbi("ls", "-w", "tags=figure-2", "--json"))} == {SGD}
    assert bbi("note", SGD) == f"{SGD} has no note\n"
    bbi("note", SGD, "spike, see “slides”")
    assert bbi("note", SGD) == "spike, see “slides”\n"
    assert json.loads(bbi("ls", "-w", "note~SPIKE", "--json"))[0]["name"] == SGD
    bbi("note", SGD, "")
    assert read_annotations(root / f"runs/{SGD}").note == ""
    assert "Usage" in bbi("tag", "-h")


def test_rm_and_restore(root):
    said = bbi("rm", "--where", "optimizer=adamw", "--yes")
    assert "1 run with a result in a sweep (show)" in said
    assert "2 runs in the trash" in said
    assert [row["name"] for row in json.loads(bbi("ls", "--json"))] == [SGD]
    assert ADAMW in bbi("restore")
    assert f"{ADAMW}: back in" in bbi("restore", "bb-s1")
    assert {row["name"] for row in json.loads(bbi("ls", "--json"))} == {SGD, ADAMW}
    assert "1 run deleted" in bbi("rm", "--empty-trash", "--yes")
    assert bbi("restore") == "the trash is empty\n"
    assert {row["name"] for row in json.loads(bbi("ls", "--json"))} == {SGD, ADAMW}


def test_rm_refuses_what_is_being_trained(root):
    folder = RunFolder.create("runs/alive-s0", config="seed: 0\n")
    folder.begin_attempt()
    assert "is being trained: stop it first" in bbi("rm", "--where", "name is not null", "--yes", code=2)
    folder.release()
    assert len(json.loads(bbi("ls", "--json"))) == 4
    bbi("rm", "alive-s0", "--yes")


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 3), (b"y\n", 0, 2)])
def test_rm_asks(root, answer, code, left):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "bbi_lightning.cli", "runs", "rm", SGD]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.write(ours, answer)
    said = process.communicate(timeout=60)[0].decode()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code, said
    assert "Put 1 run into the trash?" in said
    assert len(json.loads(bbi("ls", "--json"))) == left


def test_export_of_runs(root):
    bbi("export", "runs.csv", "--where", "state=finished")
    rows = list(csv.DictReader(io.StringIO((root / "runs.csv").read_text())))
    assert {row["name"] for row in rows} == {SGD, ADAMW}
    assert "exists" in bbi("export", "runs.csv", code=2)
    bbi("export", "runs.csv", "--force")
    bbi("export", "runs.jsonl")
    lines = [json.loads(line) for line in (root / "runs.jsonl").read_text().splitlines()]
    assert {line["name"]: line["test/acc"] for line in lines}[BAD] == "nan"
    parquet = pytest.importorskip("pyarrow.parquet")
    bbi("export", "runs.parquet")
    table = {row["name"]: row for row in parquet.read_table(root / "runs.parquet").to_pylist()}
    assert table[ADAMW]["optim.lr"] == 0.001
    assert table[SGD]["arm"] is None
    assert math.isnan(table[BAD]["test/acc"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_export_of_curves(root, suffix):
    name = f"curves.{suffix}"
    bbi("export", name, "--curves", "--metric", "train/loss")
    if suffix == "csv":
        rows = list(csv.DictReader(io.StringIO((root / name).read_text())))
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in (root / name).read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(root / name).to_pylist()
    values = [float(row["value"]) for row in rows if row["run"] == SGD]
    assert values == [2.0, 1.0, 0.5, 0.6]
    assert [int(row["step"]) for row in rows if row["run"] == SGD] == [1, 2, 3, 4]
    assert {row["metric"] for row in rows} == {"train/loss"}
    assert len(rows) == 8
    assert not list(root.glob(".*tmp"))


def test_index(root):
    assert "3 runs, 3 of them read" in bbi("index")
    for file in [*root.glob("**/run.json"), *root.glob("**/config.yaml")]:
        os.utime(file, (time.time() - 60, time.time() - 60))
    bbi("index")
    assert "3 runs, 0 of them read" in bbi("index")
    assert "3 runs, 3 of them read" in bbi("index", "--rebuild")


def test_other_verbs_find_a_run_at_any_depth(root):
    assert find_run(ADAMW, root / "sweeps").name == ADAMW
    assert find_run(f"sweeps/show/runs/{ADAMW}", root / "runs").name == ADAMW
    with pytest.raises(
        ConfigError, match="there is no run digits-adamw-bb-s9: did you mean digits-adamw-bb-s1"
    ):
        find_run("digits-adamw-bb-s9", root / "sweeps")
    make(f"sweeps/two/runs/{ADAMW}", lr=1.0, optimizer="AdamW", seed=1, losses=[1.0], accuracy=0.5)
    with pytest.raises(ConfigError, match="is the name of 2 runs"):
        find_run(ADAMW, root / "sweeps")


def test_neither_the_help_nor_a_listing_loads_torch(root):
    code = (
        "import sys; from typer.testing import CliRunner; from bbi_lightning.cli.runs import app; "
        "assert CliRunner().invoke(app, ['ls']).exit_code == 0; "
        "heavy = {'torch', 'wandb', 'omegaconf', 'pandas'} & sys.modules.keys(); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


PAGE = (Path(__file__).parents[2] / "docs" / "jobs" / "runs.md").read_text()


def test_the_page_names_every_fact_and_its_queries_can_be_read():
    named = set(re.findall(r"`([\w./]+)`", PAGE))
    assert set(FACTS) <= named
    queries = re.findall(r"--where \"(.+?)\"", PAGE)
    quoted = re.findall(r"`(\w[^`]+)`", PAGE)
    queries += [text for text in quoted if re.search(r"\w(<|>|=|~| in \()[^\s…]", text)]
    assert len(queries) > 8
    for query in queries:
        parse(query)


def test_every_verb_of_the_page_and_of_the_helps_is_there(root):
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"bbi runs (\w+)", PAGE)) <= verbs
    for verb in verbs:
        said = bbi(verb, "--help")
        assert "Examples" in said
        assert set(re.findall(r"bbi runs (\w+)", said)) <= verbs
