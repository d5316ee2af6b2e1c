"""What goes wrong on the way to the cluster, in one sentence each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClusterError(ValueError):
    """A mistake in a request, or a refusal of SLURM's, in one sentence with the remedy."""


def unknown(what: str, word: str, known: Iterable[str]) -> ClusterError:
    """The error about a word nobody knows: the nearest one, and all of them."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return ClusterError(f"{what} {word} is unknown: {hint}known are {', '.join(words)}")
