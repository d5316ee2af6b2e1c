"""What is measured on a data set depends neither on the order of its samples nor on the number of ranks."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bbi_lightning.training.evaluation import Totals, exact_sum, losses_of
from training import evaluation_program

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]

TESTS = Path(__file__).parents[1]
CASES = [
    (samples, batch, precision)
    for samples in evaluation_program.SAMPLES
    for batch in evaluation_program.BATCHES
    for precision in evaluation_program.PRECISIONS
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[Any, Any]]:
    """What 1, 2 and 3 real processes have measured."""
    folder = tmp_path_factory.mktemp("measured")
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    results = {}
    for devices in (1, 2, 3):
        out = folder / f"{devices}.pt"
        subprocess.run(
            [sys.executable, evaluation_program.__file__, str(devices), str(out)],
            env=environment, cwd=TESTS.parent, check=True, timeout=240, capture_output=True,
        )  # fmt: skip
        results[devices] = torch.load(out, weights_only=True)
    return results


@pytest.mark.parametrize("devices", [2, 3])
def test_several_processes_measure_what_one_does_to_the_last_bit(
    measured: dict[int, dict[Any, Any]], devices: int
) -> None:
    for case in CASES:
        assert measured[devices][case] == measured[1][case], case


@pytest.mark.parametrize("precision", evaluation_program.PRECISIONS)
@pytest.mark.parametrize("samples", evaluation_program.SAMPLES)
def test_the_size_of_a_batch_changes_no_hit_and_the_loss_by_rounding_only(
    measured: dict[int, dict[Any, Any]], samples: int, precision: str
) -> None:
    all_sizes = [measured[1][samples, batch, precision] for batch in evaluation_program.BATCHES]
    assert len({metrics["val/acc"] for metrics in all_sizes}) == 1
    losses = [metrics["val/loss"] for metrics in all_sizes]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-14 if precision == "64-true" else 1e-6)


def test_accuracy_is_a_count_over_a_count(measured: dict[int, dict[Any, Any]]) -> None:
    accuracy = measured[3][103, 7, "32-true"]["val/acc"]
    hits = round(accuracy * 103)
    assert 0 < hits < 103
    assert accuracy == hits / 103


@pytest.mark.parametrize("devices", [2, 3])
def test_all_ranks_evaluate_with_the_running_statistics_that_are_saved(
    measured: dict[int, dict[Any, Any]], devices: int
) -> None:
    result = measured[devices]["normalised"]
    assert not torch.equal(result["running_means"][0], result["running_means"][1])
    assert evaluation_program.tested(result["saved"])["test/loss"] == result["metrics"]["test/loss"]


def some_values(count: int) -> list[float]:
    numbers = random.Random(3)
    return [numbers.gauss(0, 1) * 10 ** numbers.uniform(-20, 20) for _ in range(count)]


def test_the_sum_is_the_exact_one_rounded_once_in_any_order() -> None:
    values = some_values(997)
    exact = float(sum(map(Fraction, values)))
    assert sum(values) != exact  # a plain sum would not do
    for seed in range(20):
        random.Random(seed).shuffle(values)
        assert exact_sum(values) == exact


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, math.nan, 2.0], math.nan),
        ([1.0, math.inf, 2.0], math.inf),
        ([-math.inf, 1.0], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.inf, math.nan], math.nan),
        ([1.7e308, 1.7e308, 1.7e308], math.inf),
    ],
)
def test_what_is_not_finite_stays_so(values: list[float], expected: float) -> None:
    assert exact_sum(values) == pytest.approx(expected, nan_ok=True)


def some_batch(count: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = 4 * torch.randn(count, 7, generator=generator)
    return logits.to(dtype), torch.randint(0, 7, (count,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_any_partition_of_the_same_logits_gives_the_same_bits(dtype: torch.dtype) -> None:
    logits, labels = some_batch(101, dtype)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    results = set()
    for size in (1, 7, 13, 101):
        totals = Totals()
        for part in torch.randperm(101, generator=torch.Generator().manual_seed(size)).split(size):
            totals.add(loss, logits[part], labels[part])
        results.add(tuple(totals.means().items()))
    assert len(results) == 1
    means = dict(results.pop())
    assert means["loss"] == pytest.approx(float(loss(logits.double(), labels)), rel=1e-6)
    assert means["acc"] == int((logits.argmax(1) == labels).sum()) / 101


def test_a_batch_without_labels_counts_for_nothing_and_no_batch_is_nan() -> None:
    logits, labels = some_batch(5)
    with_it, without = Totals(), Totals()
    for totals in (with_it, without):
        totals.add(nn.CrossEntropyLoss(), logits, labels)
    with_it.add(nn.CrossEntropyLoss(), logits[:1], labels[:0])
    assert with_it.means() == without.means()
    assert all(math.isnan(value) for value in Totals().means().values())


class Doubled(nn.Module):
    """A loss of somebody's own."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return 2 * nn.functional.cross_entropy(logits, labels)


class DoubledMean(nn.CrossEntropyLoss):
    """Derived from torch's, and deaf to `reduction`."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return 2 * nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("loss", "terms"),
    [
        (nn.CrossEntropyLoss(), 11),
        (nn.CrossEntropyLoss(label_smoothing=0.2), 11),
        (nn.MultiMarginLoss(), 11),
        (nn.CrossEntropyLoss(weight=torch.arange(7.0)), 1),  # its mean is a weighted one
        (nn.CrossEntropyLoss(ignore_index=0), 1),
        (nn.CrossEntropyLoss(reduction="sum"), 1),
        (Doubled(), 1),
        (DoubledMean(), 1),
    ],
)
def test_the_terms_of_any_loss_add_up_to_it(loss: nn.Module, terms: int) -> None:
    logits, labels = some_batch(11)
    each = losses_of(loss, logits, labels)
    assert each.shape == (terms,)
    assert each.dtype == torch.float64
    assert float(each.sum()) == pytest.approx(11 * float(loss(logits, labels)), rel=1e-6)


def test_half_precision_logits_do_not_make_a_loss_of_three_digits() -> None:
    logits, labels = some_batch(11, torch.bfloat16)
    expected = nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    assert torch.allclose(losses_of(nn.CrossEntropyLoss(), logits, labels), expected, rtol=1e-5)
