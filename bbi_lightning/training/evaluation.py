"""Loss and accuracy over a data set: the same to the last digit however it is cut into batches and ranks.

A sum in floating point depends on the order of its terms. Here every sample's loss is kept until the end,
gathered from all ranks, and summed with one rounding in all; hits are counted. So the totals depend on the
values of the samples alone.

These are the same to the last bit on any number of ranks, because a data module deals out whole batches
(`SequentialPlan`), and each process computes as with the same number of threads. With another batch size a
network's matrix products may round otherwise: then the loss is the same to rounding, and the accuracy the
same but for samples whose two best classes are that close.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.loss import _Loss, _WeightedLoss


class Totals:
    """Collects batches without waiting for their device, then gives the means over all samples of all ranks.

    NaN and the infinities stay what they are.

    Example:
        >>> totals = Totals()
        >>> totals.add(nn.CrossEntropyLoss(), torch.tensor([[0.0, 9.0], [0.0, 9.0]]), torch.tensor([1, 0]))
        >>> round(totals.means()["acc"], 3)
        0.5
    """

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._hits: list[torch.Tensor] = []
        self._samples = 0

    def add(self, loss: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a batch into account; one without labels only keeps the ranks in step and counts for nothing.

        Args:
            loss: mean over the batch of a function of logits and labels.
            logits: shape (B, num_classes).
            labels: int64, shape (B,) or (0,).
        """
        if len(labels) == 0:
            return
        self._losses.append(losses_of(loss, logits, labels))
        self._hits.append((logits.argmax(dim=1) == labels).sum())
        self._samples += len(labels)

    def means(self) -> dict[str, float]:
        """Return {"loss", "acc"}, alike on all ranks, which must all call it; NaN where no sample was."""
        losses = torch.cat(self._losses).tolist() if self._losses else []
        hits = int(torch.stack(self._hits).sum()) if self._hits else 0
        ranks = _gathered((losses, hits, self._samples))
        samples = sum(part[2] for part in ranks) or math.nan
        loss = exact_sum(value for part in ranks for value in part[0]) / samples
        return {"loss": loss, "acc": sum(part[1] for part in ranks) / samples}


Part = tuple[list[float], int, int]


def _gathered(own: Part) -> list[Part]:
    """This rank's part and those of all others, in the order of the ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    parts: list[Part] = [own] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return parts


def losses_of(loss: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return numbers whose sum is the loss of the batch times its size, float64.

    One for each sample, shape (B,), where the loss module is one of torch's (or derived from one) and a plain
    mean over samples. Otherwise, as with weighted classes, one for the batch: shape (1,).
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()  # three digits are too few for a loss that is looked at
    apart = _without_mean(loss)
    if apart is not None:
        each: torch.Tensor = apart(logits, labels)
        if each.shape[:1] == labels.shape:
            return each.detach().double().reshape(len(labels), -1).mean(dim=1)
    mean: torch.Tensor = loss(logits, labels)
    return (mean.detach().double() * len(labels)).reshape(1)


def _without_mean(loss: nn.Module) -> nn.Module | None:
    """The same loss for each sample apart; None where the mean is another than over samples."""
    if not isinstance(loss, _Loss) or loss.reduction != "mean":
        return None
    if isinstance(loss, _WeightedLoss) and (
        loss.weight is not None or getattr(loss, "ignore_index", -1) >= 0
    ):
        return None
    apart = copy.copy(loss)
    apart.reduction = "none"
    return apart


def exact_sum(values: Iterable[float]) -> float:
    """The sum rounded once, so that the order makes no difference; NaN and the infinities as in any sum."""
    numbers = list(values)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # a sum beyond the largest number; infinities of both signs
        return sum(numbers)


def share_buffers(model: nn.Module) -> None:
    """Give all ranks the buffers of rank zero, which are those a checkpoint holds.

    BatchNorm's running statistics differ from rank to rank, as each has seen its own samples.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
