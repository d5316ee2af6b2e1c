"""What `bbi top` costs while it looks at a thousand runs.

    python benchmarks/top.py                          # two minutes
    python benchmarks/top.py --moving 20 --seconds 60

Process time of the whole program on a pseudo-terminal of 60 lines of 180 columns, as a share of one core,
while some of the runs write a row a second. The first ten seconds, when it reads all logs, are told apart.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import psutil

from bbi_lightning.tracking.run_folder import RunFolder

CONFIG = "trainer: {max_epochs: 1000, max_steps: null}\ncheckpoint: {keep_best: val/acc}\n"


def rows(first: int, count: int) -> str:
    """Rows as BBI writes them, every 20th step; an epoch has 200."""
    lines = []
    for number in range(first, first + count):
        step = 20 * (number + 1)
        row = {
            "step": step, "epoch": (step - 1) // 200, "time": float(number), "train/loss": 2.0 / (number + 1),
            "energy/energy": 2.3, "energy/potential": 2.0 / (number + 1), "energy/energy_error": 0.1,
            "energy/potential_over_energy": 1.0 / (number + 1), "energy/momentum_sq": 20.0,
            "energy/speed_over_limit": 1.0, "energy/turn_cosine": "nan", "energy/bounces": 0.0,
            "energy/at_floor": 0.0, "energy/skipped": 0.0, "speed/samples_per_s": 2e4, "speed/data_wait": 0.1,
        }  # fmt: skip
        lines.append(json.dumps(row | ({"val/acc": 0.9, "val/loss": 0.3} if step % 200 == 0 else {})) + "\n")
    return "".join(lines)


def make_runs(root: Path, moving: int, count: int) -> list[RunFolder]:
    """So many runs of 100 rows; those that move are held by this process."""
    ended = RunFolder.create(root / "ended-0000", config=CONFIG)
    ended.begin_attempt()
    ended.metrics_file.write_text(rows(0, 100))
    ended.end_attempt("finished", summary={"val/acc": 0.9, "steps": 2000})
    for number in range(1, count - moving):
        shutil.copytree(ended.path, root / f"ended-{number:04}")
    found = [RunFolder.create(root / f"moving-{number:04}", config=CONFIG) for number in range(moving)]
    for run in found:
        run.begin_attempt()
        run.metrics_file.write_text(rows(0, 100))
    return found


def write_for(seconds: int, moving: list[RunFolder], row: int) -> int:
    """A row a second to each of the runs; returns the number of the next row."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        line = rows(row, 1)
        for run in moving:
            with run.metrics_file.open("a") as file:
                file.write(line)
        row += 1
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    return row


def measure(moving: int, count: int, interval: float, seconds: int) -> None:
    """Print a line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        runs = make_runs(Path(folder), moving, count)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 180, 0, 0))
        command = [sys.executable, "-m", "bbi_lightning.cli", "top", folder, f"--interval={interval:g}"]
        environment = os.environ | {"TERM": "xterm-256color"}
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment)
        threading.Thread(target=swallow, args=(ours,), daemon=True).start()
        watched = psutil.Process(process.pid)
        row = write_for(10, runs, 100)
        begun = sum(watched.cpu_times()[:2])
        wall = time.monotonic()
        write_for(seconds, runs, row)
        share = (sum(watched.cpu_times()[:2]) - begun) / (time.monotonic() - wall)
        memory = watched.memory_info().rss / 2**20
        print(f"  {moving:>6} {interval:>8g} {begun:>22.1f} {share:>16.1%} {memory:>12.0f}", flush=True)
        os.write(ours, b"q")
        process.wait(30)


def swallow(descriptor: int) -> None:
    """Read what is drawn, as a terminal would."""
    while True:
        try:
            os.read(descriptor, 65536)
        except OSError:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--moving", type=int, nargs="+", default=[20, 1000])
    parser.add_argument("--interval", type=float, nargs="+", default=[2.0])
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    print(f"{options.runs} runs")
    print("  moving  every, s  first ten seconds, s  share of a core  memory, MiB")
    for moving in options.moving:
        for interval in options.interval:
            measure(moving, options.runs, interval, options.seconds)


if __name__ == "__main__":
    main()
