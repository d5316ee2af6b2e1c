"""The time limit is the nearer of the user's and SLURM's, and a run notices it in time."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.training import interrupts, time_limit
from bbi_lightning.training.options import RuntimeOptions
from bbi_lightning.training.time_limit import TimeLimit, seconds_of


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(interrupts, "_since", None)


def in_slurm(monkeypatch: pytest.MonkeyPatch, folder: Path, squeue: str | None) -> None:
    """Job 17, where `squeue` is this shell script; None for none at all."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(folder))
    if squeue is not None:
        program = folder / "squeue"
        program.write_text(f"#!/bin/sh\n{squeue}\n")
        program.chmod(0o755)


def left(limit: TimeLimit | None) -> float:
    assert limit is not None
    return limit.remaining()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("1e3", 1000),
        ("00:00:01", 1),
        ("1:30:00", 5400),
        (" 01:30:05 ", 5405),
        ("100:00:00", 360_000),
        ("1-00:00:00", 86_400),
        ("7-23:59:59", 8 * 86_400 - 1),
    ],
)
def test_durations_are_read(text: float | str, seconds: float):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *(0, -1, "", "soon", "1:30", "00:00:00", "1:60:00", "1:00:60", "1-24:00:00", "1-1:00", "1h", "nan"),
        *("inf", float("nan"), float("inf"), True, "-1:00:00", "1:00:00.5"),
    ],
)
def test_what_is_no_duration_is_refused_in_a_sentence(text: float | str):
    with pytest.raises(ValueError, match=r"^runtime.max_time=.* is no duration: give seconds above 0, or"):
        seconds_of(text)


@given(st.integers(1, 10**7))
def test_a_clock_and_its_seconds_are_the_same(seconds: int):
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    assert seconds_of(f"{days}-{h:02}:{m:02}:{s:02}") == seconds_of(str(seconds)) == seconds
    if hours < 10_000:
        assert seconds_of(f"{hours}:{m}:{s}") == seconds


def test_a_config_with_a_limit_that_is_no_duration_is_refused():
    with pytest.raises(ValueError, match="max_time=soon is no duration"):
        RuntimeOptions(max_time="soon")


def test_there_may_be_no_limit():
    assert TimeLimit.known(None) is None


def test_the_time_runs_from_the_beginning_of_the_attempt(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupts, "_since", time.monotonic() - 40)
    assert left(TimeLimit.known("00:01:40")) == pytest.approx(60, abs=2)
    monkeypatch.setattr(interrupts, "_since", None)
    assert left(TimeLimit.known(100)) == pytest.approx(100, abs=2)


def test_slurm_says_when_the_job_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    in_slurm(monkeypatch, tmp_path, "exit 1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 300))
    assert left(TimeLimit.known(None)) == pytest.approx(300, abs=2)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [("1-02:03:04", 93_784), ("2:03:04", 7384), ("05:06", 306), ("0:30", 30), ("  10:00  ", 600)],
)
def test_slurm_is_asked_where_the_environment_is_silent(
    answer: str, seconds: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    in_slurm(monkeypatch, tmp_path, f'[ "$*" = "--noheader --jobs 17 --format %L" ] && echo "{answer}"')
    assert left(TimeLimit.known(None)) == pytest.approx(seconds, abs=2)


def test_an_end_that_is_over_belongs_to_another_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    in_slurm(monkeypatch, tmp_path, "echo 10:00")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) - 300))
    assert left(TimeLimit.known(None)) == pytest.approx(600, abs=2)


@pytest.mark.parametrize(
    "squeue",
    [
        *(
            None,
            "exit 1",
            "echo UNLIMITED",
            "echo NOT_SET",
            "echo INVALID",
            "echo",
            "echo 1:2:3:4",
            "echo a:b",
        ),
        *("echo slurm_load_jobs error >&2; exit 1", "echo 10:00; echo 20:00", "kill -9 $$"),
    ],
)
def test_a_slurm_that_does_not_say_is_no_error(
    squeue: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    in_slurm(monkeypatch, tmp_path, squeue)
    assert TimeLimit.known(None) is None
    assert left(TimeLimit.known(100)) == pytest.approx(100, abs=2)


def test_a_slurm_that_hangs_is_waited_for_a_while_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    in_slurm(monkeypatch, tmp_path, "exec /bin/sleep 60")
    monkeypatch.setattr(time_limit, "_ASKING", 0.5)
    started = time.monotonic()
    assert TimeLimit.known(None) is None
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("mine", "slurm"), [(100, "1:00:00"), ("01:00:00", "1:40")])
def test_the_nearer_limit_holds(
    mine: float | str, slurm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    in_slurm(monkeypatch, tmp_path, f"echo {slurm}")
    assert left(TimeLimit.known(mine)) == pytest.approx(100, abs=2)


def test_the_computers_clock_may_be_set_meanwhile(monkeypatch: pytest.MonkeyPatch):
    limit = TimeLimit.known(100)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert left(limit) == pytest.approx(100, abs=2)


@given(
    total=st.floats(1, 1e5),
    step=st.floats(0.001, 0.1),
    save=st.floats(0, 0.3),
    noise=st.lists(st.floats(1, 1.9), min_size=1, max_size=5),
)
def test_a_run_that_asks_at_every_boundary_has_saved_before_the_end(
    total: float, step: float, save: float, noise: list[float]
):
    """Steps and saves take up to twice what they are expected to; given as shares of the whole time."""
    step, save, now = total * step, total * save, 0.0
    limit = TimeLimit.lasting(total, since=0.0, now=now)

    def clock() -> float:
        return now

    with mock.patch.object(time_limit.time, "monotonic", clock):
        for slower in itertools.cycle(noise):
            if limit.is_near(save, step):
                break
            now += slower * step
    assert now + noise[-1] * save <= limit.ends_at or now == 0  # at once, if there never was enough time


def test_a_limit_is_near_when_a_save_might_not_fit_any_more():
    limit = TimeLimit(time.monotonic() + 100, margin=10)
    assert not limit.is_near(save_seconds=40, step_seconds=1)
    assert limit.is_near(save_seconds=45, step_seconds=1)
    assert limit.is_near(save_seconds=1, step_seconds=45)
    assert not TimeLimit(time.monotonic() + 11, margin=10).is_near(0, 0)
    assert TimeLimit(time.monotonic() + 9, margin=10).is_near(0, 0)
    assert TimeLimit(time.monotonic() - 1, margin=0).is_near(0, 0)


def test_a_short_limit_keeps_less_for_the_end():
    assert TimeLimit.lasting(20, since=0, now=0).margin == 10
    assert TimeLimit.lasting(20, since=0, now=16).margin == 2
    assert TimeLimit.lasting(3600, since=0, now=0).margin == time_limit.MARGIN
    assert TimeLimit.lasting(20, since=0, now=100).margin == 0


def test_time_for_an_upload_is_kept_unless_that_left_less_than_half():
    long = TimeLimit(time.monotonic() + 1000, margin=15).keeping(120)
    assert long.margin == 135
    short = TimeLimit(time.monotonic() + 100, margin=15).keeping(120)
    assert 49 < short.margin <= 50
    over = TimeLimit(time.monotonic() - 5, margin=15).keeping(120)
    assert over.margin == 15
