from __future__ import annotations

import pytest
import torch

from bbi_lightning.data.order import SequentialPlan, ShuffledPlan, derived_seed, generator

IDS = torch.arange(100, 203)


def batches(plan, epoch=0):
    ids = plan.ids(epoch)
    return [ids[begin:end] for begin, end in plan.bounds]


def test_derived_seeds_differ_by_stream_and_key():
    seeds = [
        derived_seed(stream, seed, epoch)
        for stream in ("order", "augmentation", "sample", "content")
        for seed in range(10)
        for epoch in range(10)
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_generator_depends_on_its_key_alone():
    torch.manual_seed(1)
    first = torch.rand(5, generator=generator("order", 3, 4))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(5, generator=generator("order", 3, 4)))


@pytest.mark.usefixtures("global_random_state_is_untouched")
def test_an_order_does_not_draw_from_the_global_generator():
    ShuffledPlan(IDS, batch_size=10, seed=0).ids(0)


class TestShuffledPlan:
    def test_an_epoch_is_a_permutation_without_the_incomplete_batch(self):
        ids = ShuffledPlan(IDS, batch_size=10, seed=0).ids(0).tolist()
        assert len(ids) == 100
        assert len(set(ids)) == 100
        assert set(ids) <= set(IDS.tolist())

    def test_the_order_is_a_function_of_seed_and_epoch(self):
        def order(seed, epoch):
            return tuple(ShuffledPlan(IDS, batch_size=10, seed=seed).ids(epoch).tolist())

        assert order(1, 2) == order(1, 2)
        assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9

    def test_asking_for_epochs_in_another_order_changes_nothing(self):
        forward, backward = (ShuffledPlan(IDS, batch_size=10, seed=0) for _ in range(2))
        expected = [forward.ids(epoch).tolist() for epoch in (0, 1, 2)]
        assert [backward.ids(epoch).tolist() for epoch in (2, 1, 0)] == expected[::-1]

    @pytest.mark.parametrize("world_size", [1, 2, 4, 12])
    def test_the_ranks_tile_every_global_batch_exactly(self, world_size):
        whole = batches(ShuffledPlan(IDS, batch_size=12, seed=7), epoch=3)
        ranks = [
            batches(ShuffledPlan(IDS, batch_size=12, seed=7, rank=rank, world_size=world_size), epoch=3)
            for rank in range(world_size)
        ]
        for number, batch in enumerate(whole):
            assert torch.equal(batch, torch.cat([rank[number] for rank in ranks]))
        assert all(len(rank) == len(whole) for rank in ranks)

    def test_a_batch_that_ranks_cannot_share_is_refused(self):
        with pytest.raises(ValueError, match=r"data\.batch_size=10 is not divisible by the 4 ranks"):
            ShuffledPlan(IDS, batch_size=10, seed=0, world_size=4)

    def test_a_batch_larger_than_the_set_is_refused(self):
        with pytest.raises(ValueError, match=r"data\.batch_size=128 is larger than the 103 training samples"):
            ShuffledPlan(IDS, batch_size=128, seed=0)


class TestSequentialPlan:
    @pytest.mark.parametrize(
        ("n", "world_size"),
        [(n, ranks) for n in (1, 2, 5, 16, 17, 100, 103) for ranks in (1, 2, 3, 8) if n >= ranks],
    )
    @pytest.mark.parametrize("batch_size", [1, 3, 16, 1000])
    def test_every_sample_once_in_order_and_no_rank_ever_without_a_batch(self, n, world_size, batch_size):
        ids = torch.arange(n) + 50
        ranks = [
            batches(SequentialPlan(ids, batch_size=batch_size, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        assert len({len(rank) for rank in ranks}) == 1
        assert all(len(batch) > 0 for rank in ranks for batch in rank)
        together = torch.cat([torch.cat(number) for number in zip(*ranks, strict=True)])
        assert torch.equal(together, ids)

    def test_batches_stay_within_the_size_asked_for(self):
        sizes = [len(batch) for batch in batches(SequentialPlan(IDS, batch_size=40))]
        assert sizes == [35, 34, 34]

    def test_fewer_samples_than_ranks_are_refused(self):
        with pytest.raises(ValueError, match="2 evaluation samples for 4 ranks"):
            SequentialPlan(torch.arange(2), batch_size=8, world_size=4)
