"""The keys of `trainer` and `runtime`, as dataclasses: their fields are the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["64-true", "32-true", "bf16-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """What shapes the result: part of a run's identity.

    Attributes:
        max_epochs: passes over the training data; null for no limit (then `max_steps` must end the run).
        max_steps: optimizer steps; null for no limit. Whichever limit comes first ends the run.
        accumulate_grad_batches: batches whose mean gradient makes one optimizer step, ≥ 1.
        gradient_clip_val: largest gradient norm (or value), > 0; null clips nothing.
        gradient_clip_algorithm: whether the norm of all gradients or each value is clipped.
        precision: Lightning's name for the number format.
        deterministic: only deterministic algorithms, an error where there is none; "warn" warns instead.
        check_val_every_n_epoch: epochs between two validations, ≥ 1.
    """

    max_epochs: int | None = 30
    max_steps: int | None = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    precision: Precision = "32-true"
    deterministic: bool | Literal["warn"] = False
    check_val_every_n_epoch: int = 1

    def __post_init__(self) -> None:
        for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "check_val_every_n_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is too small: give 1 or more")
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs=null and max_steps=null would never end: give one of them")
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise ValueError(
                f"gradient_clip_val={self.gradient_clip_val} must be above 0: null switches clipping off"
            )


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Where and how it runs: never part of a run's identity.

    Attributes:
        root: the folder that holds the run folders.
        accelerator: Lightning's name for the kind of device; "auto" takes a GPU where there is one.
        devices: how many of them on each node, ≥ 1.
        num_nodes: machines, ≥ 1.
        strategy: Lightning's name for how they share the work; "auto" is ddp when there are several.
        threads: threads of one CPU operation, ≥ 1; null leaves torch's choice.
        compile: whether the model goes through torch.compile first.
        progress: "auto" draws a bar on a terminal and writes lines elsewhere; or "bar", "lines", "none".
        log_every: optimizer steps between two rows of training metrics, ≥ 1.
        checkpoint_every: seconds between two checkpoints, ≥ 0 (0: after every step).
        group: W&B's name for runs that belong together; null for none.
        labels: anything to find the run by, plain JSON.
    """

    root: str = "runs"
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    threads: int | None = None
    compile: bool = False
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    log_every: int = 20
    checkpoint_every: float = 60.0
    group: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "threads", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is too small: give 1 or more")
        if not self.checkpoint_every >= 0:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} is negative: give seconds, 0 or more")
        if not self.root:
            raise ValueError("root='' names no folder: give the folder that shall hold the runs")

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.devices * self.num_nodes
