"""The loader's rule of epochs, without a trainer."""

from __future__ import annotations

from itertools import islice

import pytest
from lightning_fabric.utilities.types import _Stateful

from bbi_lightning.data.loader import EvaluationLoader, TrainingLoader


class Numbers:
    """Four batches an epoch; a batch is (epoch, number)."""

    def __init__(self):
        self.started = 0

    def __len__(self):
        return 4

    def batches(self, epoch, start):
        self.started += 1
        for number in range(start, 4):
            yield epoch, number

    def close(self):
        pass


def epoch(number, start=0):
    return [(number, k) for k in range(start, 4)]


@pytest.fixture
def loader():
    return TrainingLoader(Numbers())


def test_lightning_takes_it_for_stateful(loader):
    assert isinstance(loader, _Stateful)
    assert len(loader) == 4


def test_each_pass_is_the_next_epoch(loader):
    assert [list(loader) for _ in range(3)] == [epoch(0), epoch(1), epoch(2)]


def test_iter_without_drawing_changes_nothing_and_starts_nothing(loader):
    for _ in range(3):
        iter(loader)
    assert loader.source.started == 0
    assert list(loader) == epoch(0)


def test_a_pass_that_was_left_early_is_not_taken_up_again(loader):
    assert list(islice(loader, 2)) == epoch(0)[:2]
    assert list(loader) == epoch(1)


@pytest.mark.parametrize("drawn", range(9))
def test_saved_anywhere_and_loaded_it_goes_on(loader, drawn):
    def endless(source):
        while True:
            yield from source

    expected = list(islice(endless(TrainingLoader(Numbers())), 12))
    assert list(islice(endless(loader), drawn)) == expected[:drawn]

    resumed = TrainingLoader(Numbers())
    resumed.load_state_dict(loader.state_dict())
    iter(resumed)  # Lightning does so before it begins
    assert list(islice(endless(resumed), 12 - drawn)) == expected[drawn:]


def test_the_state_says_where_it_is(loader):
    assert loader.state_dict() == {"epoch": 0, "batches": 0}
    list(loader)
    assert loader.state_dict() == {"epoch": 0, "batches": 4}
    list(islice(loader, 3))
    assert loader.state_dict() == {"epoch": 1, "batches": 3}


def test_set_epoch_moves_only_to_another_epoch(loader):
    list(islice(loader, 2))
    loader.load_state_dict(loader.state_dict())
    batches = iter(loader)
    loader.batch_sampler.sampler.set_epoch(0)
    assert list(batches) == epoch(0, start=2)
    batches = iter(loader)
    loader.batch_sampler.sampler.set_epoch(5)
    assert list(batches) == epoch(5)


def test_the_first_epoch_can_be_repeated():
    loader = TrainingLoader(Numbers(), repeat_first_epoch=True)
    assert [list(loader) for _ in range(2)] == [epoch(0), epoch(0)]
    assert loader.state_dict() == {"epoch": 1, "batches": 4}


def test_the_evaluation_loader_repeats_itself_and_has_no_state():
    loader = EvaluationLoader(Numbers())
    assert [list(loader) for _ in range(2)] == [epoch(0), epoch(0)]
    assert not isinstance(loader, _Stateful)
