"""The baselines train, stop, resume and are judged through the run that everyone uses."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from bbi_lightning.baselines.sam import SAM
from bbi_lightning.baselines.schedule_free import ScheduleFreeSGD
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.baseline_passes import BaselinePasses, calibrate
from bbi_lightning.training.checkpointing import opened
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.config import compose, validate
from bbi_lightning.training.loss_handover import LossHandover
from bbi_lightning.training.run import train

BASELINES = ("schedule_free_adamw", "schedule_free_sgd", "muon", "sam")


def trained(root: Path, optim: str, *more: str) -> RunFolder:
    """Two epochs; three batches to validate, four to test; a checkpoint at every step."""
    return train(
        compose([
            f"optim={optim}", "tracking=none", "runtime.progress=none", "runtime.threads=1",
            "runtime.accelerator=cpu", "runtime.log_every=4", "trainer.max_epochs=2", "model.dropout=0.1",
            "data.eval_batch_size=100", "checkpoint.every=0", f"runtime.root={root}", *more,
        ])
    )  # fmt: skip


def history(folder: RunFolder) -> list[dict[str, Any]]:
    """Every row without what a clock measured."""
    return [
        {name: None if name == "time" or name.startswith("speed/") else value for name, value in row.items()}
        for row in read_metrics(folder.metrics_file)
    ]


def final(folder: RunFolder) -> dict[str, Any]:
    checkpoint, _ = CheckpointStore(folder.checkpoints, folder.name).newest_valid()
    assert checkpoint is not None
    return opened(checkpoint.path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    return {optim: trained(tmp_path_factory.mktemp(optim), optim) for optim in BASELINES}


@pytest.mark.parametrize("optim", BASELINES)
@pytest.mark.parametrize(
    ("hook", "call"),
    [("training_step", 7), ("training_step", 19), ("validation_step", 2), ("validation_step", 4),
     ("test_step", 2)],
)  # fmt: skip
def test_stopped_anywhere_it_goes_on_bit_for_bit(
    optim: str,
    hook: str,
    call: int,
    whole: dict[str, RunFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, calls = getattr(Classification, hook), [0]

    def stopping(self: Classification, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, hook, stopping)
        assert trained(tmp_path, optim).record.state == "interrupted"
    folder = trained(tmp_path, optim)
    assert folder.record.state == "finished"
    assert history(folder) == history(whole[optim])
    expected, found = final(whole[optim]), final(folder)
    for name, weight in expected["state_dict"].items():
        assert torch.equal(weight, found["state_dict"][name]), name
    for index, state in expected["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(
                found["optimizer_states"][0]["state"][index][name])), (index, name)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("optim", BASELINES)
def test_they_learn_the_digits(optim: str, tmp_path: Path) -> None:
    folder = trained(tmp_path, optim, "trainer.max_epochs=15", "checkpoint.every=60", "model.dropout=0")
    assert folder.record.summary["test/acc"] > 0.96


@pytest.mark.parametrize("optim", ["schedule_free_adamw", "schedule_free_sgd"])
def test_a_checkpoint_holds_the_weights_that_were_judged(optim: str, whole: dict[str, RunFolder]) -> None:
    """Its weights, loaded into a bare model, have the very test loss that the run reports."""
    from bbi_lightning.training.config import checked

    config = checked(compose(["data.eval_batch_size=100", "model.dropout=0.1"]))
    data = config.data.build()
    data.setup("test")
    model = config.model.build(image_shape=data.image_shape, num_classes=data.num_classes)
    weights = final(whole[optim])["state_dict"]
    model.load_state_dict({k.removeprefix("model."): v for k, v in weights.items()})
    model.eval()
    hits = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in data.test_dataloader())
    assert hits / data.test_samples() == whole[optim].record.summary["test/acc"]


def test_a_saved_schedule_free_run_holds_both_sets_of_weights(whole: dict[str, RunFolder]) -> None:
    saved = final(whole["schedule_free_sgd"])
    group, state = saved["optimizer_states"][0]["param_groups"][0], saved["optimizer_states"][0]["state"]
    names = [name for name in saved["state_dict"] if name.endswith(("weight", "bias"))]
    for index, name in zip(group["params"], names, strict=True):
        x, y, z = saved["state_dict"][name], state[index]["y"], state[index]["z"]
        torch.testing.assert_close(y, 0.1 * z + 0.9 * x, rtol=1e-4, atol=1e-5)
        assert not torch.equal(x, y)


class Net(pl.LightningModule):
    """Somebody's own module, which knows nothing of us."""

    def __init__(self, optimizer: Any, *, norm: bool = True) -> None:
        super().__init__()
        self.make = optimizer
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8) if norm else nn.ReLU(), nn.Linear(8, 1))
        self.seen: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = (self(batch[0]) - batch[1]).square().mean()
        self.seen.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())


