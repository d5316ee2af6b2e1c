"""How long a training stands still for a checkpoint, and how long until it is on the disk and verified.

    python benchmarks/checkpoint_cost.py                  # ResNet-50 and the digits CNN, state of BBI
    python benchmarks/checkpoint_cost.py --rounds 3 --folder /scratch/somewhere

Wall time, interleaved. `torch.save` is what a Trainer does by default, with the training waiting; `and fsync`
is that made durable, but neither checked nor safe from a kill half way. Ours is the copy that the training
waits for, and then, in the background: file, checksum, syncs, reading back from the disk, clearing away.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Timing, interleave, show

from bbi_lightning.checkpoints.manifest import Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter
from bbi_lightning.models.cnn import CNN
from bbi_lightning.optim import BBI

BETWEEN_SAVES = 60.0  # seconds, the default of `checkpoint.every`


def resnet50() -> torch.nn.Module:
    import torchvision.models as tv

    return tv.resnet50(weights=None)


def digits_cnn() -> torch.nn.Module:
    return CNN(image_shape=(1, 8, 8), num_classes=10)


def trained_state(model: torch.nn.Module) -> dict[str, Any]:
    """A model's state and BBI's after one step, as a checkpoint has them."""
    optimizer = BBI(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    optimizer.step(loss=torch.tensor(1.0))
    return {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "global_step": 1}


def plain(state: dict[str, Any], path: Path, *, durable: bool) -> Callable[[], None]:
    """A save with the training waiting."""

    def save() -> None:
        with path.open("wb") as file:
            torch.save(state, file)
            if durable:
                file.flush()
                os.fsync(file.fileno())

    return save


def measure(name: str, state: dict[str, Any], folder: Path, rounds: int) -> None:
    """Print a line a way of saving."""
    store = CheckpointStore(folder / name, name)
    writer = CheckpointWriter(store, on_trouble=print)
    blocked: list[float] = []

    def until_safe() -> None:
        writer.submit(state, Note(1, 0))
        assert writer.flush()
        blocked.append(writer.blocked_seconds)

    until_safe()  # both sets of buffers are made once a run
    until_safe()
    ways = {
        "torch.save": plain(state, folder / "plain.pt", durable=False),
        "torch.save and fsync": plain(state, folder / "durable.pt", durable=True),
        "ours until it is safe": until_safe,
    }
    timings = interleave(ways, rounds, clock=time.perf_counter)
    writer.close()
    timings["ours, training waits"] = Timing(np.array(blocked[-rounds:]))
    size = store.checkpoints()[-1].manifest.size
    print(f"\n{name}: {size / 1e6:.3g} MB")
    for way, timing in timings.items():
        ratio = timing.ratio_to(timings["torch.save"])
        share = timing.median / BETWEEN_SAVES
        print(f"  {way:24s} {1e3 * timing.median:9.2f} ms   {show(ratio):22s} {share:9.5%} of a minute")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk in question; default: /tmp's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-cost-", dir=options.folder))
    try:
        for name, build in (("resnet50", resnet50), ("digits_cnn", digits_cnn)):
            measure(name, trained_state(build()), folder, options.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
