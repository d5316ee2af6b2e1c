"""Small runs on disk, as training would leave them."""

import os
import time

from bbi_lightning.tracking.run_folder import RunFolder

CONFIG = """\
optim:
  _target_: torch.optim.{optimizer}
  _partial_: true
  lr: {lr}
  betas: [0.9, 0.999]
data:
  _target_: bbi_lightning.data.digits.DigitsDataModule
  batch_size: 64
trainer: {{max_epochs: 3, max_steps: null}}
seed: {seed}
"""


def make(path, *, lr="0.1", optimizer="SGD", seed=0, accuracy=0.9, state="finished", labels=None):
    folder = RunFolder.create(
        path, config=CONFIG.format(lr=lr, optimizer=optimizer, seed=seed), labels=labels or {}
    )
    folder.begin_attempt()
    folder.end_attempt(state, summary={"test/acc": accuracy, "parameters": 10})
    return folder


def settle(root, ago=100.0):
    """As if all files had been written a while ago."""
    for file in root.rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - ago, time.time() - ago))
