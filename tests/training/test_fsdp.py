"""A run whose processes share every parameter is the run of one process; its checkpoints suit any number."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import DoublePrecision, MixedPrecision
from torch import Tensor, nn

from bbi_lightning.checkpoints import shard_files
from bbi_lightning.checkpoints.manifest import STATE
from bbi_lightning.checkpoints.shard_files import is_sharded, read_whole
from bbi_lightning.training.sharding import ShardedStrategy, precision_plugin
from training.fsdp_program import BATCHES, CASES, EPOCHS, OPTIMIZERS, WHOLE, build, network, share
from training.ranks import run_program
from training.reference import bare_trainer, batches, plain_loop, windows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]

EXACT = 1e-12
"""In float64 nothing but the order of sums may differ."""

every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    """What two processes found that were never stopped; they left checkpoints in the folder."""
    return run_program("fsdp_program.py", 2, folder / "two.pt")


@pytest.fixture(scope="module")
def resumed(folder: Path, two: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What 1, 2 and 4 processes found that went on from those checkpoints."""
    return {ranks: run_program("fsdp_program.py", ranks, folder / f"{ranks}.pt") for ranks in (1, 2, 4)}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("case", [case for case, (_, norm, _) in CASES.items() if not norm])
def test_two_processes_that_share_the_parameters_equal_a_plain_loop(two: dict[str, Any], case: str) -> None:
    optimizer, norm, accumulate = CASES[case]
    reference = network(norm)
    start = {name: p.detach().clone() for name, p in reference.named_parameters()}
    steps = windows(batches(BATCHES, size=WHOLE), accumulate, EPOCHS)
    plain_loop(reference, OPTIMIZERS[optimizer], steps)

    found = two[case]
    expected = {name: p.detach() for name, p in reference.named_parameters()}
    assert found["steps"] == len(steps)
    assert len(steps) >= 50 or accumulate > 1
    assert found["sharded"]
    assert found["optimizer_is_cut"]
    assert all(found["optimizer_is_cut"])
    assert largest_difference(found["weights"], expected) <= EXACT
    assert largest_difference(found["weights"], start) > 0.1


@every_case
def test_resumed_on_as_many_processes_is_never_stopped(
    two: dict[str, Any], resumed: dict[int, dict[str, Any]], case: str
) -> None:
    """Bit for bit, the statistics of BatchNorm included."""
    for found, expected in (
        (resumed[2][case]["weights"].values(), two[case]["weights"].values()),
        (resumed[2][case]["buffers"], two[case]["buffers"]),
    ):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert resumed[2][case]["steps"] == two[case]["steps"]


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("case", [case for case, (_, norm, _) in CASES.items() if not norm])
def test_resumed_on_another_number_of_processes_walks_the_same_path(
    two: dict[str, Any], resumed: dict[int, dict[str, Any]], case: str, ranks: int
) -> None:
    found = resumed[ranks][case]
    assert found["steps"] == two[case]["steps"]
    assert found["sharded"]
    assert largest_difference(found["weights"], two[case]["weights"]) <= EXACT


def test_all_processes_have_the_statistics_of_the_first_before_each_step(two: dict[str, Any]) -> None:
    """Each has seen its own samples; after a step with the same input they agree to the last bit."""
    first, second = two["bbi, batch norm"]["buffers_after_the_same_input"]
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_case
def test_a_checkpoint_in_shards_is_put_together_in_one_process(
    folder: Path, two: dict[str, Any], case: str
) -> None:
    checkpoint = folder / case
    assert is_sharded(checkpoint)
    whole = read_whole(checkpoint)
    optimizer, norm, _ = CASES[case]
    model = network(norm)
    model.load_state_dict({name.removeprefix("model."): x for name, x in whole["state_dict"].items()})
    assert {type(x) for x in whole["state_dict"].values()} == {Tensor}

    used = OPTIMIZERS[optimizer](model.parameters())
    used.load_state_dict(whole["optimizer_states"][0])
    assert all(used.state[p] for p in model.parameters())
    assert read_whole(checkpoint, optimizers=False)["state_dict"].keys() == whole["state_dict"].keys()
    assert not any(
        isinstance(x, Tensor) and x.dim()
        for values in shard_files._plain(checkpoint)["optimizer_states"][0]["state"].values()
        for x in values.values()
    )


