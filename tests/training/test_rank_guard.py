"""Ranks that no longer hold the same numbers are found out, with the first rank and tensor by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bbi_lightning.training.rank_guard import RankGuard, digest, replicated_state
from training.ranks import run_program
from training.reference import bbi, network


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the guards of two ranks said, by what was tampered with."""
    return run_program("rank_guard_program.py", 2, tmp_path_factory.mktemp("guard") / "out.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tampered", "named"),
    [
        ("last_bit_of_a_weight", "model.2.bias"),
        ("momentum", "momentum of model.0.weight"),
        ("energy", "energy (ecd of parameter group 0)"),
        ("sharded, energy", "energy (ecd of parameter group 0)"),
        ("learning_rate", "lr of parameter group 0"),
    ],
)
def test_all_ranks_stop_at_the_next_comparison_and_name_what_differs(
    said: dict[str, Any], tampered: str, named: str
) -> None:
    for rank in said[tampered]:
        assert rank.startswith(f"4: after optimizer step 4 rank 1 and rank 0 do not hold the same {named}: ")


@pytest.mark.slow
@pytest.mark.parametrize("tampered", ["nothing", "buffer", "sharded, nothing"])
def test_ranks_that_agree_go_on_also_where_buffers_differ(said: dict[str, Any], tampered: str) -> None:
    assert said[tampered] == [None, None]


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 5, 65_535, 65_536, 65_537, 200_000])
def test_digest_depends_on_every_element_and_its_place(dtype: torch.dtype, size: int) -> None:
    tensor = (torch.arange(size) % 2).to(dtype)
    ours = int(digest(tensor))
    assert int(digest(tensor.clone())) == ours
    for place in {0, size // 2, size - 1}:
        other = tensor.clone()
        other[place] = (other[place] == 0).to(dtype)
        assert int(digest(other)) != ours
    if size > 1:
        swapped = tensor.clone()
        swapped[[0, 1]] = tensor[[1, 0]]
        assert int(digest(swapped)) != ours


def test_digest_sees_the_last_bit_the_sign_of_zero_and_the_length() -> None:
    one = torch.ones(3, dtype=torch.float64)
    assert int(digest(one)) != int(digest(torch.nextafter(one, one + 1)))
    assert int(digest(torch.zeros(3))) != int(digest(-torch.zeros(3)))
    assert len({int(digest(torch.zeros(n))) for n in range(1, 50)}) == 49


def test_digest_knows_views_by_their_elements() -> None:
    tensor = torch.randn(6, 5)
    assert int(digest(tensor.t())) == int(digest(tensor.t().contiguous()))
    assert int(digest(tensor.t())) != int(digest(tensor))


def test_all_that_ranks_must_hold_alike_is_compared() -> None:
    model = network()
    optimizer = bbi(model.parameters())
    model(torch.ones(2, 5, dtype=torch.float64)).square().mean().backward()
    optimizer.step(loss=1.0)

    names = {name for name, _ in replicated_state(model, [optimizer])}

    parameters = {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert names >= parameters | {f"momentum of {name}" for name in parameters}
    numbers = optimizer.state_dict()["param_groups"][0]["ecd"]
    assert names >= {f"{key} (ecd of parameter group 0)" for key in numbers}
    assert names >= {"lr of parameter group 0", "weight_decay of parameter group 0"}


def test_two_optimizers_are_told_apart() -> None:
    model = network()
    adam = torch.optim.AdamW(model[0].parameters())
    sgd = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 5, dtype=torch.float64)).square().mean().backward()
    adam.step()
    sgd.step()

    names = {name for name, _ in replicated_state(model, [adam, sgd])}

    assert names >= {
        "optimizer 0: exp_avg of 0.bias",
        "optimizer 0: 1 of betas of parameter group 0",
        "optimizer 1: momentum_buffer of 2.weight",
    }


def test_comparing_after_no_step_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="every=0 is too small"):
        RankGuard(0)
