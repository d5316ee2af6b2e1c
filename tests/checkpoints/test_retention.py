"""What is kept: enough to go on, the best, and what was promised for good; nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.checkpoints.manifest import Manifest
from bbi_lightning.checkpoints.retention import best_of, superfluous


def saved(number: int, *reasons: str) -> Manifest:
    return Manifest(number=number, step=number, epoch=0, reasons=reasons, run="r", saved="", files={})


reasons = st.sets(st.sampled_from(["last", "best", "milestone"]))
histories = st.dictionaries(st.integers(1, 40), st.tuples(reasons, st.booleans()), max_size=12)


@given(histories, st.integers(1, 4))
def test_keeps_the_newest_valid_the_best_valid_and_every_milestone(history, keep_last):
    manifests = [saved(number, *why) for number, (why, _) in history.items()]
    damaged = {number for number, (_, is_damaged) in history.items() if is_damaged}
    gone = {m.number for m in superfluous(manifests, keep_last=keep_last, damaged=damaged)}
    valid = sorted(history.keys() - damaged)
    best = [n for n in valid if "best" in history[n][0]]

    assert gone.isdisjoint(valid[-keep_last:])
    assert gone.isdisjoint(best[-1:])
    assert gone.isdisjoint(n for n in history if "milestone" in history[n][0])
    assert all(n < valid[-1] for n in gone)
    kept_valid = set(valid) - gone
    assert all(
        n in valid[-keep_last:] or n in best[-1:] or "milestone" in history[n][0] for n in kept_valid
    ), "more is kept than promised"


@given(histories, st.integers(1, 4))
def test_clearing_away_twice_removes_nothing_more(history, keep_last):
    manifests = [saved(number, *why) for number, (why, _) in history.items()]
    damaged = {number for number, (_, is_damaged) in history.items() if is_damaged}
    gone = superfluous(manifests, keep_last=keep_last, damaged=damaged)
    left = [m for m in manifests if m not in gone]
    assert superfluous(left, keep_last=keep_last, damaged=damaged) == []


def test_nothing_goes_while_nothing_is_valid():
    assert superfluous([saved(1), saved(2), saved(3)], keep_last=1, damaged={1, 2, 3}) == []


def test_the_best_is_the_newest_that_was_the_best_so_far():
    assert best_of([saved(3, "last"), saved(2, "best"), saved(1, "best")]) == saved(2, "best")
    assert best_of([saved(1, "last")]) is None
