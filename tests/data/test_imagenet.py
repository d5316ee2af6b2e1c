from __future__ import annotations

import multiprocessing
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from bbi_lightning.data.image_folder import DecodedImages, ImageFolder, decode
from bbi_lightning.data.imagenet import ImageNetDataModule
from bbi_lightning.data.order import SequentialPlan
from bbi_lightning.data.streamed import StreamedBatches


def make(folder, **arguments):
    defaults = {"num_classes": 3, "image_size": 16, "num_workers": 0, "batch_size": 4, "val_size": 6}
    data = ImageNetDataModule(data_dir=folder, **(defaults | arguments))
    data.setup("fit")
    return data


def test_files_are_listed_by_class_and_name(imagenet_folder):
    files = ImageFolder(imagenet_folder / "train")
    assert files.classes == ["n01", "n02", "n03"]
    assert files.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert files.path(9) == imagenet_folder / "train" / "n02" / "train_1.JPEG"


def test_batches(imagenet_folder):
    data = make(imagenet_folder)
    data.prepare_data()
    data.setup("test")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, *data.image_shape) == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert len(data.train_dataloader()) == 18 // 4
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 6
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 12


def test_validation_is_held_out_evenly_from_the_training_files(imagenet_folder):
    data = make(imagenet_folder)
    train, validation = data.split()
    assert not set(train.tolist()) & set(validation.tolist())
    assert data.training_labels()[validation].bincount().tolist() == [2, 2, 2]


def test_evaluation_images_are_torchvisions_resized_and_cropped_ones(imagenet_folder):
    data = make(imagenet_folder)
    data.setup("test")
    images = torch.cat([images for images, _ in data.test_dataloader()])
    expected = v2.Compose(
        [
            v2.Resize(18, antialias=True),
            v2.CenterCrop(16),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean, data.std),
        ]
    )
    files = ImageFolder(imagenet_folder / "val")
    for sample, image in enumerate(images):
        torch.testing.assert_close(image, expected(decode(files.path(sample))), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("global_random_state_is_untouched")
def test_a_view_depends_on_seed_epoch_and_sample_alone(imagenet_folder):
    files = ImageFolder(imagenet_folder / "train")

    def view(seed, epoch, sample):
        return DecodedImages(files, size=16, seed=seed, augment=True)[epoch, sample][0]

    whole = DecodedImages(files, size=16, seed=1, augment=True)
    views = {(epoch, sample): whole[epoch, sample][0] for epoch in (1, 0) for sample in (5, 2, 9)}
    assert all(torch.equal(view(1, *key), image) for key, image in views.items())
    different = [view(seed, epoch, 5) for seed in (1, 2) for epoch in (0, 1)]
    assert all(not torch.equal(different[0], other) for other in different[1:])


@pytest.mark.usefixtures("global_random_state_is_untouched")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(imagenet_folder, workers):
    without, with_workers = (make(imagenet_folder, num_workers=number) for number in (0, workers))
    ours, theirs = without.train_dataloader(), with_workers.train_dataloader()
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
    with_workers.teardown("fit")


class ProcessNumbers(torch.utils.data.Dataset):
    def __getitem__(self, key):
        return torch.zeros(1, 1, 1, dtype=torch.uint8), os.getpid()


def test_workers_are_other_processes_and_stay_until_closed():
    plan = SequentialPlan(torch.arange(8), batch_size=1)
    batches = StreamedBatches(
        ProcessNumbers(), plan, mean=[0], std=[1], num_workers=2, device=torch.device("cpu")
    )
    epochs = [{label.item() for _, label in batches.batches(epoch, 0)} for epoch in (0, 1)]
    assert os.getpid() not in epochs[0]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1]
    batches.close()
    assert multiprocessing.active_children() == []
    assert not {label.item() for _, label in batches.batches(2, 0)} & epochs[0]
    batches.close()


def test_a_pass_left_early_does_not_leak_into_the_next(imagenet_folder):
    data = make(imagenet_folder, num_workers=2)
    reference = make(imagenet_folder).train_dataloader()
    loader = data.train_dataloader()
    next(iter(loader))
    next(iter(reference))
    for one, other in zip(loader, reference, strict=True):
        assert torch.equal(one[0], other[0])
    data.teardown("fit")


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB", "RGBA"])
def test_images_of_any_colour_become_rgb(tmp_path, mode):
    colours = {"L": 1, "CMYK": 4, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.full((10, 12, colours), 90, np.uint8).squeeze()
    path = tmp_path / ("image.png" if mode == "RGBA" else "image.jpg")
    Image.fromarray(pixels, mode=None if mode != "CMYK" else "CMYK").save(path)
    assert decode(path).shape == (3, 10, 12)


def test_a_png_that_is_called_jpeg_is_read(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "image.png")
    shutil.move(tmp_path / "image.png", tmp_path / "image.JPEG")
    assert decode(tmp_path / "image.JPEG").shape == (3, 4, 5)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_damaged_image_is_named_with_the_remedy(imagenet_folder, content, workers):
    path = imagenet_folder / "train" / "n01" / "train_0.JPEG"
    path.write_bytes(content)
    data = make(imagenet_folder, num_workers=workers, val_size=0, batch_size=24)
    with pytest.raises(ValueError, match=f"{path} is not a whole JPEG or PNG image.*copy it again"):
        next(iter(data.train_dataloader()))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_folder_is_named_with_the_remedy(imagenet_folder, part):
    shutil.rmtree(imagenet_folder / part)
    with pytest.raises(FileNotFoundError, match=rf"{imagenet_folder / part}: set data\.data_dir"):
        make_unprepared(imagenet_folder).prepare_data()


def make_unprepared(folder, **arguments):
    return ImageNetDataModule(data_dir=folder, **({"num_classes": 3, "num_workers": 0} | arguments))


def test_images_outside_class_folders_are_refused(imagenet_folder):
    shutil.rmtree(imagenet_folder / "val")
    (imagenet_folder / "val").mkdir()
    (imagenet_folder / "val" / "loose.JPEG").touch()
    with pytest.raises(FileNotFoundError, match="val has no class folders: sort its images"):
        make_unprepared(imagenet_folder).prepare_data()


def test_an_empty_class_folder_is_refused(imagenet_folder):
    for file in (imagenet_folder / "train" / "n02").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"n02 holds no \.jpeg, \.jpg or \.png file"):
        make_unprepared(imagenet_folder).prepare_data()


def test_another_number_of_classes_is_refused(imagenet_folder):
    with pytest.raises(ValueError, match=r"has 3 class folders where data\.num_classes=1000"):
        make_unprepared(imagenet_folder, num_classes=1000).prepare_data()


def test_unlike_class_folders_are_refused(imagenet_folder):
    (imagenet_folder / "val" / "n03").rename(imagenet_folder / "val" / "n99")
    with pytest.raises(ValueError, match="class folder n03 is in only one of train/ and val/"):
        make_unprepared(imagenet_folder).prepare_data()
