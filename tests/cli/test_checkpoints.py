"""`bbi checkpoints` and `bbi export`: what they print, write and refuse."""

import json
import math
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from bbi_lightning.checkpoints.manifest import MANIFEST, STATE
from bbi_lightning.checkpoints.store import CheckpointStore, Note
from bbi_lightning.cli import checkpoints as listing
from bbi_lightning.cli import export as exporting
from bbi_lightning.tracking.run_folder import RunFolder

app = typer.Typer(rich_markup_mode="rich", add_completion=False)
app.command(help=listing.HELP)(listing.checkpoints)
app.command(help=exporting.HELP)(exporting.export)

NAME = "toy-s0"


def network() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    )
    net[3].weight = net[2].weight
    return net


def state_after(step: int) -> dict:
    net = network()
    nn.init.constant_(net[0].weight, step)
    weights = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    return {"state_dict": {**weights, "loss.weight": torch.ones(3)}, "global_step": step}


def save(folder: RunFolder, step: int, *reasons: str, accuracy: float | None = None) -> None:
    store = CheckpointStore(folder.checkpoints, folder.name)
    place = store.begin()
    torch.save(state_after(step), place / STATE)
    values = {} if accuracy is None else {"val/acc": accuracy}
    store.commit(place, Note(step, step // 10, ("last", *reasons), values))


@pytest.fixture
def run(tmp_path):
    """Checkpoints 1 (milestone), 2 (best), 3 (spare) and 4 (newest)."""
    folder = RunFolder.create(tmp_path / "runs" / NAME, config="seed: 0\n")
    save(folder, 10, "milestone")
    save(folder, 20, "best", accuracy=0.9)
    save(folder, 30, accuracy=0.8)
    save(folder, 1040)
    return folder


def bbi(run: RunFolder, *words: str):
    return CliRunner().invoke(
        app, [*words, "--dir", str(run.path.parent)], env={"COLUMNS": "90", "TERM": "dumb"}
    )


def damage(run: RunFolder, number: int, file: str = STATE) -> None:
    path = next(run.checkpoints.glob(f"checkpoint-{number:06d}-*")) / file
    path.write_bytes(path.read_bytes()[:100])


def test_lists_every_checkpoint_and_why_it_is_kept(run):
    result = bbi(run, "checkpoints", NAME)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["number", "step", "epoch", "size", "val/acc", "age", "kept", "as", "state"]
    assert [line[0] for line in lines[1:5]] == ["1", "2", "3", "4"]
    assert [line[-2] for line in lines[1:5]] == ["milestone", "best", "spare", "newest"]
    assert [line[-1] for line in lines[1:5]] == ["valid"] * 4
    assert lines[4][1:3] == ["1,040", "104"]
    assert "0.9" in lines[2]
    assert result.output.splitlines()[-1] == f"folder: {run.path / 'checkpoints'}"


def test_takes_a_folder_wherever_it_is(run, tmp_path):
    run.path.rename(tmp_path / "moved")
    result = CliRunner().invoke(app, ["checkpoints", str(tmp_path / "moved")])
    assert result.exit_code == 0, result.output
    assert result.output.count("valid") == 4


def test_a_damaged_newest_is_shown_with_what_the_run_would_do_and_exit_code_1(run):
    damage(run, 4)
    result = bbi(run, "checkpoints", NAME)
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "state.pt has 100 of" in words
    assert "The run would go on from number 3." in words


def test_an_older_damaged_one_is_shown_and_does_not_matter(run):
    damage(run, 2)
    damage(run, 3, MANIFEST)
    result = bbi(run, "checkpoints", NAME)
    assert result.exit_code == 0
    assert "is damaged" in " ".join(result.output.split())
    rows = {row.split()[0]: row.split() for row in result.output.splitlines() if row.split()}
    assert rows["3"][1:6] == ["–"] * 5


def test_with_all_damaged_it_says_that_the_run_would_begin_anew(run):
    for number in (1, 2, 3, 4):
        damage(run, number)
    result = bbi(run, "checkpoints", NAME)
    assert result.exit_code == 1
    assert "the run would begin anew" in result.output


def test_another_runs_checkpoint_is_named(run, tmp_path):
    other = RunFolder.create(tmp_path / "runs" / "toy-s1", config="seed: 1\n")
    run.checkpoints.rename(other.checkpoints)
    result = bbi(run, "checkpoints", "toy-s1")
    assert result.exit_code == 1
    assert "is a checkpoint of run toy-s0, not of toy-s1" in " ".join(result.output.split())


def test_json_has_all_the_facts(run):
    damage(run, 3)
    save(run, 1050, accuracy=math.nan)
    result = bbi(run, "checkpoints", NAME, "--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert listed["run"] == NAME
    by_number = {row["number"]: row for row in listed["checkpoints"]}
    assert sorted(by_number) == [1, 2, 4, 5]
    assert by_number[5]["values"] == {"val/acc": "nan"}
    assert by_number[2]["kept_as"] == ["best"]
    assert by_number[2]["reasons"] == ["last", "best"]
    assert by_number[5]["path"].endswith("checkpoint-000005-step-1050")
    assert {row["valid"] for row in by_number.values()} == {True}


def test_json_tells_a_damaged_newest_too(run):
    damage(run, 4)
    result = bbi(run, "checkpoints", NAME, "--json")
    assert result.exit_code == 1
    last = json.loads(result.stdout)["checkpoints"][-1]
    assert (last["valid"], last["kept_as"]) == (False, [])
    assert last["wrong"].startswith("state.pt has 100 of")


def test_a_run_without_checkpoints_is_no_error(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / NAME, config="seed: 0\n")
    result = bbi(run, "checkpoints", NAME)
    assert (result.exit_code, result.output) == (0, f"run {NAME} has no checkpoints yet\n")
    assert json.loads(bbi(run, "checkpoints", NAME, "--json").output)["checkpoints"] == []


def test_looking_changes_nothing(run):
    store = CheckpointStore(run.checkpoints, NAME)
    leftover = store.begin()
    before = sorted(run.path.rglob("*"))
    assert bbi(run, "checkpoints", NAME).exit_code == 0
    assert sorted(run.path.rglob("*")) == before
    assert leftover.is_dir()


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (130, "2 min"), (7300, "2 h"), (300_000, "3 d"), (-90, "–")]
)
def test_ages_are_for_people_and_clocks_may_be_wrong(seconds, words):
    saved = (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()
    assert listing._age(saved) == words


@pytest.mark.parametrize(
    ("count", "words"), [(7, "7 B"), (1234, "1.23 kB"), (98_200_000, "98.2 MB"), (5_000_000_000_000, "5 TB")]
)
def test_sizes_are_for_people(count, words):
    assert listing._size(count) == words


def test_exports_the_newest_weights_under_the_networks_own_names(run):
    result = bbi(run, "export", NAME)
    assert result.exit_code == 0, result.output
    path = run.path / "model-step-1040.safetensors"
    assert result.output.endswith(f"after step 1,040: {path}\n")
    net = network()
    net.load_state_dict(load_file(path))
    assert net[0].weight.unique().tolist() == [1040]
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(net.state_dict())
        assert file.metadata() == {
            "format": "pt",
            "run": NAME,
            "checkpoint": "4",
            "step": "1040",
            "epoch": "104",
            "values": "{}",
        }
    assert not list(run.path.glob(".*.safetensors*"))


def test_exports_the_weights_of_a_sharded_run_whole(run):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from bbi_lightning.checkpoints.shard_files import write

    weight = torch.randn(5, 3)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shards = distribute_tensor(weight, init_device_mesh("cpu", (1,)), [Shard(0)])
        store = CheckpointStore(run.checkpoints, NAME)
        place = store.begin()
        write(place, {"state_dict": {"model.weight": shards}, "optimizer_states": []})
        store.commit(place, Note(2000, 9, layout="sharded", world_size=1))
    finally:
        dist.destroy_process_group()
    result = bbi(run, "export", NAME)
    assert result.exit_code == 0, result.output
    exported = load_file(run.path / "model-step-2000.safetensors")
    assert exported.keys() == {"weight"}
    assert torch.equal(exported["weight"], weight)


@pytest.mark.parametrize(("word", "step"), [("best", 20), ("last", 1040), ("1", 10), ("3", 30)])
def test_exports_the_checkpoint_that_is_meant(run, tmp_path, word, step):
    path = tmp_path / "deep" / "weights.safetensors"
    result = bbi(run, "export", NAME, "--checkpoint", word, "--output", str(path))
    assert result.exit_code == 0, result.output
    assert load_file(path)["0.weight"].unique().tolist() == [step]


def test_exports_from_the_newest_valid_one_and_says_which_was_passed_over(run):
    damage(run, 4)
    result = bbi(run, "export", NAME)
    assert result.exit_code == 0
    assert "checkpoint-000004-step-1040 is passed over: state.pt has" in result.output
    assert (run.path / "model-step-30.safetensors").is_file()


def test_never_replaces_a_file_unless_it_is_told_to(run):
    path = run.path / "model-step-1040.safetensors"
    path.write_text("precious")
    result = bbi(run, "export", NAME)
    assert result.exit_code == 2
    assert f"{path} exists" in result.output
    assert path.read_text() == "precious"
    assert bbi(run, "export", NAME, "--force").exit_code == 0
    assert load_file(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["checkpoints", "toy"], "there is no run toy: "),
        (["export", "nothing-like-it"], "there is no run nothing-like-it: "),
        (["export", NAME, "--checkpoint", "9"], "none of best, last, or the numbers there are (1, 2, 3, 4)"),
        (["export", NAME, "--checkpoint", "newest"], "--checkpoint=newest is none of best, last"),
        (["export", NAME, "--output", "/"], "--output=/ is a folder: name the file"),
        (["export", NAME, "--output", "/proc/no/such.safetensors"], "/proc/no"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, words, said):
    result = bbi(run, *words)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_a_damaged_choice_is_refused(run):
    damage(run, 2)
    result = bbi(run, "export", NAME, "--checkpoint", "best")
    assert result.exit_code == 2
    assert "checkpoint 2 is damaged (state.pt has 100 of" in result.output


def test_without_any_best_it_says_what_to_choose(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / NAME, config="seed: 0\n")
    assert "has no valid checkpoint" in bbi(run, "export", NAME).output
    save(run, 10)
    assert "use --checkpoint last" in bbi(run, "export", NAME, "--checkpoint", "best").output


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("checkpoints", ["Examples", "--json", "spare", "SHA-256", "Exit codes"]),
        ("export", ["Examples", "--checkpoint best", "load_file", "metadata"]),
    ],
)
def test_help_teaches(verb, words):
    result = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == 0
    for word in words:
        assert word in result.output


def test_listing_never_loads_torch(run):
    """It takes a moment; torch alone would take seconds to import."""
    program = (
        "import sys, typer; from bbi_lightning.cli.checkpoints import checkpoints\n"
        "app = typer.Typer(); app.command()(checkpoints)\n"
        "app([sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'optuna'} & set(sys.modules)\n"
        "sys.exit(f'loads {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(run.path)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "newest" in result.stdout
