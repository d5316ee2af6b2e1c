"""Which samples make which batch: pure functions of (seed, epoch), cut into the ranks' shares.

A plan names this rank's sample ids of an epoch and where its batches begin and end. All ranks have the
same number of batches. In training, batch k of all ranks together is global batch k, so a run continues at
(epoch, k) whatever the number of ranks; in evaluation, a batch is one rank's.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch

# One number for each independent use of randomness, so that no two ever share a stream.
_STREAMS = {"order": 0, "augmentation": 1, "sample": 2, "content": 3}
Stream = Literal["order", "augmentation", "sample", "content"]


def derived_seed(stream: Stream, *key: int) -> int:
    """Return a well-mixed 32-bit seed: neighbouring keys give unrelated numbers.

    Args:
        stream: what the numbers are for.
        key: non-negative integers such as (seed, epoch) or (seed, epoch, sample).
    """
    return int(np.random.SeedSequence([_STREAMS[stream], *key]).generate_state(1)[0])


def generator(stream: Stream, *key: int) -> torch.Generator:
    """Return a CPU generator at the start of the stream named by `key`; the global one stays untouched."""
    return torch.Generator().manual_seed(derived_seed(stream, *key))


class Plan(Protocol):
    """This rank's part of every epoch.

    Attributes:
        bounds: (begin, end) of each batch within `ids(epoch)`.
    """

    bounds: list[tuple[int, int]]

    def ids(self, epoch: int) -> torch.Tensor:
        """Return this rank's sample ids in the order of `epoch`, shape (samples of this rank,)."""
        ...


class ShuffledPlan:
    """A new permutation every epoch; the last incomplete global batch is dropped.

    Args:
        sample_ids: ids to train on, shape (n,).
        batch_size: samples of a global batch, over all ranks.
        seed: which sequence of permutations, >= 0.
        rank: this process, in [0, world_size).
        world_size: number of processes.

    Raises:
        ValueError: the batch is not divisible by the number of ranks, or larger than the training set.
    """

    def __init__(
        self, sample_ids: torch.Tensor, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"data.batch_size={batch_size} is not divisible by the {world_size} ranks: "
                f"it counts the samples over all ranks, so pass a multiple of {world_size}"
            )
        n_batches = len(sample_ids) // batch_size
        if n_batches == 0:
            raise ValueError(
                f"data.batch_size={batch_size} is larger than the {len(sample_ids)} training samples: "
                f"pass at most {len(sample_ids)}"
            )
        self._sample_ids, self._seed = sample_ids, seed
        self._shape = (n_batches, world_size, batch_size // world_size)
        self._rank = rank
        share = batch_size // world_size
        self.bounds = [(k * share, (k + 1) * share) for k in range(n_batches)]

    def ids(self, epoch: int) -> torch.Tensor:
        """Return this rank's sample ids in the order of `epoch`."""
        permutation = torch.randperm(len(self._sample_ids), generator=generator("order", self._seed, epoch))
        whole_batches = self._sample_ids[permutation[: int(np.prod(self._shape))]]
        return whole_batches.view(self._shape)[:, self._rank].reshape(-1)


class SequentialPlan:
    """Every sample exactly once, in ascending order, the same in every epoch.

    The samples are divided evenly over the batches, and whole batches are dealt out to the ranks. So a
    batch is the same whatever the number of ranks, and what a model makes of it is the same to the last
    bit: matrix products of another shape round differently.

    Args:
        sample_ids: ids to evaluate, shape (n,), n >= 1.
        batch_size: largest number of samples of a batch.
        rank: this process, in [0, world_size).
        world_size: number of processes.

    Attributes:
        padded: the last batch is not this rank's to count: one sample that keeps it in step with the other
            ranks (a collective call in an evaluation step would hang otherwise).
    """

    def __init__(
        self, sample_ids: torch.Tensor, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        n_batches = -(-len(sample_ids) // batch_size)
        own = list(sample_ids.tensor_split(n_batches)[rank::world_size])
        self.padded = len(own) < -(-n_batches // world_size)
        if self.padded:
            own.append(sample_ids[:1])
        ends = np.cumsum([len(part) for part in own]).tolist()
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self._ids = torch.cat(own)

    def ids(self, epoch: int) -> torch.Tensor:
        """Return this rank's sample ids; `epoch` makes no difference."""
        return self._ids
