"""`bbi top`: as a command, on a terminal, in a pipe; what it refuses."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bbi_lightning
from bbi_lightning.cli import app
from bbi_lightning.cli.top import HELP
from tests.tracking.live.runs_in_motion import MovingRun, labels, write_sweep

# a background job of a shell is born deaf to Ctrl-C, and so would be its children
_HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
BBI = [sys.executable, "-c", f"{_HEARING}; from bbi_lightning.cli import main; main()"]


def run(*words: str, **environment: str):
    return CliRunner().invoke(app, ["top", *words], env={"TERM": "dumb", **environment})


@pytest.fixture
def moving(tmp_path):
    sweep = write_sweep(tmp_path / "sweeps" / "s", trials=2, count=0)
    run = MovingRun(sweep / "runs" / "digits-bbi", labels=labels(sweep, "bbi", 0))
    run.train(90)
    yield run
    run.folder.release()


def test_once_prints_it_and_leaves(moving, tmp_path):
    result = run(str(tmp_path), "--once", COLUMNS="100")
    assert result.exit_code == 0, result.output
    assert "1 running" in result.output
    assert "bbi t0" in result.output
    assert "q quit" not in result.output  # nobody can press it
    assert max(map(len, result.output.splitlines())) <= 100


def test_json_is_for_programs(moving, tmp_path):
    moving.row(**{"train/loss": "nan"})
    result = run(str(tmp_path), "--once", "--json")
    seen = json.loads(result.output, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    (one,) = seen["runs"]
    assert (one["name"], one["step"], one["planned_steps"], one["loss"]) == ("digits-bbi", 90, 540, None)
    assert one["alarms"][0]["code"] == "nan"
    assert seen["sweeps"][0]["total"] == 4
    assert seen["sweeps"][0]["ended"] == 0


def test_a_filter_and_an_order(moving, tmp_path):
    assert json.loads(run(str(tmp_path), "--once", "--json", "--filter", "sgd").output)["runs"] == []
    assert run(str(tmp_path), "--once", "--sort", "loss").exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "there is no folder nowhere: give one that has runs below it"),
        ([".", "--interval", "0"], "--interval=0 is too short: give 0.1 or more seconds"),
        ([".", "--interval", "nan"], "--interval=nan is too short"),
        ([".", "--sort", "size"], "--sort=size is no order: use one of state, eta"),
        ([], "neither runs/ nor sweeps/ is here"),
    ],
)
def test_mistakes_are_a_sentence(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_the_folders_of_here_are_found(moving, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(json.loads(run("--once", "--json").output)["runs"]) == 1


def test_every_alarm_has_a_line_in_the_help_and_a_row_on_the_page():
    package = Path(bbi_lightning.__file__).parent
    files = [file for room in ("tracking/live", "cli/live") for file in (package / room).glob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Alarm"]
    codes = {call.args[1].value for call in calls if isinstance(call.args[1], ast.Constant)}
    codes |= {"failed", "ranks"}  # told apart by what was raised
    assert len(codes) >= 14
    page = (package.parent / "docs" / "jobs" / "top.md").read_text()
    for code in codes - {"damaged"}:  # the sentence says it all
        assert re.search(rf"\b{code}\b", HELP), code
        assert f"| `{code}`" in page, code


def test_help_teaches():
    page = run("--help", COLUMNS="100").output
    assert "bbi top sweeps/digits_showdown" in page
    for alarm in ("lost", "ranks", "nan", "stall", "energy", "silent", "disk"):
        assert re.search(rf"\b{alarm}\b", page), alarm


def fake_slurm(folder, monkeypatch, squeue: str) -> None:
    """A SLURM whose squeue is this shell script."""
    folder.mkdir()
    for name, script in (("sbatch", "exit 1"), ("squeue", squeue)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


JOBS = """echo '18|17|0|bbi-s-0a1b2c|RUNNING|None|n1'
echo '19|17|1|bbi-s-0a1b2c|PENDING|Resources|'
echo '20|20|N/A|bbi-s-0a1b2c|COMPLETED|None|n1'
echo '21|21|N/A|jupyter|RUNNING|None|n1'"""


def test_the_queue_is_seen_and_only_our_jobs_in_it(moving, tmp_path, monkeypatch):
    fake_slurm(tmp_path / "bin", monkeypatch, JOBS)
    assert "SLURM  1 running  1 pending (Resources)" in run(str(tmp_path), "--once", COLUMNS="100").output
    queue = json.loads(run(str(tmp_path), "--once", "--json").output)["queue"]
    assert [(job["id"], job["state"]) for job in queue] == [("17_0", "RUNNING"), ("17_1", "PENDING")]


@pytest.mark.parametrize(
    ("squeue", "said"),
    [
        ("echo 'Socket timed out' >&2; exit 1", "squeue refused: Socket timed out"),
        ("echo strange", "squeue's answer cannot be read"),
    ],
)
def test_a_queue_that_does_not_answer_is_an_alarm_and_hides_nothing(
    moving, tmp_path, monkeypatch, squeue, said
):
    fake_slurm(tmp_path / "bin", monkeypatch, squeue)
    result = run(str(tmp_path), "--once", COLUMNS="100")
    assert result.exit_code == 0
    assert said in result.output
    assert "SLURM  unknown" in result.output
    assert "bbi t0" in result.output


def test_slurm_without_a_cluster_is_none(moving, tmp_path, monkeypatch):
    words = "squeue: fatal: Could not establish a configuration source"
    fake_slurm(tmp_path / "bin", monkeypatch, f"echo '{words}' >&2; exit 1")
    assert "SLURM" not in run(str(tmp_path), "--once").output


class OnTerminal:
    """`bbi top` on a terminal of 24 lines of 90 columns, and what it has drawn."""

    def __init__(self, root, *words: str) -> None:
        self.ours, theirs = pty.openpty()
        _size(theirs, 24, 90)
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [*BBI, "top", str(root), "--interval", "0.2", *words],
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
            env={**environment, "TERM": "xterm-256color"}, start_new_session=True,
        )  # fmt: skip
        self._theirs = theirs
        self.drawn = ""

    def wait_for(self, pattern: str, seconds: float = 60.0) -> None:
        give_up = time.monotonic() + seconds
        while not re.search(pattern, self.drawn):
            assert time.monotonic() < give_up, f"{pattern} was not drawn: {self.drawn[-1500:]!r}"
            if select.select([self.ours], [], [], 0.2)[0]:
                self.drawn += re.sub(
                    r"\x1b\[[0-9;]*m", "", os.read(self.ours, 65536).decode(errors="replace")
                )

    def press(self, keys: str) -> None:
        self.drawn = ""
        os.write(self.ours, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        self.drawn = ""
        _size(self._theirs, lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    def ends(self) -> int:
        give_up = time.monotonic() + 30
        while self.process.poll() is None or select.select([self.ours], [], [], 0)[0]:
            assert time.monotonic() < give_up
            if select.select([self.ours], [], [], 0.1)[0]:
                self.drawn += os.read(self.ours, 65536).decode(errors="replace")
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.ours)
        os.close(self._theirs)


def _size(descriptor: int, lines: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@pytest.fixture
def on_terminal(moving, tmp_path):
    top = OnTerminal(tmp_path)
    yield top
    top.close()


@pytest.mark.slow
class TestTerminal:
    def test_follows_a_run_takes_keys_and_leaves_the_terminal_in_order(self, on_terminal, moving):
        on_terminal.wait_for(r"bbi t0\s+running\s+.*16%")
        moving.train(180)
        on_terminal.wait_for(r"bbi t0\s+running\s+.*50%")
        on_terminal.press("s")
        on_terminal.wait_for("by eta")
        on_terminal.press("fnone")
        on_terminal.wait_for("filter: none")
        on_terminal.wait_for("no run is like that")
        on_terminal.press("\x1b")
        on_terminal.wait_for(r"bbi t0\s+running")
        on_terminal.press("\r")
        on_terminal.wait_for("val/acc best")
        on_terminal.press("q")
        assert on_terminal.ends() == 0
        assert "\x1b[?1049l" in on_terminal.drawn  # the screen of before is back
        assert on_terminal.process.stderr.read() == b""

    def test_a_terminal_of_another_size_is_used(self, on_terminal):
        on_terminal.wait_for("bbi t0")
        assert "samples/s" not in on_terminal.drawn
        on_terminal.resize(40, 180)
        on_terminal.wait_for("samples/s")
        on_terminal.press("q")
        assert on_terminal.ends() == 0

    def test_ctrl_c_is_no_error(self, on_terminal):
        on_terminal.wait_for("bbi t0")
        on_terminal.process.send_signal(signal.SIGINT)
        assert on_terminal.ends() == 0
        assert on_terminal.process.stderr.read() == b""

    def test_a_queue_that_hangs_does_not_keep_the_screen(self, moving, tmp_path, monkeypatch):
        fake_slurm(tmp_path / "bin", monkeypatch, "exec sleep 25")
        top = OnTerminal(tmp_path)
        try:
            top.wait_for(r"bbi t0\s+running\s+.*16%", 30)
            moving.train(180)
            top.wait_for(r"bbi t0\s+running\s+.*50%", 30)
            top.press("q")
            assert top.ends() == 0
        finally:
            top.close()

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_leaves_the_terminal_in_order(self, on_terminal, ending):
        on_terminal.wait_for("bbi t0")
        on_terminal.drawn = ""
        on_terminal.process.send_signal(ending)
        assert on_terminal.ends() == 128 + ending
        assert "\x1b[?1049l" in on_terminal.drawn


@pytest.mark.slow
def test_in_a_pipe_it_writes_lines_when_something_changes(moving, tmp_path):
    process = subprocess.Popen(
        [*BBI, "top", str(tmp_path), "--interval", "0.2"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert re.fullmatch(r"\d\d:\d\d:\d\d  1 running\n", process.stdout.readline())
        moving.train(12, energy__potential=0.0)
        assert "! bbi t0: stands still at V ≤ 0" in process.stdout.readline()
        moving.folder.end_attempt("finished")
        assert "1 finished" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
