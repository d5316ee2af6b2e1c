from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from bbi_lightning.data.cifar import CIFAR10DataModule, CIFAR100DataModule

from .conftest import cifar_bytes

REMEDY = r"(data\.download=true|data\.data_dir)"


def make10(folder, **arguments):
    return CIFAR10DataModule(data_dir=folder, **({"batch_size": 10, "val_size": 20} | arguments))


def without_checksums(monkeypatch, kind):
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(kind, "_load_meta", lambda self: None)


def test_cifar10_is_read_as_torchvision_reads_it(cifar10_folder, monkeypatch):
    without_checksums(monkeypatch, datasets.CIFAR10)
    data = make10(cifar10_folder)
    for ours, is_train in ((data.read_train(), True), (data.read_test(), False)):
        theirs = datasets.CIFAR10(str(cifar10_folder), train=is_train)
        assert np.array_equal(ours.images.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert ours.labels.tolist() == theirs.targets


def test_cifar100_is_read_as_torchvision_reads_it(cifar100_folder, monkeypatch):
    without_checksums(monkeypatch, datasets.CIFAR100)
    data = CIFAR100DataModule(data_dir=cifar100_folder)
    for ours, is_train in ((data.read_train(), True), (data.read_test(), False)):
        theirs = datasets.CIFAR100(str(cifar100_folder), train=is_train)
        assert np.array_equal(ours.images.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert ours.labels.tolist() == theirs.targets


def test_batches(cifar10_folder):
    data = make10(cifar10_folder)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (10, 3, 32, 32)
    assert labels.shape == (10,)
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 20
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 20


def test_files_that_python_3_wrote_are_read_too(cifar10_folder):
    path = cifar10_folder / "cifar-10-batches-py" / "test_batch"
    pixels = np.arange(3072 * 2, dtype=np.uint8).reshape(2, 3072)
    for protocol in (2, pickle.DEFAULT_PROTOCOL):
        path.write_bytes(pickle.dumps({b"data": pixels, b"labels": [3, 9]}, protocol=protocol))
        images = make10(cifar10_folder).read_test()
        assert images.labels.tolist() == [3, 9]
        assert torch.equal(images.images.flatten(1), torch.from_numpy(pixels))


def test_a_missing_file_is_named_with_the_remedy(cifar10_folder):
    (cifar10_folder / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match=f"data_batch_3.*{REMEDY}"):
        make10(cifar10_folder).prepare_data()


@pytest.mark.parametrize("keep", [0, 1, 100, 3000, -1])
def test_a_truncated_file_is_named_with_the_remedy(cifar10_folder, keep):
    path = cifar10_folder / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=f"{path} cannot be read .*delete it and fetch the set again.*{REMEDY}"
    ):
        make10(cifar10_folder).prepare_data()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2, 3], "is not a CIFAR file"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "is not a CIFAR file"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "does not hold 3072 bytes for each"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [1, 2]}, "does not hold 3072 bytes for each"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "does not hold 3072 bytes for each"),
        ({"data": [[0] * 3072] * 2, "labels": [1, 2]}, "does not hold 3072 bytes for each"),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]},
            "does not hold a list of classes from 0 to 9",
        ),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": [[1], [2, 3]]},
            "does not hold a list of classes from 0 to 9",
        ),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": None},
            "does not hold a list of classes from 0 to 9",
        ),
    ],
)
def test_other_content_is_refused(cifar10_folder, content, complaint):
    path = cifar10_folder / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=f"{path} {complaint}.*{REMEDY}"):
        make10(cifar10_folder).prepare_data()


class Harmful:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, exec, getattr, np.load])
def test_a_file_that_asks_for_anything_but_arrays_is_refused_and_nothing_runs(
    cifar10_folder, tmp_path, function
):
    witness = tmp_path / "witness"
    arguments = (f"import os; os.mkdir({str(witness)!r})",) if function is exec else (str(witness),)
    path = cifar10_folder / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": Harmful(function, *arguments), "labels": []}))
    with pytest.raises(ValueError, match=rf"{path} cannot be read \(it asks for .*which no CIFAR file needs"):
        make10(cifar10_folder).prepare_data()
    assert not witness.exists()


def test_a_file_of_the_other_set_is_refused(cifar10_folder):
    path = cifar10_folder / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(cifar_bytes(np.zeros((1, 3, 32, 32), np.uint8), {"fine_labels": [1]}))
    with pytest.raises(ValueError, match="is not a CIFAR file with the entries data and labels"):
        make10(cifar10_folder).prepare_data()
