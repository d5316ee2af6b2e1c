"""What the ranks tell each other reaches all of them, at the same step, in no message of its own."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from bbi_lightning.training.exchange import Exchange, Wish, payload_of
from bbi_lightning.training.loss_handover import LossHandover, loss_handover_of
from bbi_lightning.training.options import RuntimeOptions
from bbi_lightning.training.strategies import CarryingDDP, CarryingModule, build_strategy
from training.exchange_program import STEPS, WISHED, Module
from training.ranks import run_program
from training.reference import bare_trainer, batches, loader

IN_TIME = [[WISHED[step][1].name] if step in WISHED else [] for step in range(1, STEPS + 1)]
WAYS = (
    "carried",
    "carried, accumulated",
    "carried, unused parameters",
    "carried, as a dict",
    "carried, lost",
    "reduced",
    "reduced, accumulated",
    "reduced, lost",
    "manual",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each of two ranks saw, by the way in which the exchange travelled."""
    return run_program("exchange_program.py", 2, tmp_path_factory.mktemp("exchange") / "out.pt")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_both_ranks_learn_what_either_wished_at_the_very_step(results: dict[str, Any], way: str) -> None:
    for rank in results[way]["ranks"]:
        assert rank["agreed"] == IN_TIME


@pytest.mark.slow
@pytest.mark.parametrize("way", ["carried, late", "reduced, late"])
def test_on_an_accelerator_both_learn_it_a_step_later(results: dict[str, Any], way: str) -> None:
    for rank in results[way]["ranks"]:
        assert rank["agreed"] == [[], *IN_TIME[:-1]]


@pytest.mark.slow
@pytest.mark.parametrize("way", [*WAYS, "carried, late", "reduced, late"])
def test_loss_is_the_mean_over_ranks_and_micro_batches(results: dict[str, Any], way: str) -> None:
    micro_batches = 3 if "accumulated" in way else 1
    expected = [(micro_batches - 1) / 2 + micro_batches * step + 0.5 for step in range(STEPS)]
    if "lost" in way:  # from then on the parameters are lost too
        expected[4:] = [math.nan] * (STEPS - 4)
    for rank in results[way]["ranks"]:
        assert rank["losses"] == pytest.approx(expected, rel=0, abs=1e-14, nan_ok=True)


@pytest.mark.slow
def test_a_rank_is_asked_once_a_step_and_once_a_vote(results: dict[str, Any]) -> None:
    for way in WAYS:
        for rank in results[way]["ranks"]:
            assert rank["asked"] == STEPS + 2, way


@pytest.mark.slow
def test_a_vote_asks_all_ranks_at_once(results: dict[str, Any]) -> None:
    for way in WAYS:
        for rank in results[way]["ranks"]:
            assert rank["votes"] == [["SIGTERM"], ["SAVE"]], way


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_carried_exchange_sends_nothing_of_its_own_and_any_other_one_message_a_step(
    results: dict[str, Any], way: str
) -> None:
    for rank in results[way]["ranks"]:
        assert rank["messages"] == ({} if "carried" in way else {"all_reduce": STEPS})


@pytest.mark.slow
def test_without_our_switch_lightning_broadcasts_before_every_batch(results: dict[str, Any]) -> None:
    for rank in results["Lightning's broadcasts"]["ranks"]:
        assert rank["messages"] == {"broadcast": STEPS}


@pytest.mark.slow
def test_the_carrying_parameter_belongs_to_nobody(results: dict[str, Any]) -> None:
    expected = sorted(Module().state_dict())
    for way in WAYS:
        for rank in results[way]["ranks"]:
            assert rank["reduced parameters"] == rank["own parameters"] + ("carried" in way), way
            assert rank["own parameters"] == 4
            assert rank["saved"] == expected
            assert not rank["carries on"], way


@pytest.mark.slow
def test_a_loss_that_is_lost_on_one_rank_ends_the_run_on_all(results: dict[str, Any]) -> None:
    for rank in results["carried, lost from the start"]["ranks"]:
        assert rank["diverged"]
    assert not any(rank["diverged"] for way in WAYS for rank in results[way]["ranks"])


@pytest.mark.slow
def test_what_else_a_training_step_returns_is_kept(results: dict[str, Any]) -> None:
    for rank in results["carried, as a dict"]["ranks"]:
        assert rank["outputs"] == [["loss", "said"]] * STEPS


