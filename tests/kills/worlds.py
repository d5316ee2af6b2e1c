"""Circumstances that must not matter: another clock, another host; and sabotage, which must be noticed."""

from __future__ import annotations

import contextlib
import datetime
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "BBI_TEST_WORLD"
"""The environment variable that carries a world, as JSON, into a process."""


def install(world: Mapping[str, Any]) -> None:
    """Enter it.

    Args:
        world: any of clock (seconds that the clock is ahead), host (its name), full_disk (see `_fill_disk`),
            sabotage (one of `SABOTAGE`).
    """
    if "clock" in world:
        _move_clock(float(world["clock"]))
    if "host" in world:
        socket.gethostname = lambda: str(world["host"])
    if "full_disk" in world:
        _fill_disk(**world["full_disk"])
    if "sabotage" in world:
        SABOTAGE[world["sabotage"]]()


def _move_clock(seconds: float) -> None:
    """The clock on the wall, as Python code sees it; the stamps of files are the test's business."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)

    class Displaced(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return super().now(tz) + datetime.timedelta(seconds=seconds)

    datetime.datetime = Displaced  # type: ignore[misc]
    for module in _modules_of_ours():
        if getattr(module, "datetime", None) is Displaced.__base__:
            module.datetime = Displaced


def _fill_disk(ballast: str, after: int, until: int | None) -> None:
    """Leave no byte free from one optimizer step of this process on, until another one; None: for good."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    taken = 0

    def step(*args: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == until:
            Path(ballast).unlink()
        elif taken >= after and (until is None or taken < until):
            _fill(Path(ballast))  # again and again: a save that failed gives back what it had taken

    register_optimizer_step_post_hook(step)


def _fill(file: Path) -> None:
    with file.open("ab", buffering=0) as ballast:
        for block in (4096, 1):  # first in pages, then the rest of the last one
            with contextlib.suppress(OSError):
                while ballast.write(bytes(block)):
                    pass


def _modules_of_ours() -> list[Any]:
    import sys

    return [module for name, module in list(sys.modules.items()) if name.startswith("bbi_lightning")]


def _forget_generators() -> None:
    from bbi_lightning.training import generators

    generators.restore_generators = lambda states: None


def _forget_momenta() -> None:
    import torch

    load = torch.optim.Optimizer.load_state_dict

    def without_state(self: Any, state_dict: Any) -> None:
        load(self, state_dict)
        self.state.clear()

    torch.optim.Optimizer.load_state_dict = without_state  # type: ignore[method-assign]


def _keep_rows() -> None:
    from bbi_lightning.tracking.metric_log import MetricLog

    MetricLog.cut_to = lambda self, rows, **more: 0


def _lose_a_bit() -> None:
    """One weight is off by one unit in its last place after loading."""
    import torch

    load = torch.nn.Module.load_state_dict

    def off_by_one(self: Any, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, state_dict, *args, **kwargs)
        with torch.no_grad():
            weight = list(self.parameters())[-1].view(-1)  # of the last layer: all outputs depend on it
            weight[0] = torch.nextafter(weight[0], weight[0] + 1)
        return result

    torch.nn.Module.load_state_dict = off_by_one  # type: ignore[method-assign]


SABOTAGE = {
    "generators are forgotten": _forget_generators,
    "momenta are forgotten": _forget_momenta,
    "rows are not cut back": _keep_rows,
    "a weight changes its last bit": _lose_a_bit,
}