@pytest.mark.parametrize("case", ["bbi", "ecdsep", "adamw"])
def test_a_run_in_shards_goes_on_in_one_process_without(
    folder: Path, two: dict[str, Any], tmp_path: Path, case: str
) -> None:
    torch.save(read_whole(folder / case), tmp_path / "whole.ckpt")
    trainer, module = build(case, tmp_path / "unused", devices=1)
    trainer.fit(module, share(0, 1), ckpt_path=tmp_path / "whole.ckpt", weights_only=True)
    weights = {name: p.detach() for name, p in module.model.named_parameters()}
    assert largest_difference(weights, two[case]["weights"]) <= EXACT


def test_a_whole_checkpoint_goes_on_in_shards(folder: Path, two: dict[str, Any], tmp_path: Path) -> None:
    for case in CASES:
        (tmp_path / case).mkdir()
        torch.save(read_whole(folder / case), tmp_path / case / STATE)
        assert not is_sharded(tmp_path / case)
    found = run_program("fsdp_program.py", 2, tmp_path / "2.pt")
    for case in CASES:
        assert all(found[case]["optimizer_is_cut"])
        for name, expected in two[case]["weights"].items():
            assert torch.equal(found[case]["weights"][name], expected)


def test_a_gradient_that_is_infinite_on_one_process_is_skipped_by_all(two: dict[str, Any]) -> None:
    """With a real GradScaler: neither clocks nor random numbers move, and nothing drifts apart."""
    first, second = two["scaled"]
    assert first == second
    assert first["steps"] == first["draws"] == BATCHES - 1
    assert first["skipped"] == 0
    assert first["gradient_scale"] == 2.0**3


@pytest.mark.parametrize(
    ("name", "plugin"), [("64-true", DoublePrecision), ("16-mixed", MixedPrecision), ("32-true", None)]
)
def test_precisions_that_lightning_refuses_by_name_come_as_plugins(name: str, plugin: type | None) -> None:
    found = precision_plugin(name, "cpu")
    assert found is None if plugin is None else type(found) is plugin
    if plugin is not None:
        with pytest.raises(ValueError, match="does not support"):
            bare_trainer(strategy=ShardedStrategy(), precision=name)
        bare_trainer(strategy=ShardedStrategy(), plugins=[precision_plugin(name, "cpu")])


@pytest.mark.parametrize("ranks", [1, 2])
def test_when_one_process_cannot_write_all_are_told(
    two: dict[str, Any], resumed: dict[int, dict[str, Any]], ranks: int
) -> None:
    """As an OSError, which the training survives; else the others would wait for ever."""
    assert resumed[ranks]["troubles"] == [["IsADirectoryError"] * 3] * ranks


class _Intruder:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("intruder-was-here"),))


def test_nothing_in_a_checkpoint_is_run(
    folder: Path, two: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (folder / "bbi").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert read_whole(copy)["global_step"] == 2 * BATCHES

    (copy / ".metadata").write_bytes(pickle.dumps(_Intruder()))
    with pytest.raises(pickle.UnpicklingError, match="which is no data"):
        read_whole(copy)
    assert not (tmp_path / "intruder-was-here").exists()


def test_a_model_is_cut_at_its_blocks() -> None:
    from bbi_lightning.models.wide_resnet import WideResNet
    from bbi_lightning.training.sharding import _blocks

    model = WideResNet(image_shape=(3, 32, 32), num_classes=10, depth=10, widen_factor=1)
    assert _blocks(model) == list(model.blocks)
    assert _blocks(nn.Sequential(nn.Linear(2, 2), nn.Tanh())) == []
