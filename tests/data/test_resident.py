from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from bbi_lightning.data.order import SequentialPlan, ShuffledPlan
from bbi_lightning.data.resident import Augmentation, ImageSet, ResidentBatches, ResidentImages

MEAN, STD = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
N = 24


@pytest.fixture
def image_set():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N, 3, 7, 9), generator=random, dtype=torch.uint8)
    return ImageSet(images, torch.arange(N) % 4)


def resident(image_set, padding):
    return ResidentImages(image_set, mean=MEAN, std=STD, padding=padding)


def normalised(pixels):
    """torchvision's ToTensor and Normalize."""
    return reference.normalize(reference.to_dtype(pixels, torch.float32, scale=True), MEAN, STD)


@pytest.mark.parametrize("padding", [0, 3])
def test_plain_images_are_torchvisions_normalised_ones(image_set, padding):
    batches = ResidentBatches(resident(image_set, padding), SequentialPlan(torch.arange(N), batch_size=10))
    images, labels = zip(*batches.batches(0, 0), strict=True)
    torch.testing.assert_close(torch.cat(images), normalised(image_set.images), rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.cat(labels), image_set.labels)
    assert images[0].dtype == torch.float32
    assert labels[0].dtype == torch.int64


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (2, False), (3, True)])
def test_augmented_images_are_torchvisions_pad_crop_and_flip(image_set, padding, flip):
    augmentation = Augmentation(padding=padding, flip=flip, seed=1)
    plan = ShuffledPlan(torch.arange(N), batch_size=8, seed=2)
    batches = ResidentBatches(resident(image_set, padding), plan, augmentation).batches(5, 0)
    images = torch.cat([batch for batch, _ in batches])

    offsets, flips = augmentation.draw(N, epoch=5)
    for image, sample in zip(images, plan.ids(5), strict=True):
        top, left = offsets[sample].tolist()
        expected = reference.crop(reference.pad(image_set.images[sample], [padding] * 4), top, left, 7, 9)
        if flips[sample]:
            expected = reference.horizontal_flip(expected)
        torch.testing.assert_close(image, normalised(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("global_random_state_is_untouched")
def test_a_samples_view_depends_on_seed_epoch_and_sample_alone(image_set):
    """Not on the batch size, the number of ranks, the batch resumed at, or the other samples trained on."""
    images, augmentation = resident(image_set, 3), Augmentation(padding=3, flip=True, seed=1)

    def views(sample_ids, batch_size, rank=0, world_size=1, start=0, epoch=1):
        plan = ShuffledPlan(
            sample_ids, batch_size=batch_size, seed=epoch + batch_size, rank=rank, world_size=world_size
        )
        batches = ResidentBatches(images, plan, augmentation).batches(epoch, start)
        ids = plan.ids(epoch)[plan.bounds[start][0] :].tolist()
        return dict(zip(ids, torch.cat([batch for batch, _ in batches]), strict=True))

    whole = views(torch.arange(N), batch_size=N)
    others = [
        views(torch.arange(N), batch_size=6),
        views(torch.arange(N), batch_size=6, start=2),
        views(torch.arange(N), batch_size=8, rank=1, world_size=2),
        views(torch.arange(5, 15), batch_size=4),
    ]
    for other in others:
        assert all(torch.equal(view, whole[sample]) for sample, view in other.items())
    next_epoch = views(torch.arange(N), batch_size=N, epoch=2)
    assert sum(torch.equal(next_epoch[sample], whole[sample]) for sample in range(N)) < N / 4


def test_all_crops_and_flips_are_equally_likely():
    offsets, flips = Augmentation(padding=2, flip=True, seed=0).draw(50_000, epoch=0)
    counts = (offsets[:, 0] * 10 + offsets[:, 1] * 2 + flips).bincount(minlength=50)
    assert len(counts) == 50
    chi_squared = ((counts - 1000) ** 2 / 1000).sum().item()
    assert 20 < chi_squared < 95  # 49 ± 9.9, so within -3 and +4.6 standard deviations


def test_the_first_batch_after_an_offset_is_the_one_an_epoch_has_there(image_set):
    augmentation = Augmentation(padding=1, flip=True, seed=0)
    plan = ShuffledPlan(torch.arange(N), batch_size=4, seed=0)
    batches = ResidentBatches(resident(image_set, 1), plan, augmentation)
    for whole, part in zip(list(batches.batches(2, 0))[3:], batches.batches(2, 3), strict=True):
        assert torch.equal(whole[0], part[0])
        assert torch.equal(whole[1], part[1])


def test_batches_do_not_share_memory_with_the_set(image_set):
    batches = ResidentBatches(resident(image_set, 0), SequentialPlan(torch.arange(N), batch_size=N))
    images, labels = next(batches.batches(0, 0))
    images.zero_()
    labels.zero_()
    again, labels_again = next(batches.batches(0, 0))
    assert again.abs().sum() > 0
    assert labels_again.sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_batches(image_set):
    augmentation = Augmentation(padding=3, flip=True, seed=1)
    plan = ShuffledPlan(torch.arange(N), batch_size=8, seed=2)
    on_gpu = ResidentImages(image_set, mean=MEAN, std=STD, padding=3, device="cuda")
    for ours, theirs in zip(
        ResidentBatches(resident(image_set, 3), plan, augmentation).batches(1, 0),
        ResidentBatches(on_gpu, plan, augmentation).batches(1, 0),
        strict=True,
    ):
        torch.testing.assert_close(theirs[0].cpu(), ours[0])
        assert torch.equal(theirs[1].cpu(), ours[1])
