"""How the verbs name a run: by its name among all runs, or by its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bbi_lightning.checkpoints.store import CheckpointStore
    from bbi_lightning.tracking.run_folder import RunFolder

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its folder.", show_default=False)]
Root = Annotated[Path, typer.Option("--dir", help="The folder that holds the runs.")]


def find_run(word: str, root: Path) -> RunFolder:
    """The run of this name in `root`, or in this folder.

    Raises:
        ConfigError: there is none.
    """
    from bbi_lightning.tracking.run_folder import RunFolder
    from bbi_lightning.training.components import ConfigError, closest

    for path in (Path(word), root / word):
        if RunFolder(path).exists:
            return RunFolder(path.resolve())
    known = [path.parent.name for path in root.glob("*/run.json")]
    hint = closest(word, known) or f"give a run's folder, or one of the {len(known)} names in {root}/"
    raise ConfigError(f"there is no run {word}: {hint}")


def store_of(folder: RunFolder) -> CheckpointStore:
    """The run's checkpoints."""
    from bbi_lightning.checkpoints.store import CheckpointStore

    return CheckpointStore(folder.checkpoints, folder.record.name)
