"""What the fork server of a sweep does once, so that no trial has to: the heavy imports, and one composition.

Importing this module is the work. Nothing here may start a thread or touch a GPU: neither survives a fork.
"""

from __future__ import annotations

import contextlib

import pytorch_lightning  # noqa: F401
import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch.utils.serialization.config  # noqa: F401
import torchvision  # noqa: F401

import bbi_lightning.cli.sweep.task
import bbi_lightning.training.run  # noqa: F401
from bbi_lightning.training.composition import compose
from bbi_lightning.training.config import run_name

with contextlib.suppress(Exception):  # a broken default must not stop a sweep that does not use it
    run_name(compose())  # Hydra finds its plugins and the parser builds its tables: 0.05 s a trial
