"""Parameters cut into shards over real processes walk the path of the whole ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from .launch import run_on
from .members import MEMBERS, Member, every_member

pytestmark = pytest.mark.slow

ON_TWO = "members,cuts,collectives,odd_ones,save,from_whole,new_memory"
EXACT = 1e-12
"""Sums over shards are added in another order: rounding, and nothing else, may differ."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found, and the checkpoints that they left."""
    folder = tmp_path_factory.mktemp("sharding")
    run_on(2, "sharding_program", ON_TWO, str(folder), folder=folder)
    return folder


@pytest.fixture(scope="module")
def four(folder: Path) -> Path:
    """The same folder after four processes have been at work in it."""
    run_on(4, "sharding_program", "two_dimensions,resume", str(folder), folder=folder)
    return folder


def results(folder: Path, task: str, ranks: int = 2) -> dict[str, Any]:
    return torch.load(folder / f"{task}-{ranks}.pt", weights_only=True)


def assert_same_path(case: dict[str, Any]) -> None:
    torch.testing.assert_close(case["found"], case["expected"], rtol=0, atol=EXACT)


@every_member
@pytest.mark.parametrize("path", ["build", "build_on_device"], ids=["floats", "tensors"])
def test_two_shards_walk_the_path_of_the_whole(folder: Path, member: Member, path: str):
    """With uneven and empty parts, bounces, chaos element and weight decay, over 60 steps."""
    case = results(folder, "members")[f"{member.name}, {path}"]
    assert_same_path(case)
    assert (case["found"][-1] - case["found"][0]).abs().max() > 0.1
    assert case["fewest_numbers"] == 0
    if member.takes("patience") or member.takes("bounce_rule"):
        assert case["bounces"] >= 5
    if member.takes("nu"):
        ours, theirs = case["turn_cosine"]
        assert 0.9 < ours < 1
        assert theirs == pytest.approx(ours, rel=1e-12)


@every_member
@pytest.mark.parametrize("path", ["build", "build_on_device"], ids=["floats", "tensors"])
def test_all_processes_have_the_same_numbers_at_every_step(folder: Path, member: Member, path: str):
    """Energy, scale and norm of the momentum, bit for bit: nothing can drift apart."""
    assert results(folder, "members")[f"{member.name}, {path}"]["ranks_agree"]


@every_member
def test_the_momentum_is_placed_like_its_parameter(folder: Path, member: Member):
    assert results(folder, "members")[f"{member.name}, build"]["like_parameters"]


@pytest.mark.parametrize("case", ["columns", "replicated"])
def test_any_dimension_may_be_cut_or_none(folder: Path, case: str):
    found = results(folder, "cuts")[case]
    assert_same_path(found)
    assert found["ranks_agree"]
    assert found["bounces"] >= 5


@pytest.mark.parametrize("cut", ["rows", "columns"])
@pytest.mark.parametrize("name", ["BBI", "ECDSep"])
def test_parameters_larger_than_a_block_of_random_numbers(folder: Path, cut: str, name: str):
    found = results(folder, "cuts")[f"{cut} of large, {name}"]
    assert_same_path(found)
    assert found["bounces"] > 0 or name == "ECDSep"


@pytest.mark.parametrize("name", ["BBI", "ECDq1"])
@pytest.mark.parametrize("mesh", ["replicas", "both"])
def test_a_mesh_of_two_dimensions(four: Path, mesh: str, name: str):
    """Replicas of shards (HSDP), and shards of shards, on four processes."""
    case = results(four, "two_dimensions", 4)[f"{mesh}, {name}"]
    assert_same_path(case)
    assert case["ranks_agree"]


@every_member
def test_a_step_needs_one_collective_for_each_sum_that_depends_on_the_last(folder: Path, member: Member):
    """The norm; before it, weight decay's Σθ², and for ECDq1 the gradient along the momentum."""
    counts = results(folder, "collectives")
    needed = 2 if member.name == "ECDq1" else 1
    assert counts[f"{member.name}, 0.0"] == needed
    assert counts[f"{member.name}, 0.01"] == needed + 1


def test_a_parameter_that_is_a_sum_not_carried_out_is_refused(folder: Path):
    refusal = results(folder, "odd_ones")["refusal"]
    assert refusal.startswith("A parameter placed as (Partial(sum),) cannot be moved")
    assert refusal.endswith("redistribute it to Shard or Replicate.")


@pytest.mark.parametrize("placed", ["replicated", "partial"])
def test_a_gradient_placed_otherwise_is_brought_into_place(folder: Path, placed: str):
    found = results(folder, "odd_ones")
    torch.testing.assert_close(found[placed], found["sharded"], rtol=0, atol=1e-15)


def test_a_loss_that_is_a_sum_not_carried_out_is_added_up(folder: Path):
    assert results(folder, "odd_ones")["potential"] == 1.0


@pytest.mark.parametrize("ranks", [1, 4])
def test_saved_on_two_processes_goes_on_on_any_number(four: Path, ranks: int):
    if ranks == 1:
        run_on(1, "sharding_program", "resume", str(four), folder=four)
    never_stopped, resumed = results(four, "save"), results(four, "resume", ranks)
    for member in MEMBERS:
        path = resumed[member.name]
        torch.testing.assert_close(path, never_stopped[member.name], rtol=0, atol=EXACT)


@every_member
def test_a_state_saved_whole_is_cut_when_it_is_loaded(folder: Path, member: Member):
    assert_same_path(results(folder, "from_whole")[member.name])


def test_a_shard_that_is_given_other_memory_moves_on(folder: Path):
    assert_same_path(results(folder, "new_memory"))
