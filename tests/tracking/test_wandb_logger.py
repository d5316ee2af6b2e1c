"""W&B without W&B: real attempts in real processes against a loopback stand-in, and offline.

One child process (`python <this file>`) imports Lightning once and forks a process for each attempt, each
with an environment of its own, so that nothing of this machine's W&B account takes part.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb_standin import DUMMY_KEY, WandbStandIn, wandb_environment

from bbi_lightning.tracking.metric_log import MetricLog, read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_logger import WandbTracking, build_wandb_logger, finish_wandb
from bbi_lightning.tracking.wandb_sync import send, unsent

ROOT = Path(__file__).parents[2]
NAME = "digits-cnn-bbi-0123456789-s1000"
SAME = "digits-cnn-bbi-0123456789-s1001"
CONFIG = {
    "seed": 1000,
    "data": {"_target_": "bbi_lightning.data.digits.Digits", "batch_size": 64},
    "model": {"_target_": "bbi_lightning.models.cnn.CNN", "widths": [16, 32]},
    "optim": {"_target_": "bbi_lightning.optim.BBI", "_partial_": True, "lr": 0.4},
}
LABELS = {"sweep": "showdown", "arm": "bbi", "phase": "replicate", "trial": 3, "params": {"optim.lr": 0.4}}
BOTH = [("best", "cp-1"), ("last", "cp-2")]
UNREACHABLE = "http://127.0.0.1:9"


# --- what a child process does


def attempt(path, tracking, from_step, to_step, state, labels, break_wandb=False, checkpoints=()):
    """One attempt on a run, as training makes it: the same rows to the metric log and to W&B."""
    folder = RunFolder.create(path, config="seed: 1000\n", labels=labels)
    folder.begin_attempt(from_step=from_step)
    with MetricLog(folder.metrics_file) as log:
        logger = build_wandb_logger(
            WandbTracking(**tracking), folder, CONFIG, parameters=1234 + from_step, clock=lambda: log.seconds
        )
        log.cut_to(from_step)  # one row a step
        for step in range(from_step + 1, to_step + 1):
            metrics = {"train/loss": math.nan if step == 5 else 1 / step, "energy/bounces": step}
            log.append(step, step // 4, metrics)
            if logger is not None:
                logger.log_metrics({"epoch": step // 4, **metrics}, step=step)
    if logger is not None and break_wandb:
        kill_children()
    summary = {"val/acc": 0.9 + from_step / 100, "steps": to_step}
    kept = {alias: checkpoint(folder, name) for alias, name in checkpoints}
    finish_wandb(logger, summary, state=state, checkpoints=kept)
    folder.end_attempt(state, summary=summary)


def checkpoint(folder, name):
    """A checkpoint's folder with two files."""
    path = folder.checkpoints / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").write_text("{}")
    (path / "state.pt").write_bytes(name.encode())
    return path


def kill_children():
    """W&B's helper process, which this process started, goes as if the kernel had run out of memory."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def nothing_from_other_ranks(path):
    from pytorch_lightning.utilities import rank_zero_only

    rank_zero_only.rank = 1
    folder = RunFolder(path)  # rank zero may not even have made it yet
    logger = build_wandb_logger(WandbTracking(), folder, CONFIG, parameters=1)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    finish_wandb(logger, {}, state="finished")


def two_runs_beside_one_of_the_user_s_own(path):
    import wandb

    own = wandb.init(mode="offline", project="own", dir=str(Path(path).parent), id="own")
    for name in ("first", "second"):
        attempt(Path(path) / name, {}, 0, 2, "failed", {})
    own.log({"mine": 1})
    own.finish()


JOBS = {
    "attempt": attempt,
    "other_rank": nothing_from_other_ranks,
    "two_runs": two_runs_beside_one_of_the_user_s_own,
}


def in_a_forked_process(job):
    """Run one job; {"output": what it printed, "error": [type, message] or None, "seconds": how long}."""
    output, answer = Path(job["home"]) / "output.txt", Path(job["home"]) / "answer.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(job["environment"])
        with output.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        error = None
        try:
            JOBS[job["do"]](**job["arguments"])
        except Exception as raised:
            traceback.print_exc()
            error = [type(raised).__name__, str(raised)]
        answer.write_text(json.dumps(error))
        with contextlib.suppress(Exception):
            import wandb

            wandb.teardown()
        os._exit(0)
    os.waitpid(child, 0)
    return {
        "output": output.read_text(),
        "error": json.loads(answer.read_text()),
        "seconds": time.monotonic() - start,
    }


def main():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, at import
        import pytorch_lightning  # noqa: F401  # once, for all forked processes
    jobs = json.loads(sys.stdin.read())
    json.dump([in_a_forked_process(job) for job in jobs], sys.stdout)


# --- the tests


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
            [sys.executable, __file__],
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
        assert send([waiting]) == {}
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


if __name__ == "__main__":
    main()
