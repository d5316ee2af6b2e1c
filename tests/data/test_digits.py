from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from bbi_lightning.data.digits import DigitsDataModule


@pytest.fixture(scope="module")
def data():
    data = DigitsDataModule()
    data.setup("fit")
    data.setup("test")
    return data


def test_sizes_and_shapes(data):
    assert [len(ids) for ids in data.split()] == [1157, 280]
    assert len(data.read_test()) == 360
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (64, *DigitsDataModule.image_shape)
    assert labels.shape == (64,)
    assert len(data.train_dataloader()) == 1157 // 64


def test_training_and_test_set_together_are_scikit_learns(data):
    def multiset(images, labels):
        return sorted(zip(map(bytes, images.flatten(1).numpy()), labels.tolist(), strict=True))

    digits = load_digits()
    everything = multiset(torch.from_numpy(digits.images).to(torch.uint8), torch.from_numpy(digits.target))
    train, test = data.read_train(), data.read_test()
    ours = multiset(torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels]))
    assert ours == everything


def test_both_splits_are_stratified(data):
    train, validation = data.split()
    labels = data.training_labels()
    for part in (labels[train], labels[validation], data.read_test().labels):
        shares = part.bincount(minlength=10) / len(part)
        assert (shares - 0.1).abs().max() < 0.01


def test_no_argument_changes_the_test_set(data):
    other = DigitsDataModule(seed=5, split_seed=7, val_size=0.5, batch_size=8)
    assert torch.equal(other.read_test().images, data.read_test().images)


def test_the_training_images_are_normalised(data):
    data_without_validation = DigitsDataModule(val_size=0, batch_size=1437)
    data_without_validation.setup("fit")
    images, _ = next(iter(data_without_validation.train_dataloader()))
    assert images.mean().abs() < 1e-3
    assert abs(images.std() - 1) < 1e-3


def test_its_seed_changes_the_order_and_its_split_seed_the_split():
    def first_labels(**arguments):
        data = DigitsDataModule(**arguments)
        data.setup("fit")
        return next(iter(data.train_dataloader()))[1].tolist(), data.split()[1].tolist()

    labels, validation = first_labels()
    other_labels, same_validation = first_labels(seed=1)
    assert labels != other_labels
    assert validation == same_validation
    assert first_labels(split_seed=1)[1] != validation
