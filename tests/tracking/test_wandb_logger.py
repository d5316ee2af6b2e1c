"""W&B without W&B: real attempts in real processes (`wandb_jobs`), against a stand-in and offline."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import wandb_jobs
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb_jobs import CONFIG
from wandb_standin import DUMMY_KEY, WandbStandIn, wandb_environment

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_logger import WandbTracking
from bbi_lightning.tracking.wandb_sync import send, unsent

ROOT = Path(__file__).parents[2]
NAME = "digits-cnn-bbi-0123456789-s1000"
SAME = "digits-cnn-bbi-0123456789-s1001"
LABELS = {"sweep": "showdown", "arm": "bbi", "phase": "replicate", "trial": 3, "params": {"optim.lr": 0.4}}
BOTH = [("best", "cp-1"), ("last", "cp-2")]
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """All jobs, run once: three attempts on one run online, and one of each other kind."""
    root = tmp_path_factory.mktemp("wandb")
    online = {"mode": "online", "tags": ["paper"], "init_timeout": 30}
    paths = {
        name: root / "runs" / name / (SAME if name == "same" else NAME)
        for name in ("online", "same", "offline", "none", "rank", "refused", "nokey", "broken", "two")
    }

    with WandbStandIn() as service:
        connected = service.environment(root / "home")
        bare = wandb_environment(root / "home")
        refused = connected | {"WANDB_BASE_URL": UNREACHABLE}

        def job(name, environment, do="attempt", **arguments):
            arguments = {"path": str(paths[name.rstrip("123")]), **arguments}
            return {
                "do": do,
                "arguments": arguments,
                "environment": environment,
                "home": str(root / "out" / name),
            }

        def tried(
            tracking,
            from_step=0,
            to_step=8,
            state="finished",
            labels=LABELS,
            break_wandb=False,
            checkpoints=(),
        ):
            return locals()

        jobs = {
            "online1": job("online1", connected, **tried(online, 0, 4, "interrupted")),
            "online2": job("online2", connected, **tried(online, 3, 6, "failed")),
            "online3": job("online3", connected, **tried(online, 6, 8, checkpoints=BOTH)),
            "same": job("same", connected, **tried(online, checkpoints=[("best", "cp-2"), ("last", "cp-2")])),
            "offline1": job("offline1", bare, **tried({}, 0, 4, "interrupted")),
            "offline2": job("offline2", bare, **tried({}, 3, 8)),
            "two": job("two", bare, "two_runs"),
            "broken": job("broken", bare, **tried({}, break_wandb=True)),
            "none": job("none", bare, **tried({"mode": "none"})),
            "rank": job("rank", bare, "other_rank"),
            "refused": job("refused", refused, **tried(online | {"init_timeout": 2})),
            "nokey": job("nokey", bare | {"WANDB_BASE_URL": service.url}, **tried(online)),
        }
        result = subprocess.run(
            [sys.executable, wandb_jobs.__file__],
            input=json.dumps(list(jobs.values())),
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=bare,
            check=True,
        )
        answers = dict(zip(jobs, json.loads(result.stdout), strict=True))
        yield {"answers": answers, "paths": paths, "service": service}


@pytest.fixture(scope="module")
def arrived(outcome):
    for name in ("online1", "online2", "online3"):
        assert outcome["answers"][name]["error"] is None, outcome["answers"][name]["output"]
    return outcome["service"].runs[NAME]


@pytest.mark.slow
def test_three_attempts_are_one_run(outcome, arrived):
    assert sorted(outcome["service"].runs) == [NAME, SAME]
    assert arrived.display_name == NAME
    assert arrived.resumed == 2
    assert arrived.exit_codes == [1, 1, 0]  # interrupted, failed, finished


@pytest.mark.slow
def test_the_run_is_filed_under_its_sweep_arm_phase_and_parts(arrived):
    assert (arrived.project, arrived.group, arrived.job_type) == (
        "bbi_lightning",
        "showdown/bbi",
        "replicate",
    )
    assert sorted(arrived.tags) == ["BBI", "CNN", "Digits", "paper"]


@pytest.mark.slow
def test_the_config_that_arrives_is_complete(outcome, arrived):
    config = {key: entry["value"] for key, entry in arrived.config.items() if key != "_wandb"}
    record = RunFolder.open(outcome["paths"]["online"]).record
    last = record.attempts[-1]
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert config["parameters"] == 1240  # the last attempt's facts count
    assert config["labels"] == LABELS
    flat = {"sweep_name": "showdown", "arm": "bbi", "phase": "replicate", "trial": 3}
    flat |= {"optimizer": "BBI", "architecture": "CNN", "dataset": "Digits"}
    assert {key: config.get(key) for key in flat} == flat
    assert "replicate" not in config, "a label without a value is not there"
    assert (config["commit"], config["dirty"], config["diff_sha256"]) == (
        last.commit,
        last.dirty,
        last.diff_sha256,
    )
    assert config["hardware"] == last.hardware
    assert config["versions"] == last.versions


@pytest.mark.slow
def test_the_rows_that_arrive_are_those_of_the_metric_log_over_the_optimizer_step(outcome, arrived):
    arrived_rows = {}
    for row in arrived.history:  # a step that was rolled back appears again: the later one counts
        arrived_rows[row["trainer/global_step"]] = row
    logged = read_metrics(outcome["paths"]["online"] / "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(1, 9))
    for row in logged:
        there = arrived_rows[row["step"]]
        assert there["epoch"] == row["epoch"]
        assert there["energy/bounces"] == row["energy/bounces"]
        assert there["samples"] == 64 * row["step"]
        assert there["time"] == pytest.approx(row["time"], abs=0.5)
        assert there["train/loss"] == pytest.approx(row["train/loss"], rel=0, nan_ok=True)
    assert [row["_step"] for row in arrived.history] == list(range(len(arrived.history)))


@pytest.mark.slow
def test_the_summary_is_the_run_s(outcome, arrived):
    summary = RunFolder.open(outcome["paths"]["online"]).record.summary
    assert {key: arrived.summary[key] for key in summary} == summary


@pytest.mark.slow
def test_best_and_last_checkpoints_arrive_as_versions_of_one_artifact(outcome, arrived):
    versions = [artifact for artifact in outcome["service"].api.artifacts if artifact.run == NAME]
    assert {artifact.collection for artifact in versions} == {f"{NAME}-checkpoint"}
    assert {artifact.type for artifact in versions} == {"model"}
    assert {a.metadata["checkpoint"]: set(a.aliases) - {"latest"} for a in versions} == {
        "cp-1": {"best"},
        "cp-2": {"last"},
    }
    assert all(artifact.committed for artifact in versions)
    sent = {content for name, content in arrived.files.items() if name.endswith("state.pt")}
    assert sent == {b"cp-1", b"cp-2"}


@pytest.mark.slow
def test_a_checkpoint_that_is_best_and_last_is_one_version(outcome):
    assert outcome["answers"]["same"]["error"] is None, outcome["answers"]["same"]["output"]
    (version,) = [artifact for artifact in outcome["service"].api.artifacts if artifact.run == SAME]
    assert set(version.aliases) - {"latest"} == {"best", "last"}


@pytest.mark.slow
def test_the_key_reaches_the_service_and_nothing_else(outcome, arrived):
    assert outcome["service"].keys_seen == {DUMMY_KEY}
    for name, answer in outcome["answers"].items():
        assert DUMMY_KEY not in answer["output"], name
    for path in outcome["paths"].values():
        for file in path.rglob("*"):
            assert not file.is_file() or DUMMY_KEY.encode() not in file.read_bytes(), file
    for name, content in arrived.files.items():
        assert DUMMY_KEY.encode() not in content, name


def wandb(*arguments, env):
    """The `wandb` command of this environment."""
    command = [Path(sys.executable).with_name("wandb"), *arguments]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=True, cwd=env["HOME"]
    ).stdout


@pytest.mark.slow
def test_offline_writes_inside_the_run_and_needs_no_account(outcome, tmp_path):
    for name in ("offline1", "offline2"):
        assert outcome["answers"][name]["error"] is None, outcome["answers"][name]["output"]
        assert outcome["answers"][name]["output"] == ""
    folders = sorted(outcome["paths"]["offline"].glob("wandb/offline-run-*"))
    assert len(folders) == 2
    rows = []
    axes = []
    for folder in folders:
        inspected = wandb("leet", "inspect", "--json", folder, env=wandb_environment(tmp_path))
        records = [json.loads(line) for line in inspected.splitlines()]
        rows += [record["history"]["item"] for record in records if record["type"] == "history"]
        axes += [record["metric"] for record in records if record["type"] == "metric"]
    assert {axis["glob_name"]: axis["step_metric"] for axis in axes if "glob_name" in axis} == {
        "*": "trainer/global_step"
    }
    others = {axis["name"]: axis.get("options", {}).get("hidden", False) for axis in axes if "name" in axis}
    assert others == {"trainer/global_step": False, "epoch": True, "samples": True, "time": True}
    assert [row["trainer/global_step"] for row in rows] == [1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert [row["energy/bounces"] for row in rows] == [1, 2, 3, 4, 4, 5, 6, 7, 8]


@pytest.mark.slow
def test_offline_attempts_arrive_as_one_run_when_they_are_sent_later(outcome, tmp_path, monkeypatch):
    path = outcome["paths"]["offline"]
    (waiting,) = [run for run in unsent(path.parent) if run.run == path.name]
    assert len(waiting.folders) == 2
    with WandbStandIn() as service:
        for name, value in service.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        (here := tmp_path / "here").mkdir()
        monkeypatch.chdir(here)
        assert send([waiting]) == {}
    assert list(here.iterdir()) == [], "W&B leaves nothing where the user stands"
    assert path.name not in {run.run for run in unsent(path.parent)}, "sent once"
    assert list(service.runs) == [NAME]
    run = service.runs[NAME]
    assert (run.project, run.group, run.job_type) == ("bbi_lightning", "showdown/bbi", "replicate")
    assert [row["trainer/global_step"] for row in run.history] == [1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert run.summary["steps"] == 8


@pytest.mark.slow
def test_each_run_of_a_process_is_its_own_and_so_is_the_user_s(outcome, tmp_path):
    assert outcome["answers"]["two"]["error"] is None, outcome["answers"]["two"]["output"]
    path = outcome["paths"]["two"]
    steps = {}
    for folder in [*path.glob("*/wandb/offline-run-*"), *path.parent.glob("wandb/offline-run-*")]:
        inspected = wandb("leet", "inspect", "--json", folder, env=wandb_environment(tmp_path))
        records = [json.loads(line) for line in inspected.splitlines()]
        name = next(record["run"]["run_id"] for record in records if record["type"] == "run")
        steps[name] = [
            r["history"]["item"].get("trainer/global_step") for r in records if r["type"] == "history"
        ]
    assert steps == {"first": [1, 2], "second": [1, 2], "own": [None]}


@pytest.mark.slow
def test_a_broken_wandb_at_the_end_is_a_warning_and_the_run_is_finished(outcome):
    answer = outcome["answers"]["broken"]
    assert answer["error"] is None, answer["output"]
    assert "W&B did not finish (" in answer["output"]
    assert RunFolder.open(outcome["paths"]["broken"]).record.state == "finished"


@pytest.mark.slow
def test_none_starts_no_wandb(outcome):
    path = outcome["paths"]["none"]
    assert outcome["answers"]["none"]["error"] is None, outcome["answers"]["none"]["output"]
    assert outcome["answers"]["none"]["output"] == ""
    assert len(read_metrics(path / "metrics.jsonl")) == 8
    assert not (path / "wandb").exists()


@pytest.mark.slow
def test_other_ranks_start_no_run(outcome):
    assert outcome["answers"]["rank"]["error"] is None, outcome["answers"]["rank"]["output"]
    assert not outcome["paths"]["rank"].exists()


@pytest.mark.slow
def test_an_unreachable_server_is_one_sentence_with_the_remedy(outcome):
    kind, sentence = outcome["answers"]["refused"]["error"]
    assert kind == "ConnectionError"
    assert sentence.startswith("tracking=online, but no server can be had (")
    assert sentence.endswith("or use tracking=offline")
    assert "\n" not in sentence
    assert outcome["answers"]["refused"]["seconds"] < 30  # it was told to wait for two, W&B's own limit is 90


@pytest.mark.slow
def test_no_login_is_one_sentence_with_the_remedy(outcome):
    kind, sentence = outcome["answers"]["nokey"]["error"]
    assert kind == "ValueError"
    assert "No API key configured. Use `wandb login`" in sentence
    assert sentence.endswith("or use tracking=offline")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mode": "on"}, r"tracking\.mode='on' is unknown: use offline, online or none"),
        ({"project": ""}, r"tracking\.project='' cannot be had"),
        ({"project": "me/mine"}, r"tracking\.project='me/mine' cannot be had"),
        ({"init_timeout": 0}, r"tracking\.init_timeout=0 must be positive"),
        ({"artifacts": "all"}, r"tracking\.artifacts='all' is unknown: use none, best, last or both"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        WandbTracking(**settings)


@pytest.mark.parametrize("mode", ["offline", "online", "none"])
def test_the_shipped_choices_have_the_same_keys_and_build_what_they_are_called(mode):
    config = OmegaConf.load(ROOT / "configs" / "tracking" / f"{mode}.yaml")
    assert instantiate(config).mode == mode
    assert set(config) - {"_target_"} == {field.name for field in dataclasses.fields(WandbTracking)}


@pytest.mark.parametrize(
    ("mode", "artifacts", "aliases"),
    [
        ("online", "none", ()),
        ("online", "best", ("best",)),
        ("offline", "last", ("last",)),
        ("offline", "both", ("best", "last")),
        ("none", "both", ()),
    ],
)
def test_which_checkpoints_w_and_b_gets(mode, artifacts, aliases):
    assert WandbTracking(mode=mode, artifacts=artifacts).artifact_aliases == aliases
