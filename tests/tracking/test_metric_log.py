import errno
import json
import math
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bbi_lightning.tracking.durable import write_atomically
from bbi_lightning.tracking.metric_log import MetricLog, read_metrics

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write_rows(path, steps):
    with MetricLog(path) as log:
        for step in steps:
            log.append(step, 0, {"train/loss": 1.0 / (step + 1)})


def test_rows_come_back_as_they_were_written_with_their_clock(path):
    with MetricLog(path) as log:
        log.append(10, 0, {"train/loss": 0.1 + 0.2, "train/acc": 1})
        log.append(20, 1, {"val/acc": np.float32(0.5)})

    first, second = read_metrics(path)
    assert (first["step"], first["epoch"], first["train/loss"], first["train/acc"]) == (10, 0, 0.1 + 0.2, 1)
    assert second["val/acc"] == 0.5
    assert 0 <= first["time"] <= second["time"] < 5


def test_non_finite_values_are_strict_json_on_disk_and_floats_again_when_read(path):
    with MetricLog(path) as log:
        log.append(1, 0, {"a": math.nan, "b": math.inf, "c": np.float64(-math.inf)})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    on_disk = json.loads(path.read_text(), parse_constant=refuse)
    assert (on_disk["a"], on_disk["b"], on_disk["c"]) == ("nan", "inf", "-inf")
    (row,) = read_metrics(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_tensors_of_one_element_are_numbers(path):
    torch = pytest.importorskip("torch")
    with MetricLog(path) as log:
        log.append(1, 0, {"train/loss": torch.tensor(0.25)})
    assert read_metrics(path)[0]["train/loss"] == 0.25


@pytest.mark.parametrize("value", ["0.1", None, True, [1.0]])
def test_only_numbers_are_logged(path, value):
    with MetricLog(path) as log, pytest.raises(TypeError, match="must be a number"):
        log.append(1, 0, {"train/loss": value})
    assert read_metrics(path) == []


def test_a_metric_cannot_take_the_name_of_a_row_s_own_key(path):
    with MetricLog(path) as log, pytest.raises(ValueError, match="'epoch'"):
        log.append(1, 0, {"epoch": 3})


def test_a_missing_log_has_no_rows(path):
    assert read_metrics(path) == []


@pytest.mark.parametrize("tail", [b'{"step": 3, "ep', b'{"step": 3}', b"\x00\x00\x00", b"\xff"])
def test_an_unterminated_last_line_is_no_row_and_the_next_append_does_not_grow_onto_it(path, tail):
    write_rows(path, [1, 2])
    with path.open("ab") as file:
        file.write(tail)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]

    write_rows(path, [3])
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("damage", [b"{", b"", b"\xff\xfe", b"[1]", b'{"epoch": 1}', b'{"step": "1"}'])
def test_a_damaged_line_in_the_middle_is_an_error_with_file_and_line(path, damage):
    write_rows(path, [1, 2, 3])
    lines = path.read_bytes().splitlines()
    lines[1] = damage
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is damaged .*delete"):
        read_metrics(path)


def test_cut_to_drops_what_came_after_the_checkpoint_also_at_its_very_step(path):
    with MetricLog(path) as log:
        for step in (1, 2, 2, 3, 4):
            log.append(step, 0, {"train/loss": float(step)})
        assert log.rows == 5
        assert log.cut_to(2) == 3
        assert log.rows == 2
        log.append(2, 0, {"val/loss": -2.0})
    assert [(row["step"], row.get("train/loss")) for row in read_metrics(path)] == [
        (1, 1.0),
        (2, 2.0),
        (2, None),
    ]


def test_cut_to_keeps_kept_rows_to_the_byte_and_needs_no_second_file(path):
    write_rows(path, [1, 2, 3])
    before, inode = path.read_bytes(), path.stat().st_ino
    with MetricLog(path) as log:
        assert log.cut_to(3) == 0
        assert path.read_bytes() == before
        assert log.cut_to(2) == 1
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[:2])
    assert path.stat().st_ino == inode


def test_cut_to_nothing_empties_the_log(path):
    write_rows(path, [1, 2])
    with MetricLog(path) as log:
        assert log.cut_to(0) == 2
    assert read_metrics(path) == []


def test_rows_that_are_missing_are_told_and_the_others_stay(path):
    write_rows(path, [1, 2])
    with MetricLog(path) as log:
        assert log.cut_to(5) == -3
        log.append(6, 0, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 6]


