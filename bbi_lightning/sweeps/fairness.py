"""What a sweep compares with what, in sentences: to be read before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bbi_lightning.sweeps.probe import Measured
from bbi_lightning.sweeps.spec import Goal, SweepSpec

_SHAPE_THE_BUDGET = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accumulate_grad_batches",
    "data.batch_size",
)


def what_is_compared(spec: SweepSpec) -> list[str]:
    """Arms, budgets, selection, shared points, replicates: one sentence each."""
    labels = [arm.label for arm in spec.arms]
    count, first = spec.replicates.count, spec.replicates.first_seed
    tie = spec.objective.tie_breaker
    each = "each" if len(labels) > 1 else "alone"
    sentences = [
        f"{_listed(labels)}: {spec.search.trials} trials {each} ({spec.search.sampler}), "
        f"all with the seed {spec.search.seed}.",
        *_shared_points(spec),
        *_search(spec),
        f"The best of each is the one with the {_goal(spec.objective)} at the end of training"
        + (f"; between equals, the {_goal(tie)}." if tie else "."),
    ]
    if count:
        pairs = "" if len(labels) == 1 else ", the same in every arm, so that arms are compared pair by pair"
        sentences.append(
            f"It is run again with {count} fresh seeds, {first} to {first + count - 1}{pairs}."
            if count > 1
            else f"It is run again with the fresh seed {first}{pairs}."
        )
    return sentences


def differences_of_budget(spec: SweepSpec, measured: Sequence[Measured] = ()) -> list[str]:
    """What makes trials unequal in the work they do: a warning each; empty when all do the same.

    Args:
        spec: the sweep.
        measured: what is known of the arms' trials.
    """
    warnings = []
    for arm in spec.arms:
        for key in arm.space:
            if key in _SHAPE_THE_BUDGET:
                warnings.append(
                    f"{arm.name} searches {key}: its trials take different numbers of steps or samples, "
                    "so what is best may be what trained longest."
                )
    steps = {m.arm: round(m.total_steps) for m in measured if m.total_steps == m.total_steps}
    if len(set(steps.values())) > 1:
        each = ", ".join(f"{arm} {count:,}" for arm, count in steps.items())
        warnings.append(
            f"The arms train for different numbers of steps ({each}): their budgets are not equal."
        )
    return warnings


def _shared_points(spec: SweepSpec) -> list[str]:
    """Which keys have the same values in several arms."""
    if len(spec.arms) == 1 or spec.search.sampler not in ("halton", "sobol", "random"):
        return []
    pairs = dict.fromkeys((key, space) for arm in spec.arms for key, space in arm.space.items())
    sentences = []
    for key, space in pairs:
        sharing = [arm.label for arm in spec.arms if arm.space.get(key) == space]
        if len(sharing) > 1:
            sentences.append(
                f"{_listed(sharing)} declare the same space for {key}: the same values are tried."
            )
    return sentences or ["No two arms declare the same space for a key: each is searched in its own."]


def _search(spec: SweepSpec) -> list[str]:
    """What is special about how it is searched."""
    studies, seed = spec.search.studies, spec.search.seed
    sentences = []
    if studies > 1:
        sentences.append(
            f"Every arm is searched so {studies} times, each time with points and a seed of its own "
            f"({seed} to {seed + studies - 1}); the best of each search is replicated."
        )
    if spec.search.is_adaptive:
        sentences.append("A trial's point depends on the results before it: equal budgets, different points.")
    if spec.search.pruner is not None:
        sentences.append("Trials without hope are stopped early: hours and disk are the most they can be.")
    return sentences


def _goal(goal: Goal) -> str:
    return f"{'largest' if goal.direction == 'maximize' else 'smallest'} {goal.metric}"


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
