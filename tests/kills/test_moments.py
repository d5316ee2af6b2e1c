"""Every named moment is a good one to be killed or stopped at; and a comparison that would notice if not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kills.comparison import assert_as_if_never_killed
from kills.harness import EVERY_EPOCH, EVERY_FILE, EVERY_ROW, EVERY_STEP, Training
from kills.moments import MOMENTS, Kill
from kills.server import Warm
from kills.worlds import SABOTAGE

OVERRIDES = [
    "model=mlp",
    "model.widths=[16]",
    "model.dropout=0.2",
    "optim.bounce_every=5",
    "optim.n_bounces=5",
    "runtime.log_every=2",
    "trainer.max_epochs=3",
]


@pytest.fixture(scope="module")
def whole(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = Training(warm, tmp_path_factory.mktemp("whole"), OVERRIDES)
    training.attempt()
    return training


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_stopped_at_a_moment_is_as_if_neither(
    moment: str, warm: Warm, whole: Training, tmp_path: Path
) -> None:
    often = moment in EVERY_STEP + EVERY_ROW + EVERY_FILE + EVERY_EPOCH
    killed = Training(warm, tmp_path, OVERRIDES)
    killed.attempt("checkpoint.every=0", kill=Kill(moment, 7 if moment in EVERY_STEP else 1, "SIGKILL"))
    killed.attempt("checkpoint.every=0", kill=Kill(moment, 2 if often else 1, "SIGKILL"))
    killed.attempt("checkpoint.every=0", kill=Kill(moment, 1, "SIGTERM"))
    assert killed.killed == 3, killed.report()
    killed.attempt()
    assert_as_if_never_killed(killed, whole)


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_stopped_in_the_very_last_validation_is_as_if_not(
    signal: str, warm: Warm, whole: Training, tmp_path: Path
) -> None:
    killed = Training(warm, tmp_path, OVERRIDES)
    killed.attempt("checkpoint.every=0", kill=Kill("in validation", 3, signal))
    killed.attempt()
    assert_as_if_never_killed(killed, whole)


def test_moment_that_never_comes_changes_nothing(warm: Warm, whole: Training, tmp_path: Path) -> None:
    undisturbed = Training(warm, tmp_path, OVERRIDES)
    undisturbed.attempt(kill=Kill("in forward", 10_000, "SIGTERM"))
    assert undisturbed.killed == 0
    assert_as_if_never_killed(undisturbed, whole)


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_comparison_notices_what_a_resumption_forgets(
    sabotage: str, warm: Warm, whole: Training, tmp_path: Path
) -> None:
    killed = Training(warm, tmp_path, OVERRIDES)
    killed.attempt(kill=Kill("after a row", 3, "SIGTERM"))  # saves
    killed.attempt("checkpoint.every=60", kill=Kill("after a row", 4, "SIGKILL"))  # rows after that
    assert killed.killed == 2, killed.report()
    killed.attempt(world={"sabotage": sabotage})
    with pytest.raises(AssertionError):
        assert_as_if_never_killed(killed, whole)
