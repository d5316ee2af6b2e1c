"""Where a run is in its data is (epoch, batch): for every data module, all it is given follows from that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from bbi_lightning.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from bbi_lightning.data.digits import DigitsDataModule
from bbi_lightning.data.generated import GeneratedDataModule
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.data.imagenet import ImageNetDataModule
from bbi_lightning.data.mnist import MNISTDataModule
from bbi_lightning.data.order import ShuffledPlan

from .conftest import Recorder

# Lightning's own use of torch's tree utilities.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")

Make = Callable[..., ImageDataModule]


class MovedImages(GeneratedDataModule):
    """The generated set is the one without views of its own."""

    crop_padding, flip = 1, True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(image_shape=(3, 6, 6), num_classes=3, train_size=60, **arguments)
        self.augment = True


def digits(**arguments: Any) -> ImageDataModule:
    return DigitsDataModule(augment=True, **arguments)


@pytest.fixture(
    params=["digits", "generated", "mnist", "cifar10", "cifar100", "imagenet", "imagenet, 2 workers"]
)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a data module with random views."""
    kinds: dict[str, tuple[Any, str]] = {
        "digits": (digits, ""),
        "generated": (MovedImages, ""),
        "mnist": (MNISTDataModule, "mnist_folder"),
        "cifar10": (CIFAR10DataModule, "cifar10_folder"),
        "cifar100": (CIFAR100DataModule, "cifar100_folder"),
        "imagenet": (ImageNetDataModule, "imagenet_folder"),
    }
    name, _, workers = request.param.partition(", ")
    kind, folder = kinds[name]
    fixed: dict[str, Any] = {}
    if folder:
        fixed |= {"data_dir": request.getfixturevalue(folder), "augment": True}
    if name == "imagenet":
        fixed |= {"num_classes": 3, "image_size": 16, "num_workers": 2 if workers else 0}

    def made(rank: int = 0, world_size: int = 1, **arguments: Any) -> ImageDataModule:
        data = kind(**fixed, **{"batch_size": 4, "val_size": 6, "seed": 5, **arguments})
        data.trainer = SimpleNamespace(
            global_rank=rank,
            world_size=world_size,
            overfit_batches=0,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        data.setup("fit")
        return data

    return made


def epoch_of(data: ImageDataModule, epoch: int, start: int = 0, stop: int = 4) -> list[torch.Tensor]:
    """Images of the batches from `start` to `stop`."""
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": epoch, "batches": start})
    try:
        return [images for images, _ in zip_images(loader, stop - start)]
    finally:
        data.teardown("fit")


def zip_images(loader: Any, count: int) -> list[Any]:
    return [batch for batch, _ in zip(loader, range(count), strict=False)]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_a_batch_is_a_function_of_seed_epoch_and_number(make: Make) -> None:
    whole = epoch_of(make(), epoch=1)
    data = make()
    epoch_of(data, epoch=2)  # what was read before makes no difference,
    torch.manual_seed(123)  # nor do the global generators
    assert same(epoch_of(data, epoch=1), whole)
    for start in (1, 3):
        assert same(epoch_of(make(), epoch=1, start=start), whole[start:])
    assert not same(epoch_of(make(), epoch=2), whole)
    assert not same(epoch_of(make(seed=6), epoch=1), whole)


def test_ranks_and_batch_sizes_cut_one_and_the_same_order(make: Make) -> None:
    whole = torch.cat(epoch_of(make(), epoch=1))
    assert torch.equal(torch.cat(epoch_of(make(batch_size=8), epoch=1, stop=2)), whole)
    ranks = [epoch_of(make(rank, 2), epoch=1) for rank in range(2)]
    assert torch.equal(torch.cat([part for pair in zip(*ranks, strict=True) for part in pair]), whole)


def views(data: ImageDataModule, epoch: int) -> dict[int, torch.Tensor]:
    """The image of each sample in this epoch."""
    ids = ShuffledPlan(data.split()[0], batch_size=4, seed=data.seed).ids(epoch).tolist()
    images = torch.cat(epoch_of(data, epoch, stop=1000))
    return dict(zip(ids, images, strict=False))


def test_a_view_is_a_function_of_seed_epoch_and_sample_wherever_it_comes_in_the_order(make: Make) -> None:
    """Another set of samples to train on has another order, so that a sample has other neighbours."""
    one, other = views(make(), 1), views(make(val_size=1 + len(make().split()[1])), 1)
    both = one.keys() & other.keys()
    assert len(both) > len(one) / 2
    assert list(one) != list(other)
    assert all(torch.equal(one[sample], other[sample]) for sample in both)


class RankRecorder(Recorder):
    """Saves a checkpoint after so many batches; leaves what each rank has seen in a file."""

    def __init__(self, folder: Path, save_after: int | None) -> None:
        super().__init__()
        self.folder, self.save_after = folder, save_after

    def on_train_batch_end(self, *_: Any) -> None:
        if len(self.seen) == self.save_after:
            self.trainer.save_checkpoint(self.folder / "at.ckpt")

    def on_fit_end(self) -> None:
        (self.folder / f"rank{self.global_rank}.json").write_text(json.dumps(self.seen))


class Run:
    """Trains on real processes and tells what all of them together saw, batch by batch."""

    def __init__(
        self, folder: Path, make_trainer: Callable[..., pl.Trainer], make_data: Callable[[], ImageDataModule]
    ) -> None:
        self.folder, self.make_trainer, self.make_data = folder, make_trainer, make_data

    def __call__(self, ranks: int, save_after: int | None = None, resume: bool = False) -> list[Any]:
        several = {"devices": ranks, "strategy": "ddp_fork"} if ranks > 1 else {}
        trainer = self.make_trainer(
            max_epochs=2, accumulate_grad_batches=2, limit_val_batches=0, num_sanity_val_steps=0, **several
        )
        trainer.fit(
            RankRecorder(self.folder, save_after),
            datamodule=self.make_data(),
            ckpt_path=self.folder / "at.ckpt" if resume else None,
        )
        seen = [json.loads((self.folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]
        return [together(parts) for parts in zip(*seen, strict=True)]


def together(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Epoch, number, labels and sum of the pixels of one batch of all ranks."""
    epoch, number = parts[0][:2]
    labels = [label for part in parts for label in part[2]]
    return epoch, number, labels, pytest.approx(sum(part[3] for part in parts), rel=1e-12, abs=1e-9)


@pytest.fixture(params=[0, 2], ids=["resident", "2 workers"])
def run(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_trainer: Callable[..., pl.Trainer],
    imagenet_folder: Path,
) -> Run:
    def make_data() -> ImageDataModule:
        if request.param == 0:
            return MovedImages(batch_size=8, val_size=4, seed=5)
        return ImageNetDataModule(
            data_dir=imagenet_folder, num_classes=3, image_size=16, num_workers=2, batch_size=4, val_size=3
        )

    return Run(tmp_path, make_trainer, make_data)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 4)])
def test_a_run_resumed_in_mid_epoch_on_any_number_of_ranks_is_given_the_batches_that_were_missing(
    run: Run, before: int, after: int
) -> None:
    whole = run(1)
    at = len(whole) // 2 + 2  # in the second epoch, after a whole accumulation
    first = run(before, save_after=at)
    second = run(after, resume=True)
    assert [batch[:3] for batch in first] == [batch[:3] for batch in whole]
    assert [batch[:3] for batch in second] == [batch[:3] for batch in whole[at:]]
    sums = [(mine[3].expected, theirs[3]) for mine, theirs in zip(second, whole[at:], strict=True)]
    assert all(mine == theirs for mine, theirs in sums)
