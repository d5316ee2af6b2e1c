"""What the ranks tell each other once an optimizer step: the loss, and whether anybody wants to stop or save.

All of it is one short vector, the payload: [loss, one flag for each `Wish`], averaged over the ranks. A flag
above zero means that some rank has set it. How the vector travels:

    one rank                 not at all
    the strategy carries it  as the gradient of a parameter in DDP's first bucket: no message of its own
    any other strategy       in an all-reduce that runs while backward does
    manual optimization      in an all-reduce at the optimizer step
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Protocol

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from bbi_lightning.optim.motion import copy_to_host


class Wish(IntEnum):
    """What a rank may want; the number is the flag's place in the payload."""

    SAVE = 0
    SIGINT = 1
    SIGTERM = 2
    SIGUSR1 = 3
    SIGUSR2 = 4
    TIME_LIMIT = 5


NOTHING: frozenset[Wish] = frozenset()


class Carrier(Protocol):
    """A strategy's way of averaging the payload along with the gradients."""

    def take(self) -> Tensor:
        """The payload summed over micro-batches and averaged over ranks since the last take, shape (7,)."""


def no_wishes() -> frozenset[Wish]:
    """What a rank wants that nobody has given a voice."""
    return NOTHING


class Exchange:
    """One step's agreement between the ranks. `LossHandover` drives it; give both the same one.

    Attributes:
        wishes: says what this rank wants; asked once an optimizer step, when the exchange starts.
        carrier: set by a strategy that carries the payload, None otherwise.

    Example:
        >>> exchange = Exchange()
        >>> exchange.wishes = lambda: frozenset({Wish.SAVE})
        >>> exchange.agreed  # one rank agrees with itself
        frozenset({<Wish.SAVE: 0>})
    """

    def __init__(self) -> None:
        self.wishes: Callable[[], frozenset[Wish]] = no_wishes
        self.carrier: Carrier | None = None
        self._ranks = 1
        self._agreed = NOTHING
        self._flags_on_the_way: Callable[[], list[float]] | None = None
        self._payload: Tensor | None = None
        self._work: dist.Work | None = None

    def begin(self, ranks: int) -> None:
        """Start afresh with so many ranks."""
        self._ranks = ranks
        self._agreed = NOTHING
        self._flags_on_the_way = self._payload = self._work = None

    @property
    def is_needed(self) -> bool:
        """Whether there is anybody to exchange with."""
        return self._ranks > 1

    @property
    def is_carried(self) -> bool:
        """Whether the payload needs no message of its own."""
        return self.is_needed and self.carrier is not None

    @property
    def agreed(self) -> frozenset[Wish]:
        """What any rank wished in the newest completed exchange, the same on all ranks at a step boundary.

        On a CPU that of this step; on an accelerator that of the step before, so that nobody waits for it. On
        one rank what it wishes now.
        """
        return self._agreed if self.is_needed else self.wishes()

    def vote(self, trainer: pl.Trainer) -> frozenset[Wish]:
        """Ask all ranks at once, in a collective of its own that every rank must join."""
        if trainer.world_size == 1:
            return self.wishes()
        payload = payload_of(0.0, self.wishes(), torch.zeros((), device=trainer.strategy.root_device))
        dist.all_reduce(payload)
        return _wishes_in(payload[1:].tolist())

    def start(self, loss: Tensor | float, device: torch.device) -> None:
        """Send the payload on its way, if no carrier does; backward may run meanwhile."""
        if self.is_needed and not self.is_carried and self._payload is None:
            like = torch.zeros((), dtype=torch.float64, device=device)
            self._payload = payload_of(loss, self.wishes(), like)
            self._work = dist.all_reduce(self._payload, async_op=True)

    def finish(self, loss: Tensor | float, device: torch.device, scale: Tensor | float) -> Tensor | float:
        """Complete the exchange of this step, whether it has been started or not.

        Args:
            loss: this rank's, summed over the micro-batches of the step; a carrier knows it already.
            device: where collectives take place.
            scale: what a GradScaler has multiplied gradients with, a carrier's too.

        Returns:
            The mean of the loss over the ranks: a float on a CPU, a 0-dim float64 tensor elsewhere.
        """
        if not self.is_needed:
            return loss
        if self.carrier is not None:
            payload = self.carrier.take()
        else:
            self.start(loss, device)
            payload, scale = self._mean_payload(), 1.0
        if self._is_at_hand(payload):
            mean, *flags = payload.tolist()
            self._agreed = _wishes_in(flags)
            return float(mean / scale)
        if self._flags_on_the_way is not None:
            self._agreed = _wishes_in(self._flags_on_the_way())
        self._flags_on_the_way = copy_to_host(list(payload[1:]))
        return payload[0].double() / scale

    def _is_at_hand(self, payload: Tensor) -> bool:
        """Whether it can be read without waiting for a device."""
        return payload.device.type == "cpu"

    def _mean_payload(self) -> Tensor:
        assert self._work is not None
        assert self._payload is not None
        self._work.wait()
        payload = self._payload / self._ranks
        self._payload = self._work = None
        return payload


def payload_of(loss: Tensor | float, wishes: Iterable[Wish], like: Tensor) -> Tensor:
    """[loss, flags], shape (7,), of dtype and device of `like`; nobody waits for the device."""
    payload = like.new_zeros(1 + len(Wish))
    payload[0] = loss
    for wish in wishes:
        payload[1 + wish] = 1.0
    return payload


def _wishes_in(flags: Sequence[float]) -> frozenset[Wish]:
    return frozenset(wish for wish in Wish if flags[wish] > 0) if any(flags) else NOTHING
