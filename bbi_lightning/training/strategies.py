"""How the ranks share the work: Lightning's strategies, ours where one may carry the exchange of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bbi_lightning.training.exchange import NOTHING, Exchange, Wish, payload_of
from bbi_lightning.training.options import RuntimeOptions


def build_strategy(runtime: RuntimeOptions, exchange: Exchange) -> Strategy | str:
    """The strategy that `runtime` asks for: `CarryingDDP`, FSDP2, or none for a single process.

    Args:
        runtime: where and how the run takes place.
        exchange: what the ranks tell each other at every step.
    """
    timeout = timedelta(seconds=runtime.timeout)
    if runtime.strategy == "fsdp":
        from bbi_lightning.training.sharding import ShardedStrategy  # dear to load, and seldom used

        return ShardedStrategy(timeout=timeout)
    if runtime.world_size == 1:
        return "auto"
    unused = runtime.strategy == "ddp_find_unused_parameters_true"
    return CarryingDDP(exchange, timeout=timeout, find_unused_parameters=unused)


def without_sigterm_broadcast(trainer: pl.Trainer) -> None:
    """Spare the broadcast, and the wait for it, that Lightning makes before every batch.

    It tells the ranks of a SIGTERM that its own handler has noted; ours is told in the exchange.
    """
    loop = trainer.fit_loop.epoch_loop
    loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


class CarryingDDP(DDPStrategy):
    """DDP that carries the exchange as the gradient of one more parameter, so that it costs no message.

    The parameter belongs to nobody but the wrapper around the module: no optimizer, no `parameters()` of the
    module and no checkpoint knows of it. Accumulation, the mean over ranks and the scale of a GradScaler come
    out right by themselves, since they treat it as a gradient. Manual optimization is left to Lightning.

    The order in which DDP lays gradients out, hence that in which the ranks' numbers are summed, is settled
    before the first step. Left alone, DDP changes it after the first step: a run that resumes would sum three
    and more ranks otherwise than one that was never stopped.

    Args:
        exchange: whose payload is carried.
        options: those of Lightning's DDPStrategy.
    """

    def __init__(self, exchange: Exchange, **options: Any) -> None:
        # gradients that lie in DDP's buckets from the start need not be copied there and back
        super().__init__(**{"gradient_as_bucket_view": True, **options})
        self.exchange = exchange

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        if not isinstance(model, pl.LightningModule) or not model.automatic_optimization:
            return super()._setup_model(model)
        return super()._setup_model(CarryingModule(model, self.exchange, self.root_device))

    def configure_ddp(self) -> None:
        """Wrap the module, and settle DDP's order."""
        super().configure_ddp()
        ddp = self.model
        if isinstance(ddp, DistributedDataParallel) and isinstance(ddp.module, CarryingModule):
            self.exchange.carrier = ddp.module
            ddp.module.rehearse(ddp)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The module's, whose loss brings the payload: the wishes with a step's last micro-batch."""
        ddp = self.model
        if not isinstance(ddp, DistributedDataParallel) or not isinstance(ddp.module, CarryingModule):
            return super().training_step(*args, **kwargs)
        ddp.module.mode = "carrying wishes" if ddp.require_backward_grad_sync else "carrying"
        try:
            return super().training_step(*args, **kwargs)
        finally:
            ddp.module.mode = "idle"

    def teardown(self) -> None:
        """Carry no more."""
        self.exchange.carrier = None
        super().teardown()


Mode = Literal["idle", "rehearsing", "carrying", "carrying wishes"]


class CarryingModule(nn.Module):
    """A module with one parameter more, `slot`, whose gradient is the payload. Goes between DDP and a module.

    Args:
        module: in training it returns a loss, or a mapping with one.
        exchange: knows this rank's wishes.
        device: the module's.

    Attributes:
        mode: "idle": the output is the module's; "carrying": its loss brings the payload along; "carrying
            wishes": and this rank's wishes, for this is the last micro-batch of a step.
    """

    def __init__(self, module: nn.Module, exchange: Exchange, device: torch.device) -> None:
        super().__init__()
        dtypes = {p.dtype for p in module.parameters() if p.requires_grad}
        dtype = torch.float64 if dtypes == {torch.float64} else torch.float32
        self.slot = nn.Parameter(torch.zeros(1 + len(Wish), dtype=dtype, device=device))
        self.module = module
        self.exchange = exchange
        self._payload = torch.zeros_like(self.slot, requires_grad=False)
        self._place_of_loss = self._payload[0]
        self._wished = NOTHING
        self.mode: Mode = "idle"

    def rehearse(self, ddp: DistributedDataParallel) -> None:
        """Make one backward without a loss: DDP keeps the order in which it sees the gradients then."""
        sparse = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse for m in self.modules())
        if ddp.find_unused_parameters or ddp.static_graph or sparse:
            return  # no change of order to forestall; or none that could be rehearsed
        self.mode = "rehearsing"
        ddp().backward()
        self.mode = "idle"
        self.zero_grad(set_to_none=True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module does; in training its loss brings the payload along."""
        if self.mode == "rehearsing":
            return self._all_parameters()
        output = self.module(*args, **kwargs)
        if self.mode == "idle":
            return output
        if isinstance(output, Mapping):
            return {**output, "loss": self._with_payload(output["loss"])}
        return self._with_payload(output)

    def take(self) -> Tensor:
        """The payload, averaged over ranks; the next step starts from zero."""
        slot = self.slot
        payload = slot.grad
        assert payload is not None
        slot.grad = None
        return payload

    def _with_payload(self, loss: Tensor) -> Tensor:
        self._place_of_loss.copy_(loss.detach())
        wishes = self.exchange.wishes() if self.mode == "carrying wishes" else NOTHING
        if wishes != self._wished:
            self._payload[1:] = payload_of(0.0, wishes, self._payload)[1:]
            self._wished = wishes
        # the slot is zero: nothing is added, but its gradient will be the payload times the loss's gradient
        bringing = loss + torch.dot(self.slot, self._payload)
        if bringing.dtype != loss.dtype:
            bringing = bringing.to(loss.dtype)
        if loss.device.type != "cpu" or not math.isfinite(loss.item()):
            with torch.no_grad():
                bringing.copy_(loss)  # 0 · ∞ is no zero
        return bringing

    def _all_parameters(self) -> Tensor:
        """A number that depends on every parameter; backward meets them from the last to the first."""
        number = torch.zeros((), device=self.slot.device)
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                number = number + parameter.reshape(-1)[:1].sum().float()
        return number + self.slot.sum().float()
