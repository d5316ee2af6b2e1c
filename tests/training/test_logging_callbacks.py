"""What is logged, when, and that it is true: training loss, energy, speed, validation metrics."""

from __future__ import annotations

import errno
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from bbi_lightning.tracking.metric_log import MetricLog, read_metrics
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.energy_monitor import EnergyMonitor
from bbi_lightning.training.metric_logger import MetricLogger, log_metrics
from bbi_lightning.training.progress import Progress
from bbi_lightning.training.step_log import DivergedError, StepLog
from bbi_lightning.training.throughput import Throughput
from training.reference import OPTIMIZERS, bare_trainer, batches, bbi, loader, network, plain_loop, windows

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*a loss that is not finite was skipped.*"),
]


class Rows:
    """A metric log in a folder, and what it holds."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.log = MetricLog(self.path)
        self.logger = MetricLogger(self.log)

    def read(self, metric: str) -> dict[int, float]:
        self.logger.write_row()
        return {row["step"]: row[metric] for row in read_metrics(self.path) if metric in row}


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    made = Rows(tmp_path)
    yield made
    made.log.close()


def train(rows: Rows, callbacks: list[Callback], optimizer: Any = bbi, **options: Any) -> pl.Trainer:
    data = options.pop("data", batches(7))
    model = options.pop("model", None) or network()
    module = Classification(model, nn.CrossEntropyLoss(), optimizer, num_classes=3)
    trainer = bare_trainer(
        callbacks=callbacks, logger=rows.logger, log_every_n_steps=1, precision="64-true", **options
    )
    trainer.fit(module, loader(data), options.get("val_dataloaders"))
    return trainer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_loss_is_the_mean_over_the_micro_batches_since_the_last_row(
    rows: Rows, accumulate: int
) -> None:
    micro = []
    for window in windows(batches(7), accumulate, epochs=2):
        micro.append(len(window))
    steps = plain_loop(network(), bbi, windows(batches(7), accumulate, epochs=2))

    train(rows, [StepLog(every=3)], epochs=2, accumulate_grad_batches=accumulate)

    expected, start = {}, 0
    for end in [1, *range(3, len(steps), 3), len(steps)]:
        part = slice(start, end)
        expected[end] = sum(s * m for s, m in zip(steps[part], micro[part], strict=True)) / sum(micro[part])
        start = end
    assert rows.read("train/loss") == pytest.approx(expected, abs=1e-14)


class Poison(nn.Module):
    """A network whose output is NaN in some forward passes."""

    def __init__(self, when: Any) -> None:
        super().__init__()
        self.inner, self.when, self.count = network(), when, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.inner(images) * (math.nan if self.when(self.count) else 1.0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_loss_that_stays_lost_ends_the_run(rows: Rows, optimizer: str) -> None:
    poisoned = Poison(lambda count: count > 15)
    with pytest.raises(DivergedError):
        train(rows, [StepLog(every=5)], OPTIMIZERS[optimizer], model=poisoned, epochs=100)
    assert poisoned.count == 25
    assert math.isnan(rows.read("train/loss")[25])


def test_energy_conserving_optimizer_survives_a_bad_batch_and_sgd_does_not(rows: Rows) -> None:
    train(rows, [StepLog(every=5)], bbi, model=Poison(lambda count: count == 8), epochs=5)
    seen = rows.read("train/loss")
    assert math.isnan(seen[10])
    assert math.isfinite(seen[35])

    with pytest.raises(DivergedError):
        train(rows, [StepLog(every=5)], OPTIMIZERS["sgd"], model=Poison(lambda count: count == 8), epochs=5)


def test_short_run_that_ends_lost_has_diverged(rows: Rows) -> None:
    with pytest.raises(DivergedError):
        train(rows, [StepLog(every=50)], OPTIMIZERS["sgd"], model=Poison(lambda count: True))


def test_energy_is_logged_after_the_first_and_every_kth_step(rows: Rows) -> None:
    train(rows, [EnergyMonitor(every=5)], epochs=2)
    assert list(rows.read("energy/energy")) == [1, 5, 10]
    energies = set(rows.read("energy/energy").values())
    assert len(energies) == 1  # conserved
    for key in (
        "potential",
        "energy_error",
        "momentum_sq",
        "speed_over_limit",
        "bounces",
        "at_floor",
        "skipped",
    ):
        assert f"energy/{key}" in read_metrics(rows.path)[-1]


def test_energy_is_not_computed_between_rows_nor_without_a_logger(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("bbi_lightning.optim.BBI.diagnostics", lambda self: calls.append(1) or {})
    train(rows, [EnergyMonitor(every=7)], epochs=2)
    assert len(calls) == 3  # steps 1, 7 and 14

    module = Classification(network(), nn.CrossEntropyLoss(), bbi, num_classes=3)
    bare_trainer(callbacks=[EnergyMonitor(every=1)], precision="64-true").fit(module, loader(batches(3)))
    assert len(calls) == 3


def test_energy_monitor_passes_over_other_optimizers(rows: Rows) -> None:
    train(rows, [EnergyMonitor(every=1)], OPTIMIZERS["sgd"])
    rows.logger.write_row()
    assert read_metrics(rows.path) == []


def test_accumulated_batches_do_not_repeat_a_row(rows: Rows) -> None:
    callbacks = [StepLog(every=1), EnergyMonitor(every=1), Throughput(every=1)]
    train(rows, callbacks, accumulate_grad_batches=3)
    rows.logger.write_row()
    assert [row["step"] for row in read_metrics(rows.path)] == [1, 2, 3]


class Slow:
    """A loader that takes its time."""

    def __init__(self, data: Any, seconds: float) -> None:
        self.data, self.seconds = data, seconds

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            time.sleep(self.seconds)
            yield batch


class Sleepy(nn.Sequential):
    """A network that takes 5 ms."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.005)
        return super().forward(images)


