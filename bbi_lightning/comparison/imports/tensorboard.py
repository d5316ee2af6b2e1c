"""TensorBoard's event files: one folder a run.

Scalars of `SummaryWriter.add_scalar` and of TensorFlow 2, in all event files of the folder, in the order of
their steps (of a step that a restarted run wrote twice, the later one counts). The settings come from
`hparams.yaml` (Lightning's TensorBoardLogger) or from `SummaryWriter.add_hparams`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bbi_lightning.comparison.imports.csv_folder import read_hparams
from bbi_lightning.comparison.imports.foreign import ForeignDataError, ForeignRun, Watch, unwatched

_EVENTS = "events.out.tfevents."
_HPARAMS = "_hparams_/session_start_info"


def read_tensorboard(folder: str | Path, watch: Watch = unwatched) -> tuple[ForeignRun, ...]:
    """The runs below a folder.

    Raises:
        ForeignDataError: there are none, something cannot be read, or the package is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ForeignDataError(f"{folder} is no folder: give the one that tensorboard --logdir is given")
    places = sorted({file.parent for file in folder.rglob(f"{_EVENTS}*")})
    if not places:
        raise ForeignDataError(f"{folder} holds no event files ({_EVENTS}…): give TensorBoard's log folder")
    read = {place: _read(place) for place in watch(places, len(places), "Reading")}
    runs = []
    for place, (scalars, settings) in read.items():
        if not scalars:
            continue
        # add_hparams writes into a folder of its own, below the run's
        below = [found for other, (_, found) in read.items() if place in other.parents and found]
        if _is_a_session_of(place, read):
            continue
        own = (place / "hparams.yaml").is_file()
        config = read_hparams(place / "hparams.yaml") if own else settings or (below[0] if below else {})
        name = place.relative_to(folder).as_posix()
        runs.append(_run(folder.resolve().name if name == "." else name, config, scalars))
    if not runs:
        raise ForeignDataError(f"the event files in {folder} hold no scalars: nothing can be compared")
    return tuple(runs)


def _is_a_session_of(place: Path, read: Mapping[Path, Any]) -> bool:
    """Whether it is the folder that `add_hparams` has made below a run's."""
    return bool(read[place][1]) and any(parent in read and read[parent][0] for parent in place.parents)


Scalars = dict[str, dict[int, tuple[float, float]]]  # tag → step → (wall time, value)


def _read(place: Path) -> tuple[Scalars, dict[str, Any]]:
    """Scalars and settings of one folder's event files."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ModuleNotFoundError:
        raise ForeignDataError(
            "reading event files wants tensorboard: pip install 'bbi-lightning[tensorboard]'"
        ) from None
    scalars: Scalars = {}
    settings: dict[str, Any] = {}
    for file in sorted(place.glob(f"{_EVENTS}*")):
        try:
            # a last record that is cut short ends the file; the loader says nothing of it
            for event in EventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    if value.tag == _HPARAMS:
                        settings |= _settings(value.metadata.plugin_data.content)
                    elif value.HasField("tensor") and value.metadata.plugin_data.plugin_name in (
                        "scalars",
                        "",
                    ):
                        numbers = tensor_util.make_ndarray(value.tensor)
                        if numbers.size == 1 and numbers.dtype.kind in "fiu":
                            one = (float(event.wall_time), float(numbers.reshape(())))
                            scalars.setdefault(value.tag, {})[int(event.step)] = one
        except Exception as error:  # whatever the package raises for bytes that are no records
            raise ForeignDataError(
                f"{file} cannot be read ({' '.join(str(error).split())[:120]}): take it out of the folder"
            ) from None
    return scalars, settings


def _settings(content: bytes) -> dict[str, Any]:
    """What `add_hparams` was told."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    values = HParamsPluginData.FromString(content).session_start_info.hparams
    found: dict[str, Any] = {}
    for name, value in values.items():
        kind = value.WhichOneof("kind")
        plain = getattr(value, kind) if kind else None
        found[name] = int(plain) if isinstance(plain, float) and plain.is_integer() else plain
    return found


def _run(name: str, config: Mapping[str, Any], scalars: Scalars) -> ForeignRun:
    began = min(wall for steps in scalars.values() for wall, _ in steps.values())
    rows: dict[int, dict[str, float]] = {}
    for tag, steps in scalars.items():
        for step, (wall, value) in steps.items():
            row = rows.setdefault(step, {"step": step, "time": 0.0})
            row["time"] = max(row["time"], round(wall - began, 3))
            row[tag] = value
    return ForeignRun(
        key=name,
        name=name,
        config=config,
        rows=tuple(rows[step] for step in sorted(rows)),
        created=datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds"),
    )
