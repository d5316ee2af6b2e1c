from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from torchvision import datasets

from bbi_lightning.data.mnist import MNISTDataModule

from .conftest import idx_bytes

REMEDY = r"(data\.download=true|data\.data_dir)"


def make(folder, **arguments):
    return MNISTDataModule(data_dir=folder, **({"batch_size": 10, "val_size": 20} | arguments))


def test_packed_and_plain_files_are_read_as_torchvision_reads_them(mnist_folder):
    data = make(mnist_folder)
    train, test = data.read_train(), data.read_test()
    raw = mnist_folder / "MNIST" / "raw"
    for packed in raw.glob("*.gz"):  # torchvision reads plain files only
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    for ours, is_train in ((train, True), (test, False)):
        theirs = datasets.MNIST(str(mnist_folder), train=is_train)
        assert torch.equal(ours.images.squeeze(1), theirs.data)
        assert torch.equal(ours.labels, theirs.targets)


def test_batches(mnist_folder):
    data = make(mnist_folder)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (10, 1, 28, 28)
    assert labels.shape == (10,)
    assert len(data.train_dataloader()) == 7
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 20
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 30


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_the_remedy(mnist_folder, name):
    (mnist_folder / "MNIST" / "raw" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name.removesuffix('.gz')}.*{REMEDY}"):
        make(mnist_folder).prepare_data()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*{REMEDY}"):
        make(tmp_path).prepare_data()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte"])
@pytest.mark.parametrize("keep", [0, 3, 10, -1])
def test_a_truncated_file_is_named_with_the_remedy(mnist_folder, name, keep):
    path = mnist_folder / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{name}.*delete it and fetch it again.*{REMEDY}"):
        make(mnist_folder).prepare_data()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<html>404 not found</html>", "does not begin like an idx file"),
        (idx_bytes(np.zeros((30, 28, 28))) + b"\0", "bytes where its header announces"),
        (idx_bytes(np.zeros((30, 28, 27))), "which is not MNIST"),
        (idx_bytes(np.zeros((29, 28, 28))), "which is not MNIST"),
    ],
)
def test_other_content_is_refused(mnist_folder, content, complaint):
    (mnist_folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=f"{complaint}.*{REMEDY}"):
        make(mnist_folder).prepare_data()


def test_damage_inside_a_packed_file_is_found(mnist_folder):
    path = mnist_folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} is not a whole gzip file.*{REMEDY}"):
        make(mnist_folder).prepare_data()


def test_a_class_that_mnist_does_not_have_is_refused(mnist_folder):
    path = mnist_folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.arange(30) % 12))
    with pytest.raises(ValueError, match="holds the class 11"):
        make(mnist_folder).prepare_data()


def test_without_a_network_the_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(FileNotFoundError, match=r"data\.download=true could not fetch MNIST into"):
        make(tmp_path, download=True).prepare_data()


def test_downloading_keeps_files_that_are_there(mnist_folder, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    raw = mnist_folder / "MNIST" / "raw"
    for packed in raw.glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    make(mnist_folder, download=True).prepare_data()
