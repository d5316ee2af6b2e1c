"""Every number format: ranks agree to the bit, losses are not rounded away, skipped steps move nothing."""

from __future__ import annotations

from typing import Any

import pytest

from training.precision_program import FORMATS, MAKE, POISONED, SCALE, STEPS, WHOLE, run_case
from training.ranks import run_program

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]
WAYS = ("carried", "reduced")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each of two ranks recorded, by "format, way"."""
    return run_program("precision_program.py", 2, tmp_path_factory.mktemp("precision") / "out.pt")


def assert_that_the_skipped_step_moved_nothing(record: dict[str, Any]) -> None:
    skipped, before = POISONED - 1, POISONED - 2
    assert record["scales"][before : skipped + 1] == [SCALE, SCALE / 2]
    assert record["weights"][skipped] == record["weights"][before]
    assert record["digests"][skipped] == record["digests"][before]  # momenta as well
    assert record["numbers"][skipped] == record["numbers"][before]  # energy, clocks, draws
    assert len(set(record["weights"])) == STEPS - 1  # every other step moved them
    assert record["numbers"][-1]["steps"] == STEPS - 1


@pytest.mark.parametrize("name", MAKE)
def test_a_step_that_the_gradient_scaler_skips_moves_nothing(name: str) -> None:
    (record,) = run_case("16-mixed", name, 1, poisoned=True)
    assert_that_the_skipped_step_moved_nothing(record)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_infinite_gradients_on_one_rank_skip_the_step_on_all(results: dict[str, Any], way: str) -> None:
    for record in results[f"poisoned, {way}"]:
        assert_that_the_skipped_step_moved_nothing(record)
    draws = [numbers["draws"] for numbers in results[f"poisoned, {way}"][0]["numbers"]]
    assert draws[-1] > draws[POISONED] > 0  # the trajectory is stirred, but not by a step that is none


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision", FORMATS)
def test_ranks_hold_the_same_bits_after_every_step(results: dict[str, Any], precision: str, way: str) -> None:
    first, second = results[f"{precision}, {way}"]
    assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision", FORMATS)
def test_the_loss_is_the_ranks_mean_to_the_digits_of_float32_in_every_format(
    results: dict[str, Any], precision: str, way: str
) -> None:
    first, second = results[f"{precision}, {way}"]
    means = [(one + other) / 2 for one, other in zip(first["own_losses"], second["own_losses"], strict=True)]
    assert first["losses"] == second["losses"] == pytest.approx(means, rel=2e-7)
    assert means != first["own_losses"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("16-mixed", 2e-3), ("bf16-mixed", 2e-2), ("bf16-true", 5e-2), ("32-true", 1e-5)],
)
def test_two_ranks_follow_one_process_as_far_as_the_format_sees(
    results: dict[str, Any], precision: str, tolerance: float, way: str
) -> None:
    assert WHOLE % 2 == 0
    (one,) = run_case(precision, "BBI", 1)
    two, _ = results[f"{precision}, {way}"]
    assert two["losses"] == pytest.approx(one["losses"], rel=tolerance)
    assert two["numbers"][-1]["bounces"] == one["numbers"][-1]["bounces"] > 0
