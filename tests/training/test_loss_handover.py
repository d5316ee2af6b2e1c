"""The loss an energy-conserving optimizer is given in Lightning is the one a plain loop would give it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn

from bbi_lightning.training.loss_handover import LossHandover, mean_over_ranks
from training.reference import (
    OPTIMIZERS,
    RecordingBBI,
    bare_trainer,
    batches,
    bbi,
    fit,
    largest_difference,
    loader,
    network,
    plain_loop,
    windows,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accumulate", [1, 4])
def test_float64_run_equals_the_plain_loop_also_in_a_short_last_window(
    optimizer: str, accumulate: int
) -> None:
    data = batches(10)  # windows of 4, 4 and 2
    ours, reference = network(), network()
    losses = plain_loop(reference, OPTIMIZERS[optimizer], windows(data, accumulate, epochs=2))

    used = fit(
        ours,
        OPTIMIZERS[optimizer],
        data,
        epochs=2,
        precision="64-true",
        accumulate_grad_batches=accumulate,
    )

    assert largest_difference(ours, reference) < 1e-15
    if isinstance(used, RecordingBBI):
        assert used.handed == pytest.approx(losses, rel=0, abs=1e-15)


def test_float32_loss_is_summed_without_rounding_of_its_own() -> None:
    data = batches(6, dtype=torch.float32)
    reference = network(torch.float32)
    losses = plain_loop(reference, bbi, windows(data, 3, epochs=1))

    used = fit(network(torch.float32), bbi, data, accumulate_grad_batches=3)

    assert used.handed == pytest.approx(losses, rel=1e-6)


def test_bf16_mixed() -> None:
    data = batches(6, dtype=torch.float32)
    ours, reference = network(torch.float32), network(torch.float32)
    losses = plain_loop(
        reference, bbi, windows(data, 2, epochs=2), lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    )

    used = fit(ours, bbi, data, epochs=2, precision="bf16-mixed", accumulate_grad_batches=2)

    assert used.handed == pytest.approx(losses, rel=1e-5)
    assert largest_difference(ours, reference) < 1e-5


def scaled(scale: float) -> MixedPrecision:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    return MixedPrecision("16-mixed", "cpu", scaler)


def test_gradient_scaler_does_not_scale_the_loss_that_is_handed_over() -> None:
    data = batches(8, dtype=torch.float32)
    ours, reference = network(torch.float32), network(torch.float32)
    losses = plain_loop(
        reference, bbi, windows(data, 3, epochs=2), lambda: torch.autocast("cpu", dtype=torch.float16)
    )

    used = fit(ours, bbi, data, epochs=2, plugins=[scaled(2.0**6)], accumulate_grad_batches=3)

    assert used.handed == pytest.approx(losses, rel=1e-4)  # float16 gradients are rounded at another scale
    assert largest_difference(ours, reference) < 1e-3


def test_step_that_the_gradient_scaler_skips_leaves_no_loss_behind() -> None:
    data = batches(12, dtype=torch.float32)
    model = network(torch.float32)
    first = float(nn.functional.cross_entropy(model(data[0][0]), data[0][1]).detach())

    used = fit(model, bbi, data, plugins=[scaled(2.0**40)])  # infinite gradients until the scale has halved

    # while steps are skipped the parameters rest, and every batch's loss is still the untrained network's
    untrained = network(torch.float32)
    for (images, labels), handed in zip(data[:4], used.handed[:4], strict=True):
        loss = float(nn.functional.cross_entropy(untrained(images), labels).detach())
        assert handed == pytest.approx(loss, rel=1e-2)
    assert used.handed[0] == pytest.approx(first, rel=1e-2)
    assert all(0 < handed < 10 for handed in used.handed)


def test_clipping_changes_no_loss_and_is_warned_about_once() -> None:
    data = batches(4)
    handover = LossHandover()
    module = _Manual(network())
    module.automatic_optimization = True
    seen = []
    for _ in range(2):
        trainer = bare_trainer(precision="64-true", gradient_clip_val=0.1, callbacks=[handover])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(module, loader(data))
        seen += [str(w.message) for w in caught if "changes the dynamics" in str(w.message)]
    assert len(seen) == 1
    assert seen[0].startswith("gradient_clip_val=0.1 changes the dynamics of RecordingBBI")

    reference = network()
    optimizer = bbi(reference.parameters())
    losses = []
    for images, labels in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(reference(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        optimizer.step(loss=loss)
        losses.append(float(loss.detach()))
    assert module.recorded[0].handed == pytest.approx(losses, abs=1e-15)


def test_clipping_is_no_news_for_other_optimizers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")
        warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
        warnings.filterwarnings("ignore", ".*`srun` command is available.*")
        fit(network(), OPTIMIZERS["sgd"], batches(2), precision="64-true", gradient_clip_val=0.1)


class _Manual(pl.LightningModule):
    """Manual optimization of one optimizer; every second batch makes a step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.automatic_optimization = False
        self.recorded: list[RecordingBBI] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.recorded.append(bbi(self.model.parameters()))
        return self.recorded[-1]

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor | None:
        loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        if batch_idx % 2 == 0:
            optimizer.zero_grad()
        self.manual_backward(loss / 2)
        if batch_idx % 2 == 1:
            optimizer.step()
        return None


