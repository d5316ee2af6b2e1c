"""A run resumed from any checkpoint is given exactly the batches of a run that was never interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from bbi_lightning.data.generated import GeneratedDataModule
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.data.imagenet import ImageNetDataModule

from .conftest import Recorder

# Lightning's own use of torch's tree utilities.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")

MakeTrainer = Callable[..., pl.Trainer]
MakeData = Callable[[], ImageDataModule]
EPOCHS, BATCHES = 3, 4


class CheckpointAt(pl.Callback):
    """Saves at one hook of one global step, then stops the run as an interruption does: by an exception."""

    def __init__(self, hook: str, batches_before: int, path: Path) -> None:
        self.batches_before, self.path, self.saved = batches_before, path, False
        setattr(self, hook, self._save)

    def _save(self, trainer: pl.Trainer, module: Recorder, *_: Any) -> None:
        if len(module.seen) == self.batches_before and not self.saved and not trainer.sanity_checking:
            self.saved = True
            trainer.save_checkpoint(self.path)
            raise InterruptedError


def resident_data() -> ImageDataModule:
    data = GeneratedDataModule(
        image_shape=(3, 8, 8), num_classes=3, train_size=40, val_size=6, batch_size=8, seed=5
    )
    data.crop_padding, data.flip, data.augment = 2, True, True
    return data


def check_resumed_run(
    make_trainer: MakeTrainer, make_data: MakeData, checkpoint: CheckpointAt, **arguments: Any
) -> None:
    arguments = {"max_epochs": EPOCHS, "num_sanity_val_steps": 0} | arguments
    uninterrupted = Recorder()
    make_trainer(**arguments).fit(uninterrupted, datamodule=make_data())

    first, second, data = Recorder(), Recorder(), make_data()
    with pytest.raises(InterruptedError):
        make_trainer(callbacks=[checkpoint], **arguments).fit(first, datamodule=data)
    data.teardown("fit")  # a process that was interrupted takes its workers with it
    make_trainer(**arguments).fit(second, datamodule=make_data(), ckpt_path=checkpoint.path)

    assert len(first.seen) == checkpoint.batches_before
    assert first.seen + second.seen == uninterrupted.seen


@pytest.mark.parametrize("batches_before", range(1, EPOCHS * BATCHES))
def test_from_the_end_of_any_batch(make_trainer, tmp_path, batches_before):
    checkpoint = CheckpointAt("on_train_batch_end", batches_before, tmp_path / "at.ckpt")
    check_resumed_run(make_trainer, resident_data, checkpoint)


@pytest.mark.parametrize("batches_before", [BATCHES, 2 * BATCHES])
@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_start", "on_validation_end"])
def test_from_the_end_of_an_epoch(make_trainer, tmp_path, hook, batches_before):
    checkpoint = CheckpointAt(hook, batches_before, tmp_path / "at.ckpt")
    check_resumed_run(make_trainer, resident_data, checkpoint)


@pytest.mark.parametrize("batches_before", [2, 4, 6])
def test_from_a_validation_in_mid_epoch(make_trainer, tmp_path, batches_before):
    checkpoint = CheckpointAt("on_validation_end", batches_before, tmp_path / "at.ckpt")
    check_resumed_run(make_trainer, resident_data, checkpoint, val_check_interval=2)


@pytest.mark.parametrize("batches_before", range(1, 9))
def test_when_epochs_end_early(make_trainer, tmp_path, batches_before):
    checkpoint = CheckpointAt("on_train_batch_end", batches_before, tmp_path / "at.ckpt")
    check_resumed_run(make_trainer, resident_data, checkpoint, limit_train_batches=3)


@pytest.mark.parametrize("batches_before", [3, 5])
def test_when_the_run_is_measured_in_steps_of_several_batches(make_trainer, tmp_path, batches_before):
    checkpoint = CheckpointAt("on_train_batch_end", batches_before, tmp_path / "at.ckpt")
    steps = {"max_epochs": -1, "max_steps": 5, "accumulate_grad_batches": 2}
    check_resumed_run(make_trainer, resident_data, checkpoint, **steps)


@pytest.mark.parametrize("batches_before", [2, BATCHES, 6])
def test_with_decoding_workers(make_trainer, tmp_path, imagenet_folder, batches_before):
    def make_data() -> ImageDataModule:
        return ImageNetDataModule(
            data_dir=imagenet_folder, num_classes=3, image_size=16, num_workers=2, batch_size=4, val_size=6
        )

    checkpoint = CheckpointAt("on_train_batch_end", batches_before, tmp_path / "at.ckpt")
    check_resumed_run(make_trainer, make_data, checkpoint)


def test_the_state_in_the_checkpoint_is_epoch_and_batches(make_trainer, tmp_path):
    checkpoint = CheckpointAt("on_train_batch_end", BATCHES + 2, tmp_path / "at.ckpt")
    with pytest.raises(InterruptedError):
        make_trainer(callbacks=[checkpoint], max_epochs=2).fit(Recorder(), datamodule=resident_data())
    loops = torch.load(tmp_path / "at.ckpt", weights_only=True)["loops"]
    assert loops["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 1, "batches": 2}]


def test_an_overfitted_run_sees_the_same_batches_in_every_epoch(make_trainer):
    recorder = Recorder()
    make_trainer(max_epochs=2, overfit_batches=2, limit_val_batches=0).fit(
        recorder, datamodule=resident_data()
    )
    assert [batch[2:] for batch in recorder.seen[:2]] == [batch[2:] for batch in recorder.seen[2:]]
