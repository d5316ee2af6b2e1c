"""Seeded, stratified splits: every class keeps its share on both sides."""

from __future__ import annotations

import numpy as np
import torch


def stratified_split(labels: torch.Tensor, held_out: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split sample indices into those kept and `held_out` others, class by class.

    Each class gives its proportional share, rounded by largest remainder so that the shares add up
    to `held_out` exactly. The result depends on (labels, held_out, seed) alone.

    Args:
        labels: class of each sample, shape (n,), integers >= 0.
        held_out: number of samples to hold out, in [0, n].
        seed: which split, >= 0.

    Returns:
        (kept, held out): indices in ascending order, shapes (n - held_out,) and (held_out,).

    Raises:
        ValueError: `held_out` is negative or larger than the number of samples.
    """
    n = len(labels)
    if not 0 <= held_out <= n:
        raise ValueError(f"held_out={held_out} is outside 0..{n}: hold out no more samples than there are")

    classes = labels.numpy()
    random = np.random.default_rng(np.random.SeedSequence([seed, n, held_out]))
    shuffled = random.permutation(n)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]

    counts = np.bincount(classes)
    ends = np.cumsum(counts)
    position = np.arange(n) - np.repeat(ends - counts, counts)
    taken = position < np.repeat(_shares(counts, held_out), counts)

    kept, out = np.sort(by_class[~taken]), np.sort(by_class[taken])
    return torch.from_numpy(kept), torch.from_numpy(out)


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` in proportion to `counts`, in whole samples, by largest remainder."""
    exact = counts * (total / max(1, counts.sum()))
    shares = np.floor(exact).astype(np.int64)
    largest_first = np.argsort(shares - exact, kind="stable")
    shares[largest_first[: total - shares.sum()]] += 1
    return shares
