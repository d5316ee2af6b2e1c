"""What a checkpoint says of itself: `manifest.json`, written last, which seals the files beside it.

    checkpoint-000007-step-120/
      state.pt        the state (and, of a sharded run, torch.distributed.checkpoint's files)
      manifest.json   {format, number, step, epoch, run, values, reasons, world_size, layout, saved,
                       files: {name: {bytes, sha256}}, seal}

`seal` is the SHA-256 of all the rest, so that a manifest that has changed is not believed either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from bbi_lightning.tracking.metric_log import decode_number, encode_number

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.pt"
SHARDS = ".metadata"  # of torch.distributed.checkpoint; a checkpoint that is whole has none

Layout = Literal["whole", "sharded"]
Reason = Literal["last", "best", "milestone"]


class NewerFormatError(ValueError):
    """A later version of this program wrote the checkpoint."""


@dataclass(frozen=True)
class Note:
    """What the one who saves knows of a checkpoint.

    Attributes:
        step: optimizer steps taken, ≥ 0.
        epoch: epochs finished, ≥ 0.
        reasons: why it is kept, of "last" (every one is, for a while), "best", "milestone".
        values: validation metrics at that step.
        world_size: processes that trained, ≥ 1.
        layout: whether `state.pt` is all of it, or the model and the optimizer lie in shards beside it.
    """

    step: int
    epoch: int
    reasons: tuple[str, ...] = ("last",)
    values: Mapping[str, float] = field(default_factory=dict)
    world_size: int = 1
    layout: Layout = "whole"

    def __post_init__(self) -> None:
        unknown = set(self.reasons) - set(get_args(Reason))
        if unknown:
            raise ValueError(
                f"reasons={self.reasons} has {', '.join(sorted(unknown))}: use last, best, milestone"
            )


@dataclass(frozen=True)
class FileRecord:
    """A file's length and the SHA-256 of its contents, in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest(Note):
    """The contents of `manifest.json`: the note, and what became of it on the disk.

    Attributes:
        number: 1 for a run's first checkpoint; a larger number is newer, whatever the clocks say.
        run: the run it belongs to.
        saved: UTC, ISO 8601; for people only.
        files: by name relative to the checkpoint's folder, "/" between parts.
    """

    number: int
    run: str
    saved: str
    files: Mapping[str, FileRecord]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(record.bytes for record in self.files.values())

    @property
    def folder_name(self) -> str:
        """The name of the checkpoint's folder."""
        return f"checkpoint-{self.number:06d}-step-{self.step}"

    def to_bytes(self) -> bytes:
        """The file's contents."""
        content = {
            "format": FORMAT,
            "number": self.number,
            "step": self.step,
            "epoch": self.epoch,
            "run": self.run,
            "values": {name: encode_number(value) for name, value in self.values.items()},
            "reasons": list(self.reasons),
            "world_size": self.world_size,
            "layout": self.layout,
            "saved": self.saved,
            "files": {name: {"bytes": f.bytes, "sha256": f.sha256} for name, f in sorted(self.files.items())},
        }
        return (json.dumps({**content, "seal": _seal(content)}, indent=1, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Parse the file's contents.

        Raises:
            NewerFormatError: see there.
            ValueError: it is no manifest or not as it was written; a clause that says what is wrong.
        """
        try:
            data = json.loads(content)
        except ValueError as error:  # no JSON, or no UTF-8
            raise ValueError(f"{MANIFEST} is damaged ({error})") from None
        if not isinstance(data, dict) or not isinstance(data.get("format"), int):
            raise ValueError(f"{MANIFEST} is not a checkpoint's manifest")
        seal = data.pop("seal", None)
        if seal != _seal(data):
            raise ValueError(f"{MANIFEST} has changed since it was written (its seal is broken)")
        if data["format"] > FORMAT:
            raise NewerFormatError(
                f"has format {data['format']}, which is newer than this program: update bbi_lightning"
            )
        try:
            return cls(
                number=int(data["number"]),
                step=int(data["step"]),
                epoch=int(data["epoch"]),
                reasons=tuple(data["reasons"]),
                values={name: decode_number(value) for name, value in data["values"].items()},
                world_size=int(data["world_size"]),
                layout=data["layout"],
                run=str(data["run"]),
                saved=str(data["saved"]),
                files={_inside(name): FileRecord(**record) for name, record in data["files"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{MANIFEST} is incomplete ({error!r})") from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the checkpoint in `folder`.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
        ValueError: see `Manifest.from_bytes`.
    """
    return Manifest.from_bytes((folder / MANIFEST).read_bytes())


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _inside(name: str) -> str:
    """The name, if it is one of a file inside the checkpoint's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{MANIFEST} names a file outside the checkpoint ({name})")
    return name
