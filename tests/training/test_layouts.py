"""The same physics on every layout: ranks, micro-batches and how the loss travels change only rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.layouts_program import LAYOUTS, STEPS, WHOLE, optimizers
from training.ranks import run_program
from training.reference import Batches, batches, network, plain_loop, windows

TOLERANCE = 1e-12
NAMES = tuple(optimizers())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What each number of ranks came to, by "layout, optimizer"."""
    folder = tmp_path_factory.mktemp("layouts")
    return {
        ranks: run_program("layouts_program.py", ranks, folder / f"{ranks}.pt") for ranks in (*LAYOUTS, 4)
    }


def whole_batches() -> list[Batches]:
    return windows(batches(STEPS, WHOLE), 1, epochs=1)


def numbers_in(entry: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every number and tensor in nested containers, as float64."""
    if isinstance(entry, dict | list | tuple):
        pairs = entry.items() if isinstance(entry, dict) else enumerate(entry)
        return {k: v for key, value in pairs for k, v in numbers_in(value, f"{name}.{key}").items()}
    if isinstance(entry, torch.Tensor | int | float):
        return {name: torch.as_tensor(entry, dtype=torch.float64)}
    return {}


def largest_difference(one: Any, other: Any) -> float:
    ours, theirs = numbers_in(one), numbers_in(other)
    assert ours.keys() == theirs.keys()
    return max(float((x - theirs[name]).abs().max()) for name, x in ours.items() if x.numel())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("ranks", "layout"), [(ranks, layout) for ranks in LAYOUTS for layout in LAYOUTS[ranks]]
)
def test_every_layout_takes_the_steps_of_one_process_with_whole_batches(
    results: dict[int, dict[str, Any]], ranks: int, layout: str, name: str
) -> None:
    result, whole = results[ranks][f"{layout}, {name}"], results[1][f"whole, {name}"]

    assert len(result["losses"]) == STEPS >= 50
    assert result["losses"] == pytest.approx(whole["losses"], rel=0, abs=TOLERANCE)
    assert largest_difference(result["weights"], whole["weights"]) < TOLERANCE
    assert largest_difference(result["state"], whole["state"]) < TOLERANCE  # momenta, energy, clocks, draws


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_process_with_whole_batches_is_the_plain_loop(
    results: dict[int, dict[str, Any]], name: str
) -> None:
    reference = network()
    make = optimizers()[name]
    used: list[torch.optim.Optimizer] = []

    losses = plain_loop(reference, lambda p: used.append(make(p)) or used[0], whole_batches())

    whole = results[1][f"whole, {name}"]
    assert whole["losses"] == pytest.approx(losses, rel=0, abs=TOLERANCE)
    assert largest_difference(whole["weights"], dict(reference.state_dict())) < TOLERANCE
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_trajectories_that_are_compared_bounce_and_are_stirred(
    results: dict[int, dict[str, Any]],
) -> None:
    scalars = {
        name: results[2][f"carried, {name}"]["state"]["param_groups"][0].get("ecd", {}) for name in NAMES
    }
    assert {name for name in NAMES if int(scalars[name].get("bounces", 0)) > 3} >= {
        "ECD",
        "BBI",
        "MassECD",
        "LogECD",
    }
    assert {name for name in NAMES if int(scalars[name].get("draws", 0)) >= STEPS} >= {
        "ECD",
        "ECDSep",
        "ECDq1",
    }


@pytest.mark.slow
def test_ranks_hold_the_same_bits_after_every_step(results: dict[int, dict[str, Any]]) -> None:
    for ranks in (2, 4):
        for case, result in results[ranks].items():
            if case != "resume":
                first, *others = result["digests"]
                assert len(others) == ranks - 1
                assert all(other == first for other in others), case
                assert len(set(first)) == STEPS, case  # a hash that sees the motion


@pytest.mark.slow
def test_four_ranks_take_the_steps_of_one(results: dict[int, dict[str, Any]]) -> None:
    result, whole = results[4]["carried, BBI"], results[1]["whole, BBI"]
    assert largest_difference(result["weights"], whole["weights"]) < TOLERANCE
    assert result["losses"] == pytest.approx(whole["losses"], rel=0, abs=TOLERANCE)


@pytest.mark.slow
def test_four_ranks_that_were_stopped_add_up_in_the_same_order_as_if_never_stopped(
    results: dict[int, dict[str, Any]],
) -> None:
    # DDP by itself lays the gradients out anew after the first step: float32 sums over 4 ranks then differ
    runs = results[4]["resume"]
    for stopped, never in zip(runs["stopped"], runs["never stopped"], strict=True):
        assert torch.equal(stopped, never)