def test_the_clock_counts_training_not_the_wait_between_attempts(path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with MetricLog(path) as log:
        clock[0] += 5
        log.append(1, 0, {})
        clock[0] += 5
        log.append(2, 0, {})
    clock[0] = 9000.0  # another machine, a day later
    with MetricLog(path) as log:
        log.cut_to(1)
        clock[0] += 2
        log.append(2, 0, {})
    assert [row["time"] for row in read_metrics(path)] == [5.0, 7.0]


def test_the_clock_goes_on_from_the_checkpoint_not_from_the_last_row_before_it(path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with MetricLog(path) as log:
        clock[0] += 5
        log.append(1, 0, {})
        clock[0] += 3
        saved = log.seconds
    clock[0] = 50.0
    with MetricLog(path) as log:
        log.cut_to(1, seconds=saved)
        clock[0] += 2
        log.append(2, 0, {})
    assert [row["time"] for row in read_metrics(path)] == [5.0, 10.0]


def test_ten_thousand_rows_are_read_in_a_fifth_of_a_second(path):
    names = [f"energy/metric_{i}" for i in range(10)]
    with MetricLog(path) as log:
        for step in range(10_000):
            log.append(step, 0, dict.fromkeys(names, 0.123456789 * step))

    def seconds():
        start = time.process_time()
        assert len(read_metrics(path)) == 10_000
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.2


class Disk:
    """Stands between a log and its file: takes `room` more bytes, and nothing after that."""

    def __init__(self, log, room):
        self.file, self.room = log._file, room
        log._file = self

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken

    def truncate(self, size):
        return self.file.truncate(size)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_rows_wait_for_a_full_disk_and_are_written_in_order_with_one_warning(path):
    with MetricLog(path) as log:
        log.append(1, 0, {})
        size = path.stat().st_size
        disk = Disk(log, room=20)
        with pytest.warns(
            UserWarning, match=r"metrics\.jsonl takes no more rows \(No space left.*training goes on"
        ):
            log.append(2, 0, {"train/loss": 0.5})
        log.append(3, 0, {"train/loss": 0.25})  # a second warning would be an error
        assert path.stat().st_size == size  # no half row
        assert (log.rows, len(log.unwritten)) == (1, 2)
        assert not log.sync()

        disk.room = 10_000
        log.append(4, 0, {})
        assert (log.rows, len(log.unwritten)) == (4, 0)
        assert log.sync()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_a_half_row_that_cannot_be_taken_back_at_once_is_taken_back_before_the_next(path):
    with MetricLog(path) as log:
        disk = Disk(log, room=20)

        def away(size):
            raise OSError(errno.ESTALE, "Stale file handle")

        disk.truncate = away
        with pytest.warns(UserWarning, match="takes no more rows"):
            log.append(1, 0, {})
        log.append(2, 0, {})
        assert path.stat().st_size == 20
        del disk.truncate
        disk.room = 10_000
        log.append(3, 0, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_what_waits_for_a_full_disk_is_bounded_and_a_gap_is_told_once(path, monkeypatch):
    monkeypatch.setattr("bbi_lightning.tracking.metric_log._MOST_UNWRITTEN", 150)
    with MetricLog(path) as log:
        disk = Disk(log, room=0)
        with pytest.warns(UserWarning, match="takes no more rows"):
            log.append(1, 0, {})
        log.append(2, 0, {})
        log.append(3, 0, {})
        with pytest.warns(UserWarning, match="left out from here on"):
            log.append(4, 0, {})
        for step in range(5, 100):
            log.append(step, 0, {})
        disk.room = 10_000
        log.append(100, 0, {})
    steps = [row["step"] for row in read_metrics(path)]
    assert steps == [1, 2, 3, 100]


def test_a_log_that_is_closed_on_a_full_disk_says_how_many_rows_it_lacks(path):
    log = MetricLog(path)
    Disk(log, room=0)
    with pytest.warns(UserWarning, match="takes no more rows"):
        log.append(1, 0, {})
    log.append(2, 0, {})
    with pytest.warns(UserWarning, match="lacks its last 2 rows"):
        log.close()
    log.close()


def test_a_real_limit_of_the_disk_leaves_the_log_whole(path):
    write_rows(path, [1])
    size = path.stat().st_size

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))

    program = f"""
import resource
from bbi_lightning.tracking.metric_log import MetricLog
with MetricLog({str(path)!r}) as log:
    log.append(2, 0, {{"train/loss": 0.5}})
    assert log.path.stat().st_size == {size}, "half a row"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.append(3, 0, {{"train/loss": 0.25}})
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert result.stderr.count("takes no more rows") == 1
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_kill_9_in_the_middle_of_appends_leaves_a_log_that_reads_and_goes_on(path):
    program = f"""
import itertools
from bbi_lightning.tracking.metric_log import MetricLog
log = MetricLog({str(path)!r})
for step in itertools.count(log.path.read_bytes().count(b"\\n")):
    log.append(step, 0, {{"train/loss": 0.5, "padding": step * 1e100}})
"""
    seen = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        try:
            deadline = time.monotonic() + 20
            while (not path.exists() or len(read_metrics(path)) < seen + 50) and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
        steps = [row["step"] for row in read_metrics(path)]
        assert steps == list(range(len(steps)))
        assert len(steps) >= seen + 50
        seen = len(steps)


def test_write_atomically_leaves_no_temporary_file_and_survives_one_left_behind(tmp_path):
    (tmp_path / ".a.json.tmp").write_text("half")
    write_atomically(tmp_path / "a.json", b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"whole"
