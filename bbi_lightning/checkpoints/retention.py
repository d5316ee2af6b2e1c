"""Which checkpoints a run keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bbi_lightning.checkpoints.manifest import Manifest


def best_of(manifests: Iterable[Manifest]) -> Manifest | None:
    """The one that was the best so far when it was saved, none after it; None if none ever was."""
    best = [manifest for manifest in manifests if "best" in manifest.reasons]
    return max(best, key=lambda manifest: manifest.number, default=None)


def superfluous(
    manifests: Iterable[Manifest], *, keep_last: int, damaged: Collection[int] = ()
) -> list[Manifest]:
    """The checkpoints that may go, oldest first; the newest that is valid never does.

    Kept are the `keep_last` newest valid ones, the best valid one, every milestone, and whatever is newer
    than the newest valid one.

    Args:
        manifests: of one run, in any order.
        keep_last: ≥ 1.
        damaged: numbers of those whose files are known to be damaged.

    Example:
        >>> about = dict(epoch=0, run="toy-s0", saved="", files={})
        >>> saved = [Manifest(number=n, step=10 * n, **about) for n in range(1, 6)]
        >>> [m.number for m in superfluous(saved, keep_last=2, damaged={5})]
        [1, 2]
    """
    ordered = sorted(manifests, key=lambda manifest: manifest.number)
    valid = [manifest for manifest in ordered if manifest.number not in damaged]
    if not valid:
        return []
    kept = {manifest.number for manifest in valid[-keep_last:]}
    kept |= {m.number for m in ordered if "milestone" in m.reasons or m.number > valid[-1].number}
    best = best_of(valid)
    if best is not None:
        kept.add(best.number)
    return [manifest for manifest in ordered if manifest.number not in kept]
