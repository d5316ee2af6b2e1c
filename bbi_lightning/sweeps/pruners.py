"""Pruners stop a trial that has fallen behind, so that its time goes to others.

    pruner: asha                                          # or in full:
    pruner: {kind: asha, min_epochs: 1, reduction: 3}
    pruner: {kind: hyperband, min_epochs: 1, max_epochs: 27, reduction: 3}
    pruner: {kind: median, min_epochs: 3, min_trials: 5}

asha is asynchronous successive halving: at min_epochs · reduction^k epochs (k = 0, 1, …) only the best
1/reduction of the trials that have come so far go on. hyperband is several of these with later and later
first decisions, so that a slow starter is not always lost. median stops what is below the median of the
earlier trials at the same epoch. Replicates are never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bbi_lightning.sweeps.section import Section, SweepError, shown

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

_KEYS = {
    "asha": ("min_epochs", "reduction"),
    "hyperband": ("min_epochs", "max_epochs", "reduction"),
    "median": ("min_epochs", "min_trials"),
}
_MIN_EPOCHS = {"asha": 1, "hyperband": 1, "median": 3}


@dataclass(frozen=True)
class Pruner:
    """Which trials are stopped early.

    Attributes:
        kind: asha, hyperband or median.
        min_epochs: nothing is stopped before so many epochs, ≥ 1.
        max_epochs: (hyperband) what a whole trial takes, > min_epochs; otherwise 0.
        reduction: (asha, hyperband) one in so many goes on, ≥ 2; otherwise 0.
        min_trials: (median) so many must have been run to their ends, ≥ 1; otherwise 0.
    """

    kind: str
    min_epochs: int
    max_epochs: int = 0
    reduction: int = 0
    min_trials: int = 0

    def plain(self) -> dict[str, Any]:
        """As it is written in a description."""
        return {"kind": self.kind} | {key: getattr(self, key) for key in _KEYS[self.kind]}


def parse_pruner(where: str, data: Any) -> Pruner:
    """A pruner as a description writes it: its kind alone, or a mapping.

    Raises:
        SweepError: one sentence that names the key (`where` in front), the value and the remedy.
    """
    data = {"kind": data} if isinstance(data, str) else data
    if not isinstance(data, Mapping):
        raise SweepError(f"{where}={shown(data)} is not a pruner: use one of {', '.join(_KEYS)}")
    everything = dict.fromkeys(key for keys in _KEYS.values() for key in keys)
    section = Section(where, data, ["kind", *everything])
    kind = section.one_of("kind", _KEYS)
    section = Section(where, data, ["kind", *_KEYS[kind]])  # the keys of another kind are a mistake
    least = section.whole("min_epochs", _MIN_EPOCHS[kind], at_least=1)
    if kind == "median":
        return Pruner(kind, least, min_trials=section.whole("min_trials", 5, at_least=1))
    reduction = section.whole("reduction", 3, at_least=2)
    if kind == "asha":
        return Pruner(kind, least, reduction=reduction)
    most = section.whole("max_epochs", at_least=1)
    if most < least * reduction:
        raise SweepError(
            f"{section.name('max_epochs')}={most} leaves nothing to decide: it must be at least "
            f"min_epochs · reduction = {least * reduction}"
        )
    return Pruner(kind, least, most, reduction)


def pruner_of(pruner: Pruner | None) -> BasePruner | None:
    """Optuna's pruner of this description. Intermediate values are to be reported with the number of
    completed epochs, 1, 2, …, as their step."""
    if pruner is None:
        return None
    from optuna import pruners

    if pruner.kind == "median":
        return pruners.MedianPruner(n_startup_trials=pruner.min_trials, n_warmup_steps=pruner.min_epochs)
    if pruner.kind == "asha":
        return pruners.SuccessiveHalvingPruner(
            min_resource=pruner.min_epochs, reduction_factor=pruner.reduction
        )
    return pruners.HyperbandPruner(
        min_resource=pruner.min_epochs, max_resource=pruner.max_epochs, reduction_factor=pruner.reduction
    )
