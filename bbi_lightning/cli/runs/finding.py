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
        ConfigError: there is none, or several below `root` have the name.
    """
    from bbi_lightning.tracking.registry import run_folders
    from bbi_lightning.tracking.run_folder import RunFolder
    from bbi_lightning.training.components import ConfigError, closest

    for path in (Path(word), root / word):
        if RunFolder(path).exists:
            return RunFolder(path.resolve())
    folders = [root / path for path, _ in run_folders(root)]
    found = [folder.resolve() for folder in folders if folder.name == word]
    if len(found) == 1:
        return RunFolder(found[0])
    if found:
        raise ConfigError(f"{word} is the name of {len(found)} runs: give one's folder, such as {found[0]}")
    known = [folder.name for folder in folders]
    hint = closest(word, known) or f"give a run's folder, or one of the {len(known)} names in {root}/"
    raise ConfigError(f"there is no run {word}: {hint}")


def store_of(folder: RunFolder) -> CheckpointStore:
    """The run's checkpoints."""
    from bbi_lightning.checkpoints.store import CheckpointStore

    return CheckpointStore(folder.checkpoints, folder.record.name)
