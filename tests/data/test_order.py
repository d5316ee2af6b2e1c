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
        [(n, ranks) for n in (1, 2, 5, 16, 17, 97, 100, 103) for ranks in (1, 2, 3, 8)],
    )
    @pytest.mark.parametrize("batch_size", [1, 3, 16, 1000])
    def test_ranks_are_dealt_the_batches_of_one_process_and_stay_in_step(self, n, world_size, batch_size):
        ids = torch.arange(n) + 50
        whole = SequentialPlan(ids, batch_size=batch_size)
        assert not whole.padded
        plans = [
            SequentialPlan(ids, batch_size=batch_size, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert len({len(plan.bounds) for plan in plans}) == 1
        counted = [batches(plan)[: len(plan.bounds) - plan.padded] for plan in plans]
        dealt = [rank[number] for number in range(len(counted[0])) for rank in counted if number < len(rank)]
        assert [batch.tolist() for batch in dealt] == [batch.tolist() for batch in batches(whole)]
        assert torch.equal(torch.cat(dealt), ids)

    @pytest.mark.parametrize("world_size", [2, 3, 8])
    def test_what_keeps_a_rank_in_step_costs_one_sample(self, world_size):
        plans = [
            SequentialPlan(IDS, batch_size=1000, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert [plan.padded for plan in plans] == [False] + [True] * (world_size - 1)
        assert [[len(batch) for batch in batches(plan)] for plan in plans[1:]] == [[1]] * (world_size - 1)

    def test_batches_stay_within_the_size_asked_for(self):
        sizes = [len(batch) for batch in batches(SequentialPlan(IDS, batch_size=40))]
        assert sizes == [35, 34, 34]
