"""The global random generators are seeded, saved and put back."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from bbi_lightning.training.generators import generator_states, restore_generators, seed_generators


def draws() -> list[float]:
    normal = np.random.standard_normal()  # an odd number of them leaves one cached
    return [random.random(), random.gauss(0, 1), normal, float(torch.rand(())), float(torch.randn(()))]


def test_seed_decides_all_draws() -> None:
    seed_generators(3)
    first = draws()
    seed_generators(3)
    assert draws() == first
    seed_generators(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_restored_state_goes_on_where_it_was_saved_through_a_file_that_holds_only_data() -> None:
    seed_generators(0)
    draws()
    file = io.BytesIO()
    torch.save(generator_states(), file)
    expected = [draws() for _ in range(3)]
    seed_generators(99)
    file.seek(0)
    restore_generators(torch.load(file, weights_only=True))
    assert [draws() for _ in range(3)] == expected