def test_manual_optimization_hands_over_what_was_given_to_backward_since_the_last_step() -> None:
    data = batches(8)
    module, reference = _Manual(network()), network()
    losses = plain_loop(reference, bbi, windows(data, 2, epochs=1))

    bare_trainer(precision="64-true", callbacks=[LossHandover()]).fit(module, loader(data))

    assert module.recorded[0].handed == pytest.approx(losses, abs=1e-15)
    assert largest_difference(module.model, reference) < 1e-15


class _TwoOptimizers(pl.LightningModule):
    """Two networks with a loss each; the training step says which is whose."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = network(), network()
        self.used: list[RecordingBBI] = []

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        self.used = [bbi(self.first.parameters()), bbi(self.second.parameters())]
        return list(self.used)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        losses = [
            nn.functional.cross_entropy(self.first(images), labels),
            3 * nn.functional.cross_entropy(self.second(images), labels),
        ]
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(losses[0] + losses[1])
        for optimizer, loss in zip(self.optimizers(), losses, strict=True):
            optimizer.step(loss=mean_over_ranks(self.trainer, loss.detach()))


def test_several_optimizers_keep_the_losses_that_the_training_step_passes() -> None:
    data = batches(5)
    module, reference = _TwoOptimizers(), network()
    plain_loop(reference, bbi, windows(data, 1, epochs=1))

    bare_trainer(precision="64-true", callbacks=[LossHandover()]).fit(module, loader(data))

    assert [optimizer.handed for optimizer in module.used] == [[], []]
    assert largest_difference(module.first, reference) < 1e-15
    assert largest_difference(module.second, reference) > 1e-4  # it minimised three times the loss


def test_compiled_model() -> None:
    data = batches(6)
    ours, reference = network(), network()
    losses = plain_loop(reference, bbi, windows(data, 2, epochs=1))
    ours.compile(backend="aot_eager")

    used = fit(ours, bbi, data, precision="64-true", accumulate_grad_batches=2)

    assert used.handed == pytest.approx(losses, abs=1e-14)
    assert largest_difference(ours, reference) < 1e-14


@pytest.mark.slow
def test_two_processes_with_half_batches_equal_one_with_whole_batches(tmp_path: Path) -> None:
    program = Path(__file__).with_name("ddp_program.py")
    results = {}
    for devices in (1, 2):
        out = tmp_path / f"{devices}.pt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(program.parents[1])}
        command = [sys.executable, str(program), str(devices), str(out)]
        subprocess.run(command, check=True, env=environment, timeout=240)
        results[devices] = torch.load(out, weights_only=True)

    for case, (optimizer, accumulate) in json.loads(results[1]["cases"]).items():
        reference = network()
        losses = plain_loop(
            reference, OPTIMIZERS[optimizer], windows(batches(7, size=16), accumulate, epochs=2)
        )
        for devices in (1, 2):
            result = results[devices][case]
            ours = network()
            ours.load_state_dict(result["weights"])
            assert largest_difference(ours, reference) < 1e-15, (case, devices)
            if optimizer == "bbi":
                assert result["losses"] == pytest.approx(losses, abs=1e-15), (case, devices)
    assert results[2]["world_size"] == 2
