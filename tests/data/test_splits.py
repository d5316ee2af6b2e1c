from __future__ import annotations

import pytest
import torch

from bbi_lightning.data.splits import stratified_split

LABELS = torch.tensor([0] * 50 + [1] * 30 + [3] * 20)  # class 2 is empty


def random_cases():
    """Labels of up to 80 samples in up to 7 classes, and how many of them to hold out."""
    random = torch.Generator().manual_seed(0)
    for _ in range(300):
        n = int(torch.randint(1, 81, (), generator=random))
        classes = int(torch.randint(1, 8, (), generator=random))
        held_out = int(torch.randint(0, n + 1, (), generator=random))
        yield torch.randint(0, classes, (n,), generator=random), held_out


def test_the_parts_are_disjoint_complete_sorted_and_of_the_size_asked_for():
    for seed, (labels, held_out) in enumerate(random_cases()):
        kept, out = stratified_split(labels, held_out, seed)
        assert len(out) == held_out
        assert sorted(kept.tolist() + out.tolist()) == list(range(len(labels)))
        assert kept.tolist() == sorted(kept.tolist())
        assert out.tolist() == sorted(out.tolist())


def test_every_class_gives_its_share_rounded_up_or_down():
    for seed, (labels, held_out) in enumerate(random_cases()):
        _, out = stratified_split(labels, held_out, seed)
        exact = labels.bincount(minlength=7) * held_out / len(labels)
        assert (labels[out].bincount(minlength=7) - exact).abs().max() < 1


def test_shares_that_are_whole_numbers_are_exact():
    kept, out = stratified_split(LABELS, 10, 0)
    assert LABELS[out].bincount().tolist() == [5, 3, 0, 2]
    assert LABELS[kept].bincount().tolist() == [45, 27, 0, 18]


def test_the_split_is_a_function_of_the_seed():
    def held_out(seed):
        return tuple(stratified_split(LABELS, 20, seed)[1].tolist())

    assert held_out(1) == held_out(1)
    assert len({held_out(seed) for seed in range(5)}) == 5


@pytest.mark.parametrize("held_out", [-1, 101])
def test_more_than_there_is_cannot_be_held_out(held_out):
    with pytest.raises(ValueError, match=rf"held_out={held_out} is outside 0\.\.100"):
        stratified_split(LABELS, held_out, 0)
