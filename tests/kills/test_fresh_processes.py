"""The same with processes as a user has them: fresh interpreters, killed from outside at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from kills.comparison import assert_as_if_never_killed
from kills.harness import LEAVES_WITHIN, SIGNALS, Training
from kills.moments import Kill
from kills.server import Fresh, Warm

SMALL = ["model=mlp", "model.widths=[16]", "model.dropout=0.2", "runtime.log_every=5"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_signals_from_outside_at_any_moment_leave_no_trace(warm: Warm, tmp_path: Path) -> None:
    """From the first line of Python, through imports and training, to the end."""
    overrides = [*SMALL, "optim.bounce_every=20", "trainer.max_epochs=60"]
    whole = Training(warm, tmp_path / "whole", overrides)
    whole.attempt()
    dice = random.Random(5)
    killed = Training(Fresh(), tmp_path / "killed", overrides)
    for name in dice.sample(SIGNALS, len(SIGNALS)):
        delay = dice.uniform(0.3, 8.0)
        (process,) = killed.start("checkpoint.every=0.1")
        time.sleep(delay)
        if process.poll() is None:
            os.kill(process.pid, signal.Signals[name])
        (code,) = killed.finish([process])
        killed.history.append(f"{name} after {delay:.2f} s: {code}")
        number = signal.Signals[name]
        # in the first instant nobody listens yet, and Python dies of the signal
        assert code in (-number, 128 + number, 0), killed.report()
    if not killed.finished:
        killed.attempt()
    assert_as_if_never_killed(killed, whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lost_rank_ends_the_others_and_is_named(warm: Warm, tmp_path: Path) -> None:
    """Two ranks by `bbi train runtime.devices=2`: one is killed, one is asked to stop, both go on."""
    overrides = [*SMALL, "trainer.max_epochs=4"]
    whole = Training(warm, tmp_path / "whole", overrides, ranks=2)
    whole.attempt()
    killed = Training(Fresh(), tmp_path / "killed", overrides, ranks=2, started_by_lightning=True)
    kill = Kill("in backward", 20, "SIGKILL", rank=1)
    (process,) = killed.start("checkpoint.every=0", kill=kill)
    (code,) = killed.finish([process])
    killed.history.append(f"{kill}: {code}")
    assert code not in (0, -signal.SIGKILL), killed.report()
    record = killed.folder.record
    assert (record.state, record.attempts[-1].reason) == ("failed", "rank 1 was killed (SIGKILL)")
    began = record.attempts[-1].started
    assert record.attempts[-1].ended is not None
    assert seconds_between(began, record.attempts[-1].ended) < LEAVES_WITHIN

    killed.attempt("checkpoint.every=0", kill=Kill("in forward", 9, "SIGUSR1", rank=0))
    killed.attempt()
    assert_as_if_never_killed(killed, whole)


def seconds_between(one: str, other: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()