class Note(Callback):
    """Notes what is agreed on, with a wish at every second step."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.agreed: list[frozenset[Wish]] = []
        self.votes: list[frozenset[Wish]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.exchange.wishes = lambda: frozenset({Wish.SAVE} if trainer.global_step % 2 else ())
        self.agreed.append(self.exchange.agreed)
        self.votes.append(self.exchange.vote(trainer))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_one_rank_agrees_with_itself_at_once() -> None:
    exchange = Exchange()
    note = Note(exchange)
    trainer = bare_trainer(callbacks=[LossHandover(exchange), note], precision="64-true")
    trainer.fit(Module(), loader(batches(4)), loader(batches(1)))
    assert note.agreed == note.votes == [{Wish.SAVE}, set(), {Wish.SAVE}, set()]


def test_a_trainer_without_a_loss_hand_over_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"add LossHandover\(\) to the Trainer's callbacks"):
        loss_handover_of(bare_trainer())


@pytest.mark.parametrize("name", ["auto", "ddp"])
def test_several_processes_get_the_carrying_strategy_with_the_run_s_time_limit(name: str) -> None:
    exchange = Exchange()
    strategy = build_strategy(RuntimeOptions(strategy=name, devices=2, timeout=33), exchange)
    assert isinstance(strategy, CarryingDDP)
    assert strategy.exchange is exchange
    assert strategy._timeout == timedelta(seconds=33)
    assert not strategy._ddp_kwargs["find_unused_parameters"]


def test_unused_parameters_can_be_looked_for() -> None:
    runtime = RuntimeOptions(strategy="ddp_find_unused_parameters_true", devices=2)
    strategy = build_strategy(runtime, Exchange())
    assert isinstance(strategy, CarryingDDP)
    assert strategy._ddp_kwargs["find_unused_parameters"]


@pytest.mark.parametrize("name", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_one_process_shares_its_work_with_nobody(name: str) -> None:
    assert build_strategy(RuntimeOptions(strategy=name), Exchange()) == "auto"


def test_flags_have_the_places_that_their_numbers_say() -> None:
    payload = payload_of(0.5, {Wish.SIGTERM, Wish.TIME_LIMIT}, torch.zeros((), dtype=torch.float64))
    assert payload.tolist() == [0.5, 0, 0, 1, 0, 0, 1]
    assert payload.dtype == torch.float64


class Returns(torch.nn.Module):
    """Its loss is its parameter."""

    def __init__(self, loss: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.loss = torch.nn.Parameter(torch.tensor(loss, dtype=dtype))

    def forward(self) -> torch.Tensor:
        return self.loss * 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", [1.5, math.inf, -math.inf, math.nan])
def test_a_loss_that_brings_the_payload_keeps_value_type_and_gradient(
    loss: float, dtype: torch.dtype
) -> None:
    exchange = Exchange()
    exchange.wishes = lambda: frozenset({Wish.SIGINT})
    module = Returns(loss, dtype)
    carrier = CarryingModule(module, exchange, torch.device("cpu"))
    carrier.mode = "carrying wishes"

    output = carrier()
    (3 * output).backward()

    assert output.dtype == dtype
    assert float(output.detach()) == pytest.approx(loss, nan_ok=True)
    assert float(module.loss.grad) == 3
    payload = carrier.take()
    assert payload.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert payload.tolist() == pytest.approx([3 * loss, 0, 3, 0, 0, 0, 0], nan_ok=True)
    assert carrier.slot.grad is None


def test_wishes_are_brought_by_a_step_s_last_micro_batch_alone() -> None:
    exchange = Exchange()
    exchange.wishes = lambda: frozenset({Wish.TIME_LIMIT})
    carrier = CarryingModule(Returns(2.0, torch.float64), exchange, torch.device("cpu"))
    payloads = []
    for mode in ("carrying", "carrying wishes", "carrying"):
        carrier.mode = mode
        carrier().backward()
        payloads.append(carrier.take().tolist())
    assert payloads == [[2, 0, 0, 0, 0, 0, flag] for flag in (0, 1, 0)]
    carrier.mode = "idle"
    carrier().backward()
    assert carrier.slot.grad is None
