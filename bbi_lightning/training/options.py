"""The keys of `trainer`, `runtime` and `checkpoint`, as dataclasses: their fields are the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bbi_lightning.training.time_limit import seconds_of

Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"]
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
        strategy: how they share the work: "ddp" gives each all parameters, "fsdp" a part of them; "auto" is
            ddp when there are several.
        threads: threads of one CPU operation, ≥ 1; null leaves torch's choice.
        compile: whether the model goes through torch.compile first.
        progress: "auto" draws a bar on a terminal and writes lines elsewhere; or "bar", "lines", "none".
        log_every: optimizer steps between two rows of training metrics, ≥ 1.
        max_time: seconds this attempt may take, or "HH:MM:SS"; null: what SLURM grants, if it runs there. The
            run saves in time and leaves.
        stop_within: seconds after a signal in which the run must have reached a step boundary, > 0; a hung
            collective is given up then.
        timeout: seconds after which a collective that not all processes have joined is an error, > 0.
        check_ranks_every: optimizer steps between two comparisons of all processes' states; null for never.
        group: W&B's name for runs that belong together; null for none.
        labels: anything to find the run by, plain JSON.
    """

    root: str = "runs"
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "auto"
    threads: int | None = None
    compile: bool = False
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    log_every: int = 20
    max_time: float | str | None = None
    stop_within: float = 120.0
    timeout: float = 600.0
    check_ranks_every: int | None = None
    group: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "threads", "log_every", "check_ranks_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is too small: give 1 or more")
        for name in ("stop_within", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0: give seconds")
        if self.max_time is not None:
            seconds_of(self.max_time)
        if not self.root:
            raise ValueError("root='' names no folder: give the folder that shall hold the runs")

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """When a run saves and what it keeps: never part of a run's identity.

    Attributes:
        every: seconds between two checkpoints, ≥ 0 (0: after every step).
        keep_last: newest checkpoints to keep, ≥ 1; the second is there should the first be damaged.
        keep_best: the validation metric whose best value's checkpoint is kept; null for none.
        keep_every: optimizer steps between two checkpoints that are kept for good; null for none.
        milestones: optimizer steps after which a checkpoint is saved and kept for good.
    """

    every: float = 60.0
    keep_last: int = 2
    keep_best: Literal["val/loss", "val/acc"] | None = "val/acc"
    keep_every: int | None = None
    milestones: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.every >= 0:
            raise ValueError(f"every={self.every} is negative: give seconds, 0 or more")
        if self.keep_last < 1:
            raise ValueError(f"keep_last={self.keep_last} is too small: give 1 or more")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every={self.keep_every} is too small: give 1 or more optimizer steps")
        if any(step < 1 for step in self.milestones):
            raise ValueError(f"milestones={list(self.milestones)} has a step below 1: count from 1")

    def is_kept_for_good(self, step: int) -> bool:
        """Whether a checkpoint after so many optimizer steps is permanent."""
        return step in self.milestones or (self.keep_every is not None and step % self.keep_every == 0)