@pytest.mark.parametrize(("pause", "low", "high"), [(0.05, 0.7, 1.0), (0.0, 0.0, 0.4)])
def test_share_of_time_spent_waiting_for_data(rows: Rows, pause: float, low: float, high: float) -> None:
    module = Classification(Sleepy(network()), nn.CrossEntropyLoss(), bbi, num_classes=3)
    trainer = bare_trainer(
        callbacks=[Throughput(every=10)], logger=rows.logger, log_every_n_steps=1, precision="64-true"
    )
    trainer.fit(module, Slow(batches(10), pause))
    (wait,) = rows.read("speed/data_wait").values()
    (speed,) = rows.read("speed/samples_per_s").values()
    assert low <= wait <= high
    if pause:
        assert speed == pytest.approx(8 / pause * wait, rel=0.2)


def test_validation_time_is_no_training_time(rows: Rows) -> None:
    module = Classification(network(), nn.CrossEntropyLoss(), bbi, num_classes=3)
    trainer = bare_trainer(
        epochs=2,
        callbacks=[Throughput(every=10)],
        logger=rows.logger,
        log_every_n_steps=1,
        precision="64-true",
    )
    trainer.fit(module, loader(batches(5)), Slow(batches(5), 0.1))
    (speed,) = rows.read("speed/samples_per_s").values()
    assert speed > 10 * 8 / 0.4  # one validation alone takes 0.5 s


def test_validation_metrics_are_those_of_all_samples(rows: Rows) -> None:
    uneven = [*batches(2, size=8), *batches(1, size=3)]
    model = network()
    module = Classification(model, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], num_classes=3)
    trainer = bare_trainer(logger=rows.logger, log_every_n_steps=1, precision="64-true")
    trainer.fit(module, loader(batches(4)), Slow(uneven, 0))

    images, labels = (torch.cat(parts) for parts in zip(*uneven, strict=True))
    logits = model(images)
    loss, accuracy = nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).double().mean()
    assert rows.read("val/loss") == {4: pytest.approx(float(loss.detach()), rel=1e-6)}
    assert rows.read("val/acc") == {4: pytest.approx(float(accuracy), rel=1e-6)}
    assert trainer.callback_metrics["val/acc"] == pytest.approx(float(accuracy), rel=1e-6)


def test_validation_loss_of_nan_is_seen(rows: Rows) -> None:
    module = Classification(Poison(lambda count: count == 6), nn.CrossEntropyLoss(), bbi, num_classes=3)
    trainer = bare_trainer(logger=rows.logger, log_every_n_steps=1, precision="64-true")
    trainer.fit(module, loader(batches(4)), Slow(batches(3), 0))
    assert math.isnan(rows.read("val/loss")[4])


def test_what_is_said_about_one_step_becomes_one_row(rows: Rows) -> None:
    rows.logger.log_metrics({"a": 1.0, "epoch": 0}, step=3)
    rows.logger.log_metrics({"b": 2.0, "epoch": 0}, step=3)
    rows.logger.log_metrics({"a": 5.0, "epoch": 1}, step=4)
    rows.logger.log_metrics({"a": 6.0, "epoch": 1}, step=4)  # said again: a row of its own
    rows.logger.write_row()
    stripped = [{k: v for k, v in row.items() if k != "time"} for row in read_metrics(rows.path)]
    assert stripped == [
        {"step": 3, "epoch": 0, "a": 1.0, "b": 2.0},
        {"step": 4, "epoch": 1, "a": 5.0},
        {"step": 4, "epoch": 1, "a": 6.0},
    ]


