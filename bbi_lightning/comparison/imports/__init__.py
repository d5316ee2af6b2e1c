"""Runs that others have made, written down as a sweep of ours.

    foreign          a run as its source tells it, and what can go wrong with that
    wandb_export     W&B: tables that the site or its API exports, and local `wandb/` folders
    tensorboard      event files
    csv_folder       a file a run
    naming           foreign names to ours: train/loss, val/acc, step …
    settings         which runs are one setting, which its repetitions, which arm they are of
    writing          the sweep's folder

What is written has the layout of any sweep, so that comparing, listing and auditing need no special case; the
label `imported` of a run tells where it is from. Importing again writes what is new and leaves the rest.
"""

from bbi_lightning.comparison.imports.csv_folder import read_csv_folder
from bbi_lightning.comparison.imports.foreign import ForeignDataError, ForeignRun
from bbi_lightning.comparison.imports.naming import Naming, name_runs
from bbi_lightning.comparison.imports.settings import Choices, SortedRuns, sorted_into_arms
from bbi_lightning.comparison.imports.tensorboard import read_tensorboard
from bbi_lightning.comparison.imports.wandb_export import read_wandb_export
from bbi_lightning.comparison.imports.writing import Written, write_sweep

__all__ = [
    "Choices",
    "ForeignDataError",
    "ForeignRun",
    "Naming",
    "SortedRuns",
    "Written",
    "name_runs",
    "read_csv_folder",
    "read_tensorboard",
    "read_wandb_export",
    "sorted_into_arms",
    "write_sweep",
]
