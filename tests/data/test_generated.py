from __future__ import annotations

import pytest
import torch

from bbi_lightning.data.generated import GeneratedDataModule


def sets(**arguments):
    data = GeneratedDataModule(**arguments)
    return data.read_train(), data.read_test()


@pytest.mark.usefixtures("global_random_state_is_untouched")
def test_shape_sizes_and_range_are_those_asked_for():
    train, test = sets(image_shape=[2, 5, 7], num_classes=4, train_size=50, test_size=30)
    assert train.images.shape == (50, 2, 5, 7)
    assert test.images.shape == (30, 2, 5, 7)
    assert train.images.dtype == torch.uint8
    assert sorted(train.labels.unique().tolist()) == [0, 1, 2, 3]
    assert train.labels.bincount().tolist() == [13, 13, 12, 12]


def test_the_images_are_a_function_of_the_split_seed():
    first, again, other = (sets(split_seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(sets(seed=5)[0].images, sets(seed=6)[0].images)


def test_without_noise_a_class_is_one_image():
    train, test = sets(noise=0.0, num_classes=3)
    assert len(train.images.flatten(1).unique(dim=0)) == 3
    assert torch.equal(train.images.flatten(1).unique(dim=0), test.images.flatten(1).unique(dim=0))


def test_the_rule_is_learned_from_the_training_set():
    """The nearest class mean of the training set is right on the test set, and far from chance when noisy."""
    for noise, least, most in ((2.0, 1.0, 1.0), (10.0, 0.5, 0.99)):
        train, test = sets(noise=noise, image_shape=(3, 16, 16), train_size=4000)
        means = torch.stack([train.images[train.labels == label].float().mean(0) for label in range(10)])
        distances = torch.cdist(test.images.float().flatten(1), means.flatten(1))
        assert least <= (distances.argmin(1) == test.labels).float().mean() <= most


@pytest.mark.parametrize("noise", [0.0, 2.0, 50.0])
def test_batches_are_normalised(noise):
    data = GeneratedDataModule(noise=noise, val_size=0, batch_size=2048)
    data.setup("fit")
    images, _ = next(iter(data.train_dataloader()))
    assert images.mean().abs() < 0.02
    assert abs(images.std() - 1) < 0.02


def test_drawing_in_pieces_changes_nothing(monkeypatch):
    whole = sets()[0]
    monkeypatch.setattr("bbi_lightning.data.generated._AT_ONCE", 3 * 32 * 32 * 100)
    assert torch.equal(whole.images, sets()[0].images)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"image_shape": [3, 32]}, r"data\.image_shape=\[3, 32\] is not three positive integers"),
        ({"image_shape": [3, 32, 0]}, r"data\.image_shape="),
        ({"num_classes": 1}, r"data\.num_classes=1 "),
        ({"train_size": 0}, r"data\.train_size=0 "),
        ({"noise": -1.0}, r"data\.noise=-1\.0 "),
        ({"noise": float("nan")}, r"data\.noise=nan "),
    ],
)
def test_bad_arguments_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        GeneratedDataModule(**arguments)