def loader(batches: int = 6) -> torch.utils.data.DataLoader[Any]:
    x = torch.randn(8 * batches, 3, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    return torch.utils.data.DataLoader(data, batch_size=8)


def fit(module: pl.LightningModule, *callbacks: Any, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "accelerator": "cpu",
    } | options  # fmt: skip
    trainer = pl.Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, loader(), loader(2))
    return trainer


IGNORED = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


@IGNORED
def test_sam_counts_a_batch_once_and_reports_the_first_loss() -> None:
    handover, logged = LossHandover(), []

    class Keep(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            logged.append(handover.newest.value)

    module = Net(lambda p: SAM(p, lr=0.01))
    fit(module, BaselinePasses(), handover, Keep(), num_sanity_val_steps=0)
    assert len(module.seen) == 12
    assert logged == pytest.approx(module.seen[::2])
    assert module.seen[1::2] > module.seen[::2]  # the second pass is uphill
    assert int(module.net[1].num_batches_tracked) == 6


@IGNORED
@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}])
def test_sam_refuses_what_its_second_pass_cannot_see(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="accumulate_grad_batches=2 is too many for SAM"):
        fit(Net(lambda p: SAM(p, lr=0.01)), BaselinePasses(), LossHandover(), **options)


@IGNORED
def test_validating_leaves_no_trace_in_schedule_free_training() -> None:
    weights = []
    for validations in (0, 2):
        torch.manual_seed(0)
        module = Net(lambda p: ScheduleFreeSGD(p, lr=0.1))
        fit(module, BaselinePasses(), max_epochs=3, limit_val_batches=validations)
        weights.append([p.detach().clone() for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@IGNORED
def test_the_statistics_after_training_are_those_of_the_weights_that_are_there() -> None:
    module = Net(lambda p: ScheduleFreeSGD(p, lr=0.3))
    fit(module, BaselinePasses(calibration=6))
    inputs = torch.cat([x for x, _ in loader()])
    hidden = module.net[0](inputs)
    torch.testing.assert_close(module.net[1].running_mean, hidden.mean(0).detach(), rtol=1e-4, atol=1e-5)
    assert module.net[1].momentum == 0.1


def test_calibrating_draws_no_random_numbers_and_keeps_modes() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    net[1].eval()
    before = torch.get_rng_state()
    calibrate(net, [(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), None)])
    assert torch.equal(before, torch.get_rng_state())
    assert [m.training for m in net] == [True, False, True]


def test_without_batch_normalisation_no_batch_is_read() -> None:
    calibrate(nn.Linear(2, 2), iter(lambda: pytest.fail("read a batch"), None))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim=sam", "trainer.accumulate_grad_batches=2"], "accumulate_grad_batches=2 is too many for SAM"),
        (["optim=sam", "trainer.precision=16-mixed", "runtime.accelerator=auto"], "16-mixed has no closure"),
        (["optim=schedule_free_sgd", "runtime.strategy=fsdp"], "fsdp shards parameters"),
    ],
)
def test_contradictions_are_found_before_anything_runs(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        validate(compose(["tracking=none", *overrides]))


@pytest.mark.parametrize("optim", BASELINES)
@pytest.mark.parametrize("take", ["weights", "weights_and_optimizer"])
def test_another_run_can_begin_where_one_ended(
    optim: str, take: str, whole: dict[str, RunFolder], tmp_path: Path
) -> None:
    start = ["start=checkpoint", f"start.checkpoint={whole[optim].path}", f"start.take={take}"]
    more = trained(tmp_path, optim, *start, "trainer.max_epochs=1").record
    assert more.state == "finished"
    fresh = next(row for row in read_metrics(whole[optim].metrics_file) if "val/loss" in row)
    assert more.summary["val/loss"] < fresh["val/loss"]


@IGNORED
def test_statistics_that_cannot_be_recomputed_are_refused() -> None:
    class WithoutForward(Net):
        forward = pl.LightningModule.forward

    with pytest.raises(ValueError, match=r"no forward\(inputs\)"):
        fit(WithoutForward(lambda p: ScheduleFreeSGD(p, lr=0.1)), BaselinePasses())
    fit(Net(lambda p: ScheduleFreeSGD(p, lr=0.1), norm=False), BaselinePasses())
