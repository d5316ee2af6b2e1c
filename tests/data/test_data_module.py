"""What holds for every data module: contract, arguments, the untouched test set, several ranks."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from bbi_lightning.data.digits import DigitsDataModule
from bbi_lightning.data.generated import GeneratedDataModule
from bbi_lightning.data.image_data_module import ImageDataModule
from bbi_lightning.data.mnist import MNISTDataModule

from .conftest import Recorder

# Lightning's own use of torch's tree utilities.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


def load(path):
    """The target and its arguments, as a run with seed 3 gets them."""
    config = OmegaConf.create({"seed": 3, "data": OmegaConf.load(path)})
    arguments = OmegaConf.to_container(config.data, resolve=True)
    module, _, name = arguments.pop("_target_").rpartition(".")
    return getattr(import_module(module), name), arguments


def test_every_data_module_has_a_config():
    assert {path.stem for path in CONFIGS} == {
        "cifar10", "cifar100", "digits", "generated", "imagenet", "mnist",
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
class TestEveryConfig:
    def test_names_exactly_the_constructors_arguments_which_are_keyword_only(self, path):
        target, arguments = load(path)
        parameters = inspect.signature(target).parameters
        assert set(arguments) == set(parameters)
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())

    def test_states_the_constructors_defaults(self, path):
        target, arguments = load(path)
        for name, parameter in inspect.signature(target).parameters.items():
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            assert arguments[name] == (3 if name == "seed" else default)

    def test_makes_a_module_that_knows_its_shape_before_reading_anything(self, path):
        target, arguments = load(path)
        data = target(**arguments)
        assert isinstance(data, ImageDataModule)
        assert data.seed == 3
        assert isinstance(data.image_shape, tuple)
        assert len(data.image_shape) == 3
        assert all(type(size) is int for size in (*data.image_shape, data.num_classes))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"batch_size": 0}, r"data\.batch_size=0 is not an integer of at least 1"),
        ({"batch_size": 6.5}, r"data\.batch_size=6\.5 "),
        ({"eval_batch_size": True}, r"data\.eval_batch_size=True "),
        ({"seed": -1}, r"data\.seed=-1 is not an integer of at least 0"),
        ({"split_seed": -1}, r"data\.split_seed=-1 "),
        ({"val_size": -1}, r"data\.val_size=-1 is neither a count"),
        ({"val_size": 1.0}, r"data\.val_size=1\.0 is neither a count"),
        ({"val_size": True}, r"data\.val_size=True "),
        ({"val_size": float("nan")}, r"data\.val_size=nan "),
    ],
)
def test_bad_arguments_are_named_at_once(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        DigitsDataModule(**arguments)


def test_a_validation_set_that_leaves_nothing_to_train_on_is_refused():
    data = DigitsDataModule(val_size=1437)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"data\.val_size=1437 leaves none of the 1437 training samples"):
        data.train_dataloader()


@pytest.mark.parametrize(("val_size", "expected"), [(0.25, 359), (100, 100)])
def test_the_validation_set_may_be_a_fraction_or_a_count(val_size, expected):
    data = DigitsDataModule(val_size=val_size)
    data.setup("fit")
    assert len(data.split()[1]) == expected


def test_loaders_before_setup_say_what_to_call():
    with pytest.raises(RuntimeError, match=r'call setup\("fit"\) first'):
        DigitsDataModule().train_dataloader()
    with pytest.raises(RuntimeError, match=r'call setup\("test"\) first'):
        DigitsDataModule().test_dataloader()


def test_an_epoch_does_not_touch_the_global_generator(global_random_state_is_untouched):
    data = DigitsDataModule(augment=True)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass
    for _ in data.val_dataloader():
        pass


def test_validation_images_are_not_augmented_when_training_images_are():
    plain, augmented = (DigitsDataModule(augment=augment) for augment in (False, True))
    for data in (plain, augmented):
        data.setup("fit")
    assert torch.equal(next(iter(plain.val_dataloader()))[0], next(iter(augmented.val_dataloader()))[0])
    assert not torch.equal(
        next(iter(plain.train_dataloader()))[0], next(iter(augmented.train_dataloader()))[0]
    )


def test_fitting_and_validating_never_touch_the_test_set(make_trainer, mnist_folder, monkeypatch):
    data = MNISTDataModule(data_dir=mnist_folder, val_size=20, batch_size=10)
    read_test = data.read_test
    data.prepare_data()
    for file in (mnist_folder / "MNIST" / "raw").glob("t10k*"):
        file.unlink()
    monkeypatch.setattr(data, "prepare_data", lambda: None)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(Recorder(), datamodule=data)
    trainer.validate(Recorder(), datamodule=data, verbose=False)
    with pytest.raises(FileNotFoundError):
        read_test()


def test_every_sample_is_evaluated_once(make_trainer):
    recorder, data = Recorder(), DigitsDataModule(eval_batch_size=100)
    trainer = make_trainer()
    trainer.validate(recorder, datamodule=data, verbose=False)
    assert sum(recorder.evaluated) == 280
    recorder.evaluated.clear()
    trainer.test(recorder, datamodule=data, verbose=False)
    assert sum(recorder.evaluated) == 360


def test_without_a_validation_set_lightning_does_not_validate(make_trainer):
    recorder = Recorder()
    with pytest.warns(UserWarning, match="Please make sure this was your intention"):
        make_trainer(max_epochs=1).fit(recorder, datamodule=DigitsDataModule(val_size=0))
    assert recorder.evaluated == []
    assert len(recorder.seen) == 1437 // 64


def test_the_ranks_of_a_trainer_are_given_their_shares():
    """Training: batch k of all ranks together is batch k of a single process, views included.

    Evaluation: the batches of a single process are dealt out whole.
    """

    def loaders(rank, world_size):
        data = GeneratedDataModule(
            image_shape=(1, 4, 4), train_size=50, val_size=17, batch_size=8, eval_batch_size=3
        )
        data.crop_padding, data.flip, data.augment = 1, True, True
        data.trainer = SimpleNamespace(
            global_rank=rank,
            world_size=world_size,
            overfit_batches=0,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        data.setup("fit")
        return list(data.train_dataloader()), list(data.val_dataloader())

    whole = loaders(0, 1)
    shares = [loaders(rank, 4) for rank in range(4)]
    ranks = [share[0] for share in shares]
    assert all(len(rank) == len(whole[0]) for rank in ranks)
    for number, (images, labels) in enumerate(whole[0]):
        assert torch.equal(images, torch.cat([rank[number][0] for rank in ranks]))
        assert torch.equal(labels, torch.cat([rank[number][1] for rank in ranks]))

    assert len(whole[1]) == 6
    assert [[len(labels) for _, labels in share[1]] for share in shares] == [[3, 3], [3, 2], [3, 0], [3, 0]]
    for number, (images, labels) in enumerate(whole[1]):
        own = shares[number % 4][1][number // 4]
        assert torch.equal(images, own[0])
        assert torch.equal(labels, own[1])


class RankRecorder(Recorder):
    """Leaves what each rank has seen in a file."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        path = self.folder / f"rank{self.global_rank}of{self.trainer.world_size}.json"
        path.write_text(json.dumps({"seen": self.seen, "evaluated": self.evaluated}))


def test_two_real_processes_share_the_batches_of_one(make_trainer, tmp_path):
    data = {"image_shape": (1, 4, 4), "train_size": 40, "val_size": 7, "batch_size": 8, "eval_batch_size": 4}
    for arguments in ({"devices": 1}, {"devices": 2, "strategy": "ddp_fork"}):
        trainer: pl.Trainer = make_trainer(max_epochs=2, num_sanity_val_steps=0, **arguments)
        trainer.fit(RankRecorder(tmp_path), datamodule=GeneratedDataModule(**data))

    names = ("rank0of1", "rank0of2", "rank1of2")
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    assert sum(one["evaluated"]) == sum(first["evaluated"] + second["evaluated"]) == 2 * 7
    for whole, left, right in zip(one["seen"], first["seen"], second["seen"], strict=True):
        assert whole[2] == left[2] + right[2]
        assert whole[3] == pytest.approx(left[3] + right[3], rel=1e-12)
