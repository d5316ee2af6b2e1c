"""Where a run begins when it does not begin at step zero of its own: at a checkpoint of another run.

A run that begins elsewhere is another run: what it starts from (by content, not by place) is part of its
identity. Reading which checkpoint is meant imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bbi_lightning.checkpoints.manifest import MANIFEST, Manifest, read_manifest
from bbi_lightning.checkpoints.store import Checkpoint, CheckpointStore
from bbi_lightning.training.components import ConfigError

Take = Literal["weights", "weights_and_optimizer", "everything"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The config group `start`.

    Attributes:
        checkpoint: a run's folder, for its newest checkpoint, or a checkpoint's folder.
        take: "weights" of the model; "weights_and_optimizer", whose momenta and energy go on while step
            count, schedule and data begin anew; or "everything": the other run goes on under this config,
            whose limits are larger (`bbi resume RUN trainer.max_epochs=…`).
        digest: of the checkpoint's contents, so that a run does not change its meaning with a file.

    Raises:
        ValueError: there is no such checkpoint, or it is not the one the digest tells of.
    """

    checkpoint: str
    take: Take = "weights"
    digest: str | None = None

    def __post_init__(self) -> None:
        found = digest_of(self.folder)
        if self.digest is not None and found != self.digest:
            raise ValueError(
                f"checkpoint={self.checkpoint} has changed since this run was begun "
                f"(digest {found}, not {self.digest}): restore it, or begin another run with digest=null"
            )

    @property
    def folder(self) -> Path:
        """The checkpoint's own folder."""
        return checkpoint_folder(self.checkpoint)

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        return read_manifest(self.folder)


def checkpoint_folder(place: str | Path) -> Path:
    """The checkpoint that is meant by a checkpoint's folder, or by a run's: its newest.

    Raises:
        ValueError: there is none.
    """
    path = Path(place).expanduser().resolve()
    if (path / MANIFEST).is_file():
        return path
    saved = CheckpointStore(path / "checkpoints", path.name).checkpoints()
    if not saved:
        raise ValueError(f"checkpoint={place} holds no checkpoint: give a run's folder or a checkpoint's")
    return saved[-1].path


def verified(start: Start) -> Path:
    """The folder of the checkpoint to start from, every byte of which is what was written.

    Raises:
        ConfigError: it is damaged.
    """
    checkpoint = Checkpoint(start.folder, start.manifest)
    wrong = CheckpointStore(checkpoint.path.parent, checkpoint.manifest.run).damage(checkpoint)
    if wrong is not None:
        raise ConfigError(
            f"start.checkpoint={start.checkpoint} is damaged ({wrong}): give another one of "
            f"{checkpoint.path.parent}"
        )
    return checkpoint.path


def digest_of(folder: Path) -> str:
    """Sixteen hexadecimal digits that stand for the contents: from the checksums in the manifest."""
    files = {name: record.sha256 for name, record in read_manifest(folder).files.items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain node `start` of a config with its digest filled in and its place made absolute.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    try:
        folder = checkpoint_folder(values["checkpoint"])
        digest = values.get("digest") or digest_of(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"start.{error}") from error
    return {**values, "checkpoint": str(folder), "digest": digest}
