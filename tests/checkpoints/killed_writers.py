"""A program whose children save without pause until they are killed, one after the other, in one folder.

    python killed_writers.py FOLDER KILLS SEED

Prints a line of JSON: how many children were killed, how many checkpoints they left, and what was wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from bbi_lightning.checkpoints.manifest import STATE, Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter

RUN = "toy-s0"
SIZE = 100_000  # elements
LONGEST_LIFE = 0.25  # seconds


def save_for_ever(folder: Path, announce: int) -> None:
    """Go on from the newest checkpoint; write the number of every step that is safe into a pipe."""
    store = CheckpointStore(folder, RUN, keep_last=2)
    newest, _ = store.newest_valid()
    step = 0 if newest is None else newest.step
    writer = CheckpointWriter(store, on_trouble=lambda sentence: os.write(announce, b"0\n"))
    weights = torch.empty(SIZE)
    while True:
        step += 1
        weights.fill_(step)
        reasons = ("last", *(["milestone"] if step % 50 == 0 else []), *(["best"] if step % 7 == 0 else []))
        writer.submit({"step": step, "w": weights}, Note(step, 0, reasons))
        if step % 3 == 0 and writer.flush():
            os.write(announce, b"%d\n" % step)


def kill_one(folder: Path, chance: random.Random) -> list[int]:
    """A child's life; the steps that it called safe."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        save_for_ever(folder, write)
    os.close(write)
    time.sleep(chance.uniform(0, LONGEST_LIFE))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read) as announced:
        return [int(line) for line in announced if line.endswith("\n")]


def wrong_with(folder: Path, safe: int) -> str | None:
    store = CheckpointStore(folder, RUN)
    newest, passed_over = store.newest_valid()
    if passed_over:
        return f"damaged: {passed_over}"
    if newest is None:
        return f"step {safe} was safe and there is nothing" if safe else None
    state = torch.load(newest.path / STATE, weights_only=True)
    if state["step"] != newest.step or not torch.equal(state["w"], torch.full((SIZE,), float(newest.step))):
        return f"{newest.path.name} holds something else"
    if newest.step < safe:
        return f"step {safe} was safe and the newest is {newest.path.name}"
    return None


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    safe, problems = 0, []
    for kill in range(kills):
        announced = kill_one(folder, chance)
        if 0 in announced:
            problems.append(f"kill {kill}: the writer had trouble")
        safe = max([safe, *announced])
        problem = wrong_with(folder, safe)
        if problem is not None:
            problems.append(f"kill {kill}: {problem}")
    left = [checkpoint.step for checkpoint in CheckpointStore(folder, RUN).checkpoints()]
    print(json.dumps({"kills": kills, "safe": safe, "left": left, "problems": problems}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
