"""Run by test_exchange.py: what two ranks learn of each other, in every way in which the exchange travels.

python exchange_program.py RANKS OUT
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections import Counter
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from bbi_lightning.training.exchange import Exchange, Wish
from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.step_log import DivergedError, StepLog
from bbi_lightning.training.strategies import CarryingDDP, without_sigterm_broadcast
from training.ranks import fork_ranks
from training.reference import bare_trainer, batches, loader, network

STEPS = 9
WISHED = {3: (1, Wish.SIGTERM), 5: (0, Wish.SAVE), 7: (1, Wish.TIME_LIMIT)}
"""Step → the rank that has a wish then, and which."""


class LateExchange(Exchange):
    """The path of an accelerator, with the CPU as that accelerator."""

    def _is_at_hand(self, payload: Tensor) -> bool:
        return False


class Module(pl.LightningModule):
    """The loss is the step's number + the rank's, times a parameter's square, or NaN if it says so."""

    def __init__(self, *, manual: bool = False, lost: int | None = None, as_dict: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.lost = lost
        self.as_dict = as_dict
        self.model = network()
        self.register_buffer("ones", torch.ones(2))
        self.unused = nn.Parameter(torch.zeros(3), requires_grad=False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.model(batch[0]).square().mean() * 0 + batch_idx + self.global_rank
        loss = loss + self.model[0].bias.sum() * 0
        if self.lost is not None and (batch_idx, self.global_rank) == (self.lost, 1):
            loss = loss * float("nan")
        if self.automatic_optimization:
            return {"loss": loss, "said": "besides"} if self.as_dict else loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.model(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.0)


class Observer(Callback):
    """Has wishes, and notes what is agreed on at every step boundary."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.wishes = self.wishes
        self.asked = 0
        self.agreed: list[list[str]] = []
        self.losses: list[float] = []
        self.votes: list[list[str]] = []
        self.messages: Counter[str] = Counter()
        self.owned = 0
        self.outputs: list[Any] = []
        self._before: dict[str, Any] = {}
        self._step = 0

    def wishes(self) -> frozenset[Wish]:
        self.asked += 1
        rank, wish = WISHED.get(self._step + 1, (-1, Wish.SAVE))
        return frozenset({wish}) if rank == dist.get_rank() else frozenset()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.owned = sum(p.requires_grad for p in trainer.strategy.model.parameters())
        for name in ("all_reduce", "broadcast"):
            self._before[name] = send = getattr(dist, name)
            setattr(dist, name, functools.partial(self._count, name, send))

    def _count(self, name: str, send: Any, *args: Any, **options: Any) -> Any:
        self.messages[name] += 1
        return send(*args, **options)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self.agreed.append([wish.name for wish in sorted(self.exchange.agreed)])
        (handover,) = (callback for callback in trainer.callbacks if isinstance(callback, LossHandover))
        self.losses.append(float(handover.newest.value))
        self.outputs.append(sorted(outputs or {}))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, send in self._before.items():
            setattr(dist, name, send)
        for step in (2, 4):  # nobody wishes anything after 3 steps; somebody saves after 5
            self._step = step
            self.votes.append([wish.name for wish in sorted(self.exchange.vote(trainer))])


def run_case(
    strategy: type[DDPStrategy] | None = None,
    *,
    exchange: Exchange | None = None,
    accumulate: int = 1,
    spare_broadcast: bool = True,
    unused: bool = False,
    **options: Any,
) -> dict[str, Any]:
    exchange = Exchange() if exchange is None else exchange
    if strategy is CarryingDDP:
        chosen: DDPStrategy = CarryingDDP(exchange, find_unused_parameters=unused)
    else:
        chosen = DDPStrategy()
    observer, handover = Observer(exchange), LossHandover(exchange)
    trainer = bare_trainer(
        devices=2,
        strategy=chosen,
        callbacks=[handover, observer, StepLog(every=STEPS)],
        precision="64-true",
        use_distributed_sampler=False,
        **({} if options.get("manual") else {"accumulate_grad_batches": accumulate}),
    )
    if spare_broadcast:
        without_sigterm_broadcast(trainer)
    module = Module(**options)
    diverged = False
    try:
        trainer.fit(module, loader(batches(STEPS * accumulate)), loader(batches(2)))
    except DivergedError:
        diverged = True
    mine = {
        "agreed": observer.agreed,
        "votes": observer.votes,
        "asked": observer.asked,
        "losses": observer.losses,
        "messages": dict(observer.messages),
        "outputs": observer.outputs,
        "diverged": diverged,
        "reduced parameters": observer.owned,
        "own parameters": sum(p.requires_grad for p in module.parameters()),
        "saved": sorted(module.state_dict()),
        "carries on": exchange.carrier is not None,
    }
    everybodys: list[Any] = [None, None]
    dist.all_gather_object(everybodys, mine)
    return {"ranks": everybodys}


def main() -> dict[str, Any]:
    return {
        "carried": run_case(CarryingDDP),
        "carried, accumulated": run_case(CarryingDDP, accumulate=3),
        "carried, unused parameters": run_case(CarryingDDP, unused=True),
        "carried, as a dict": run_case(CarryingDDP, as_dict=True),
        "carried, lost": run_case(CarryingDDP, lost=4),
        "carried, lost from the start": run_case(CarryingDDP, lost=0),
        "carried, late": run_case(CarryingDDP, exchange=LateExchange()),
        "reduced": run_case(),
        "reduced, accumulated": run_case(accumulate=3),
        "reduced, lost": run_case(lost=4),
        "reduced, late": run_case(exchange=LateExchange()),
        "manual": run_case(CarryingDDP, manual=True),
        "Lightning's broadcasts": run_case(CarryingDDP, spare_broadcast=False),
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    fork_ranks(main, int(sys.argv[1]), sys.argv[2])
