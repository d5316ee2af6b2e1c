"""A sweep is a folder: its description, an Optuna study per arm in a journal file, and its runs.

What trains a trial is handed in as a `Task`: this package knows run folders, and nothing of training.
"""

from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import SweepSpec, parse_spec
from bbi_lightning.sweeps.task import Task

__all__ = ["SweepError", "SweepSpec", "Task", "parse_spec"]
