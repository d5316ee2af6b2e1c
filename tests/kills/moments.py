"""Named moments in the life of a run, and how a process is made to die, or to get a signal, at one of them.

Only test programs import this: the moments are wrapped around the product's own code, which knows nothing of
them. A moment is described by a function that gets `reached`, to be called whenever the moment is passed.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pathlib
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Reached = Callable[[], None]
VARIABLE = "BBI_TEST_KILL"
"""The environment variable that carries a `Kill` into a process."""


@dataclass(frozen=True)
class Kill:
    """A signal at a moment.

    Attributes:
        moment: one of `MOMENTS`.
        nth: at which passing of it in this process, ≥ 1.
        signal: its name; SIGKILL ends the process at once.
        rank: the process that gets it.
    """

    moment: str
    nth: int
    signal: str
    rank: int = 0

    def __str__(self) -> str:
        return f"{self.signal} at {self.moment} {self.nth} of rank {self.rank}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def install(kill: Kill) -> None:
    """Arrange for it in this process."""
    passed = 0

    def reached() -> None:
        nonlocal passed
        passed += 1
        if passed == kill.nth:
            os.kill(os.getpid(), signal.Signals[kill.signal])

    MOMENTS[kill.moment](reached)


def _before(owner: Any, name: str, reached: Reached) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        reached()
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


def _after(owner: Any, name: str, reached: Reached) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        reached()
        return result

    setattr(owner, name, wrapper)


def _classification() -> Any:
    from bbi_lightning.training.classification import Classification

    return Classification


def before_the_run_exists(reached: Reached) -> None:
    from bbi_lightning.tracking.run_folder import RunFolder

    _before(RunFolder, "create", reached)


def before_the_attempt_is_written(reached: Reached) -> None:
    from bbi_lightning.tracking.run_folder import RunFolder

    _before(RunFolder, "begin_attempt", reached)


def while_data_are_prepared(reached: Reached) -> None:
    from bbi_lightning.data.image_data_module import ImageDataModule

    _after(ImageDataModule, "train_dataloader", reached)


def as_training_starts(reached: Reached) -> None:
    _classification().on_train_start = lambda self: reached()


def as_a_batch_arrives(reached: Reached) -> None:
    _classification().on_train_batch_start = lambda self, *args: reached()


def in_forward(reached: Reached) -> None:
    """After the layers, before the loss is returned."""
    _after(_classification(), "training_step", reached)


def in_backward(reached: Reached) -> None:
    """When about half of the layers have their gradients."""
    original = _classification().training_step

    def training_step(self: Any, *args: Any) -> Any:
        layers = [layer for layer in self.model.modules() if list(layer.parameters(recurse=False))]
        remove = layers[len(layers) // 2].register_forward_hook(
            lambda layer, inputs, output: None if output.grad_fn is None else _watch(output, reached)
        )
        try:
            return original(self, *args)
        finally:
            remove.remove()

    _classification().training_step = training_step


def _watch(tensor: Any, reached: Reached) -> None:
    tensor.register_hook(lambda gradient: reached())


def after_the_optimizer(reached: Reached) -> None:
    """Weights and momenta have moved; nobody has counted or logged the step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *args: reached())


def in_validation(reached: Reached) -> None:
    _after(_classification(), "validation_step", reached)


def after_validation(reached: Reached) -> None:
    _after(_classification(), "on_validation_epoch_end", reached)


def in_the_test(reached: Reached) -> None:
    _after(_classification(), "test_step", reached)


def before_a_row(reached: Reached) -> None:
    from bbi_lightning.tracking.metric_log import MetricLog

    _before(MetricLog, "append", reached)


def after_a_row(reached: Reached) -> None:
    from bbi_lightning.tracking.metric_log import MetricLog

    _after(MetricLog, "append", reached)


def in_the_middle_of_a_file(reached: Reached) -> None:
    """Half of a checkpoint's bytes have been written."""
    import torch

    save = torch.save

    def halting(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        buffer = io.BytesIO()
        save(content, buffer, *args, **kwargs)
        whole = buffer.getvalue()
        if isinstance(file, (str, os.PathLike)):
            with Path(file).open("wb") as opened:
                _write_in_two(opened, whole, reached)
        else:
            _write_in_two(file, whole, reached)

    torch.save = halting


def _write_in_two(file: Any, content: bytes, reached: Reached) -> None:
    half = len(content) // 2
    file.write(content[:half])
    file.flush()
    reached()
    file.write(content[half:])


def before_a_sync(reached: Reached) -> None:
    """A file or a folder is about to be forced to the disk: any step of any atomic writing."""
    _before(os, "fsync", reached)


def before_a_rename(reached: Reached) -> None:
    for owner in _FILE_SYSTEM:
        _before(owner, "replace", reached)
        _before(owner, "rename", reached)


def after_a_rename(reached: Reached) -> None:
    for owner in _FILE_SYSTEM:
        _after(owner, "replace", reached)
        _after(owner, "rename", reached)


def before_a_removal(reached: Reached) -> None:
    """An old checkpoint is about to go."""
    _before(os, "unlink", reached)
    _before(os, "rmdir", reached)


# Python 3.10's pathlib keeps the functions of os in an object of its own
_FILE_SYSTEM = [os, *filter(None, [getattr(pathlib, "_normal_accessor", None)])]

MOMENTS: dict[str, Callable[[Reached], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        before_the_run_exists,
        before_the_attempt_is_written,
        while_data_are_prepared,
        as_training_starts,
        as_a_batch_arrives,
        in_forward,
        in_backward,
        after_the_optimizer,
        in_validation,
        after_validation,
        in_the_test,
        before_a_row,
        after_a_row,
        in_the_middle_of_a_file,
        before_a_sync,
        before_a_rename,
        after_a_rename,
        before_a_removal,
    )
}
