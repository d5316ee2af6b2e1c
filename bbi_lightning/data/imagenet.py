"""ImageNet, or any set of image files in one folder per class.

O. Russakovsky et al., "ImageNet large scale visual recognition challenge", IJCV 115 (2015) 211. The
test set's labels were never published, so the official validation images (`val/`) are the test set here
and validation samples are carved from `train/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from bbi_lightning.data.arguments import positive_int
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.data.image_folder import DecodedImages, ImageFolder
from bbi_lightning.data.order import Plan
from bbi_lightning.data.streamed import StreamedBatches


class ImageNetDataModule(ImageDataModule):
    """Image files `<data_dir>/{train,val}/<class>/*.{jpeg,jpg,png}`, decoded on the fly.

    With `augment`, a RandomResizedCrop (8 to 100 % of the area) mirrored half of the time; otherwise,
    and always in evaluation, the short side is resized to 8/7 of `image_size` and the centre cropped.

    Args (besides those of ImageDataModule):
        data_dir: folder that holds `train` and `val`.
        num_classes: class folders there must be in both.
        image_size: side of the images a model sees, in pixels.
        num_workers: decoding processes of each loader on each rank; 0 decodes in the training process.

    Raises:
        FileNotFoundError, ValueError: (`prepare_data`, `setup`) folders are missing, empty or differ.
    """

    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        data_dir: str | Path = "datasets/imagenet",
        num_classes: int = 1000,
        image_size: int = 224,
        num_workers: int = 8,
        batch_size: int = 256,
        eval_batch_size: int = 256,
        val_size: int | float = 10000,
        seed: int = 0,
        split_seed: int = 0,
        augment: bool = True,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
            split_seed=split_seed,
            augment=augment,
        )
        self.data_dir = Path(data_dir)
        self.num_classes = positive_int("data.num_classes", num_classes, minimum=2)
        self.image_size = positive_int("data.image_size", image_size)
        self.num_workers = positive_int("data.num_workers", num_workers, minimum=0)
        self.image_shape = (3, self.image_size, self.image_size)
        self._train: ImageFolder | None = None
        self._test: ImageFolder | None = None

    def prepare_data(self) -> None:
        """List both folders: missing, empty or unlike class folders show before a run starts."""
        train, test = self._list("train"), self._list("val")
        if train.classes != test.classes:
            odd = sorted(set(train.classes) ^ set(test.classes))[0]
            raise ValueError(
                f"{self.data_dir}: the class folder {odd} is in only one of train/ and val/: "
                "give both the same class folders"
            )

    def setup(self, stage: str) -> None:
        """List `train/` for "fit" and "validate", `val/` for "test"; each once."""
        if stage == "test":
            self._test = self._test or self._list("val")
        elif self._train is None:
            self._train = self._list("train")

    def training_labels(self) -> torch.Tensor:
        """Return the class of every training file, shape (n,)."""
        return self._loaded_train().labels

    def training_source(self, plan: Plan, *, augment: bool) -> StreamedBatches:
        """Return batches of the training files that `plan` names."""
        return self._stream(self._loaded_train(), plan, augment=augment)

    def test_samples(self) -> int:
        """Return the number of test files."""
        return len(self._loaded_test())

    def test_source(self, plan: Plan) -> StreamedBatches:
        """Return batches of the test files that `plan` names."""
        return self._stream(self._loaded_test(), plan, augment=False)

    def _loaded_train(self) -> ImageFolder:
        if self._train is None:
            raise RuntimeError('the training set is not loaded: call setup("fit") first')
        return self._train

    def _loaded_test(self) -> ImageFolder:
        if self._test is None:
            raise RuntimeError('the test set is not loaded: call setup("test") first')
        return self._test

    def _list(self, part: str) -> ImageFolder:
        files = ImageFolder(self.data_dir / part)
        if len(files.classes) != self.num_classes:
            raise ValueError(
                f"{files.root} has {len(files.classes)} class folders where data.num_classes="
                f"{self.num_classes}: set data.num_classes to their number or complete the folder"
            )
        return files

    def _stream(self, files: ImageFolder, plan: Plan, *, augment: bool) -> StreamedBatches:
        return StreamedBatches(
            DecodedImages(files, size=self.image_size, seed=self.seed, augment=augment),
            plan,
            mean=self.mean,
            std=self.std,
            num_workers=self.num_workers,
            device=self.device,
        )