SAID = [
    (1, {"train/loss": 1.0}),
    (1, {"energy/energy": torch.tensor(3.0), "energy/bounces": 0}),
    (2, {"train/loss": math.nan}),
    (2, {"energy/energy": math.inf}),
    (2, {"val/loss": 0.1 + 0.2}),
    (2, {"val/loss": 7.0}),  # said again
    (3, {"train/loss": 5.0}),
]


def say(logger: MetricLogger, said: list[tuple[int, dict[str, Any]]]) -> None:
    for step, metrics in said:
        logger.log_metrics({**metrics, "epoch": step - 1}, step=step)


def lines(path: Path) -> list[str]:
    return [re.sub(r'"time": [\d.e-]+', "", line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("saved", "killed"), [(i, k) for k in range(len(SAID) + 1) for i in range(k + 1)], ids=str
)
def test_saved_killed_and_resumed_anywhere_the_log_is_that_of_the_uninterrupted_run(
    tmp_path: Path, saved: int, killed: int
) -> None:
    with MetricLog(tmp_path / "whole.jsonl") as log:
        whole = MetricLogger(log)
        say(whole, SAID)
        whole.finalize("success")

    path = tmp_path / "parts.jsonl"
    with MetricLog(path) as log:
        first = MetricLogger(log)
        say(first, SAID[:saved])
        state = round_trip(first.state(), tmp_path)
        say(first, SAID[saved:killed])
        if killed % 2:
            first.finalize("failed")  # an exception; a SIGKILL leaves no time for it
    with MetricLog(path) as log:
        second = MetricLogger(log)
        second.restore(state)
        say(second, SAID[saved:])
        second.finalize("success")
    assert lines(path) == lines(tmp_path / "whole.jsonl")


def round_trip(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As a checkpoint does it."""
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


def test_run_that_starts_from_the_beginning_keeps_no_row(rows: Rows) -> None:
    say(rows.logger, SAID)
    rows.logger.restore(None)
    say(rows.logger, SAID[-1:])
    assert rows.read("train/loss") == {3: 5.0}


def test_rows_that_a_full_disk_has_not_taken_travel_in_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    first = MetricLogger(log)
    monkeypatch.setattr(log, "_write", refuse)
    with pytest.warns(UserWarning, match="takes no more rows"):
        say(first, SAID)
    state = round_trip(first.state(), tmp_path)
    with pytest.warns(UserWarning, match="lacks its last 3 rows"):
        log.close()
    assert path.read_bytes() == b""

    with MetricLog(path) as log:
        second = MetricLogger(log)
        second.restore(state)
        second.write_row()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 2, 3]


def refuse(line: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_rows_that_the_checkpoint_has_seen_and_the_disk_lost_are_told(rows: Rows) -> None:
    say(rows.logger, SAID)
    state = rows.logger.state()
    rows.log.cut_to(1)
    with pytest.warns(UserWarning, match="2 rows fewer than the checkpoint has seen"):
        rows.logger.restore(state)


def test_progress_lines_tell_step_loss_rate_and_time_left(
    rows: Rows, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bbi_lightning.training.progress._FIRST_LINE", 0.0)
    log = StepLog(every=1)
    progress = Progress(log, "lines")
    progress.total_steps = 14
    train(rows, [log, progress], epochs=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/14 · epoch 1 · loss ")
    assert " steps/s · 0:0" in lines[0]
    assert lines[-1].startswith("step 14/14 · epoch 2 · loss ")
    assert "took 0:0" in lines[-1]


def test_progress_none_says_nothing(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    train(rows, [Progress(StepLog(), "none")])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("callback", [StepLog, EnergyMonitor, Throughput])
def test_interval_below_one_is_refused(callback: Any) -> None:
    with pytest.raises(ValueError, match="every=0 is too small"):
        callback(every=0)


def test_metrics_go_to_every_logger_with_step_and_epoch(rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Rows(tmp_path / "other")
    trainer = bare_trainer(logger=[rows.logger, other.logger])
    log_metrics(trainer, {"x": 1.5})
    assert rows.read("x") == other.read("x") == {0: 1.5}
    other.log.close()
