"""What every data module does: split, plan, slice by rank, and hand out loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pytorch_lightning as pl
import torch

from bbi_lightning.data.arguments import held_out_count, positive_int
from bbi_lightning.data.loader import BatchSource, EvaluationLoader, TrainingLoader
from bbi_lightning.data.order import Plan, SequentialPlan, ShuffledPlan
from bbi_lightning.data.resident import Augmentation, ImageSet, ResidentBatches, ResidentImages
from bbi_lightning.data.splits import stratified_split


class ImageDataModule(pl.LightningDataModule, ABC):
    """Base of the data modules: batches of (images, labels) with validation carved from training.

    Batches are float32 images (batch, channels, height, width), normalised, and int64 labels (batch,),
    on the trainer's device. Rank and device come from the trainer; without one it is a single process
    on the CPU. Use `Trainer(use_distributed_sampler=False)`: the ranks' shares are cut here.

    Args:
        batch_size: training samples of a micro-step over all ranks; a multiple of the number of ranks.
        eval_batch_size: largest number of samples of an evaluation batch, on one rank. The batches do not
            depend on the number of ranks, nor does therefore what is measured. Where it does not divide the
            number of batches, some ranks are given a last image without a label: nothing to count.
        val_size: validation samples: a count, a fraction in (0, 1), or 0 for no validation.
        seed: order of the samples and their augmentation, >= 0.
        split_seed: which samples are held out for validation, >= 0. Apart from `seed`, so that the runs
            of a study differ in their seed and still validate on the same samples.
        augment: random views in training; what they are is the data set's choice.

    Raises:
        ValueError: an argument outside its range.
    """

    image_shape: tuple[int, int, int]
    num_classes: int

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        val_size: int | float,
        seed: int = 0,
        split_seed: int = 0,
        augment: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size = positive_int("data.batch_size", batch_size)
        self.eval_batch_size = positive_int("data.eval_batch_size", eval_batch_size)
        held_out_count(val_size, 2**63)
        self.val_size = val_size
        self.seed = positive_int("data.seed", seed, minimum=0)
        self.split_seed = positive_int("data.split_seed", split_seed, minimum=0)
        self.augment = augment
        self._sources: list[BatchSource] = []

    @abstractmethod
    def training_labels(self) -> torch.Tensor:
        """Return the class of every training sample, validation samples included; needs `setup("fit")`."""

    @abstractmethod
    def training_source(self, plan: Plan, *, augment: bool) -> BatchSource:
        """Return batches of the training samples that `plan` names."""

    @abstractmethod
    def test_samples(self) -> int:
        """Return the size of the test set; needs `setup("test")`."""

    @abstractmethod
    def test_source(self, plan: Plan) -> BatchSource:
        """Return batches of the test samples that `plan` names; needs `setup("test")`."""

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids of the training and of the validation samples, each ascending.

        Raises:
            ValueError: `val_size` leaves nothing to train on.
        """
        labels = self.training_labels()
        return stratified_split(labels, held_out_count(self.val_size, len(labels)), self.split_seed)

    def train_dataloader(self) -> TrainingLoader:
        """Return the resumable loader of the training samples.

        Raises:
            ValueError: `batch_size` is not divisible by the number of ranks, or larger than the set.
        """
        rank, world_size = self._rank_and_world_size()
        plan = ShuffledPlan(
            self.split()[0], batch_size=self.batch_size, seed=self.seed, rank=rank, world_size=world_size
        )
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0
        return TrainingLoader(
            self._remember(self.training_source(plan, augment=self.augment)), repeat_first_epoch=overfit
        )

    def val_dataloader(self) -> EvaluationLoader | list[EvaluationLoader]:
        """Return the loader of the validation samples; an empty list, Lightning's "none", if `val_size=0`."""
        ids = self.split()[1]
        if len(ids) == 0:
            return []
        plan = self._evaluation_plan(ids)
        source = self.training_source(plan, augment=False)
        return EvaluationLoader(self._remember(source), padded=plan.padded)

    def test_dataloader(self) -> EvaluationLoader:
        """Return the loader of the test samples."""
        plan = self._evaluation_plan(torch.arange(self.test_samples()))
        return EvaluationLoader(self._remember(self.test_source(plan)), padded=plan.padded)

    def teardown(self, stage: str) -> None:
        """Release the worker processes of all loaders handed out so far."""
        for source in self._sources:
            source.close()
        self._sources.clear()

    @property
    def device(self) -> torch.device:
        """The trainer's device; the CPU without a trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _evaluation_plan(self, ids: torch.Tensor) -> SequentialPlan:
        rank, world_size = self._rank_and_world_size()
        return SequentialPlan(ids, batch_size=self.eval_batch_size, rank=rank, world_size=world_size)

    def _remember(self, source: BatchSource) -> BatchSource:
        self._sources.append(source)
        return source


class ResidentDataModule(ImageDataModule):
    """A data set small enough to live as uint8 on the training device.

    A subclass states the constants below and how to read its two image sets.
    """

    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    full_range: ClassVar[int] = 255
    crop_padding: ClassVar[int] = 0
    flip: ClassVar[bool] = False

    _train: ImageSet | None = None
    _test: ImageSet | None = None
    _resident: ResidentImages | None = None

    @abstractmethod
    def read_train(self) -> ImageSet:
        """Return the training set, validation samples included."""

    @abstractmethod
    def read_test(self) -> ImageSet:
        """Return the test set."""

    def setup(self, stage: str) -> None:
        """Read the training set for "fit" and "validate", the test set for "test"; each once."""
        if stage == "test":
            self._test = self._test or self.read_test()
        elif self._train is None:
            self._train = self.read_train()

    def training_labels(self) -> torch.Tensor:
        """Return the class of every training sample, shape (n,)."""
        return self._loaded_train().labels

    def training_source(self, plan: Plan, *, augment: bool) -> ResidentBatches:
        """Return batches of the resident training set, which moves to the device at the first call."""
        if self._resident is None or self._resident.device != self.device:
            padding = self.crop_padding if self.augment else 0
            self._resident = self._on_device(self._loaded_train(), padding)
        views = Augmentation(padding=self.crop_padding, flip=self.flip, seed=self.seed) if augment else None
        return ResidentBatches(self._resident, plan, views)

    def test_samples(self) -> int:
        """Return the size of the test set."""
        return len(self._loaded_test())

    def test_source(self, plan: Plan) -> ResidentBatches:
        """Return batches of the test samples that `plan` names."""
        return ResidentBatches(self._on_device(self._loaded_test(), 0), plan)

    def _loaded_train(self) -> ImageSet:
        if self._train is None:
            raise RuntimeError('the training set is not loaded: call setup("fit") first')
        return self._train

    def _loaded_test(self) -> ImageSet:
        if self._test is None:
            raise RuntimeError('the test set is not loaded: call setup("test") first')
        return self._test

    def _on_device(self, images: ImageSet, padding: int) -> ResidentImages:
        return ResidentImages(
            images,
            mean=self.mean,
            std=self.std,
            full_range=self.full_range,
            padding=padding,
            device=self.device,
        )
