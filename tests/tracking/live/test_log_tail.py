"""A log is read once, whatever becomes of it meanwhile."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbi_lightning.tracking.live.log_tail import LogTail
from bbi_lightning.tracking.metric_log import MetricLog, read_metrics


def line(step: int, **metrics) -> str:
    return json.dumps({"step": step, "epoch": 0, "time": float(step), **metrics}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def steps(rows) -> list[int]:
    return [row["step"] for row in rows]


def test_a_log_that_is_not_there_yet_has_no_rows(log):
    tail = LogTail(log)
    assert tail.newer() == [] == tail.older()
    log.write_text(line(1))
    assert steps(tail.newer()) == [1]


def test_only_what_was_added_is_read(log):
    tail = LogTail(log)
    log.write_text("".join(line(step) for step in range(1000)))
    assert len(tail.newer()) == 1000
    before = tail.read
    with log.open("a") as file:
        file.write(line(1000))
    assert steps(tail.newer()) == [1000]
    assert tail.read - before == len(line(1000))
    assert tail.newer() == []


def test_rows_are_those_of_the_reader_of_whole_logs(log):
    with MetricLog(log) as writer:
        writer.append(1, 0, {"train/loss": math.inf})
        writer.append(2, 0, {"train/loss": math.nan})
        writer.append(3, 0, {"train/loss": 0.5})
    assert str(LogTail(log).newer()) == str(read_metrics(log))  # NaN is not equal to itself


def test_a_half_row_waits_for_its_newline(log):
    tail = LogTail(log)
    whole = line(7)
    log.write_text(line(6) + whole[:9])
    assert steps(tail.newer()) == [6]
    with log.open("a") as file:
        file.write(whole[9:])
    assert steps(tail.newer()) == [7]
    assert tail.damaged == 0


def test_the_end_of_a_long_log_comes_first_and_every_row_once(log):
    log.write_text("".join(line(step) for step in range(500)))
    tail = LogTail(log, first=1000, most=3000)
    newest = steps(tail.newer())
    assert newest[-1] == 499
    assert newest[0] > 400
    assert not tail.complete
    older: list[int] = []
    while not tail.complete:
        older += steps(tail.older(700))
    assert older + newest == list(range(500))
    assert tail.older() == []


def test_a_log_that_grew_by_more_than_one_look_takes_is_caught_up_with(log):
    tail = LogTail(log, most=500)
    log.write_text(line(0))
    tail.newer()
    with log.open("a") as file:
        file.writelines(line(step) for step in range(1, 100))
    found: list[int] = []
    while new := tail.newer():
        found += steps(new)
    assert found == list(range(1, 100))


def test_a_log_cut_back_is_read_anew(log):
    tail = LogTail(log)
    log.write_text("".join(line(step) for step in range(10)))
    tail.newer()
    with MetricLog(log) as writer:
        writer.cut_to(4)
    assert steps(tail.newer()) == [0, 1, 2, 3]
    assert tail.restarts == 1


def test_a_log_cut_back_and_longer_again_since_the_last_look_is_read_anew(log):
    tail = LogTail(log)
    log.write_text("".join(line(step, loss=1) for step in range(10)))
    tail.newer()
    with log.open("r+") as file:
        file.truncate(len(line(0, loss=1)) * 4)
        file.seek(0, 2)
        file.writelines(line(step, loss=2) for step in range(4, 30))
    assert steps(tail.newer()) == list(range(30))
    assert tail.restarts == 1


def test_another_file_of_the_same_name_is_read_from_its_beginning(log, tmp_path):
    tail = LogTail(log)
    log.write_text("".join(line(step) for step in range(3)))
    tail.newer()
    other = tmp_path / "other"
    other.write_text("".join(line(step) for step in range(100, 110)))
    other.replace(log)
    assert steps(tail.newer()) == list(range(100, 110))


def test_a_log_that_vanishes_and_comes_back(log):
    tail = LogTail(log)
    log.write_text(line(1))
    tail.newer()
    log.unlink()
    assert tail.newer() == []
    log.write_text(line(2))
    assert steps(tail.newer()) == [2]


def test_lines_that_are_no_rows_are_counted_and_passed_over(log):
    log.write_bytes(line(1).encode() + b'{"step": "x"}\n\xff\xfe\n[1]\n\n' + line(2).encode())
    tail = LogTail(log)
    assert steps(tail.newer()) == [1, 2]
    assert tail.damaged == 4


def test_what_cannot_be_read_is_said_and_tried_again(tmp_path):
    (tmp_path / "log").mkdir()
    tail = LogTail(tmp_path / "log")
    assert tail.newer() == []
    assert tail.trouble


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    first=st.integers(40, 900),
    most=st.integers(80, 900),
    pad=st.integers(0, 60),
)
def test_every_row_is_read_exactly_once_however_it_grows(tmp_path_factory, counts, first, most, pad):
    log = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    tail = LogTail(log, first=first, most=most)
    newer: list[int] = []
    older: list[int] = []
    written = 0
    for count in counts:
        with log.open("a") as file:
            file.writelines(
                line(step, pad="x" * (step * 7 % (pad + 1))) for step in range(written, written + count)
            )
        written += count
        newer += steps(tail.newer())
        older += steps(tail.older(100))
    while new := tail.newer():
        newer += steps(new)
    while not tail.complete:
        older += steps(tail.older())
    assert older + newer == list(range(written))
    assert tail.damaged == 0
    assert tail.restarts == 0


def test_a_half_row_longer_than_the_first_look_is_read_when_it_is_whole(log):
    long = line(2, pad="x" * 900)
    log.write_text(line(0) + line(1) + long[:700])
    tail = LogTail(log, first=100)
    rows = tail.newer()
    with log.open("a") as file:
        file.write(long[700:])
    rows += tail.newer()
    assert sorted(steps(tail.older()) + steps(rows)) == [0, 1, 2]
    assert tail.damaged == 0
