"""Weights & Biases through Lightning's logger: one run folder is one W&B run, however many attempts it took.

Offline by default: no account, no network; `wandb sync <run folder>/wandb/offline-run-*` sends it later, and
attempts of one run arrive as one. W&B's own step counts log calls, and rows that a resume rolled back appear
twice in it: plot against `trainer/global_step`, which every chart does by default. `metrics.jsonl` stays the
source of truth.

The API key is W&B's business (`wandb login` or WANDB_API_KEY); it is neither read nor stored here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bbi_lightning.tracking.config_file import samples_a_step
from bbi_lightning.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger

STEP = "trainer/global_step"  # the axis of every chart
OTHER_AXES = ("epoch", "samples", "time")
FINISH_TIMEOUT = 120.0  # seconds; after that the rest stays on disk for `wandb sync` and the job can end

_FLAT_LABELS = {
    "sweep": "sweep_name",
    **{label: label for label in ("arm", "phase", "study", "trial", "replicate")},
}
_FLAT_PARTS = {"optim": "optimizer", "model": "architecture", "data": "dataset"}


@dataclass(frozen=True, kw_only=True)
class WandbTracking:
    """Whether and where W&B shows the runs (the config group `tracking`); never part of a run's identity.

    Attributes:
        mode: "offline" writes beside the run, "online" sends while training, "none" leaves W&B out.
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        tags: extra tags; the names of optimizer, model and data set are always there.
        init_timeout: seconds to wait for the server at the start (> 0).
        artifacts: which checkpoints W&B gets when the run has a result: "none", the "best" on validation
            data, the "last", or "both".

    Raises:
        ValueError: an unknown mode, a project W&B cannot have, a timeout that is not positive, or artifacts
            that are none of these.
    """

    mode: Literal["offline", "online", "none"] = "offline"
    project: str = "bbi_lightning"
    entity: str | None = None
    tags: Sequence[str] = ()
    init_timeout: float = 60.0
    artifacts: Literal["none", "best", "last", "both"] = "none"

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online", "none"):
            raise ValueError(f"tracking.mode={self.mode!r} is unknown: use offline, online or none")
        if not self.project or len(self.project) > 128 or set(self.project) & set("/\\#?%:"):
            raise ValueError(
                f"tracking.project={self.project!r} cannot be had: use up to 128 characters, none of /\\#?%:"
            )
        if not self.init_timeout > 0:
            raise ValueError(f"tracking.init_timeout={self.init_timeout} must be positive: give seconds")
        if self.artifacts not in ("none", "best", "last", "both"):
            raise ValueError(
                f"tracking.artifacts={self.artifacts!r} is unknown: use none, best, last or both"
            )

    @property
    def artifact_aliases(self) -> tuple[str, ...]:
        """The checkpoints that W&B gets, by their aliases there; empty when it gets none."""
        if self.mode == "none" or self.artifacts == "none":
            return ()
        return ("best", "last") if self.artifacts == "both" else (self.artifacts,)


def build_wandb_logger(
    tracking: WandbTracking,
    folder: RunFolder,
    config: Mapping[str, Any],
    *,
    parameters: int,
    group: str | None = None,
    clock: Callable[[], float] | None = None,
) -> WandbLogger | None:
    """Lightning's logger with its W&B run started; None for mode "none".

    Takes about 2 s the first time in a process. Call after `folder.begin_attempt()`, whose facts (commit,
    dirty, hardware, versions) go into W&B's config. On ranks other than zero no W&B run is started and the
    logger does nothing.

    Args:
        tracking: the settings.
        folder: the run; its name is W&B's id and display name.
        config: the resolved config in plain containers.
        parameters: number of trainable parameters.
        group: W&B group; the label "sweep" if not given. A run with the label "arm" goes into that arm's part
            of it, see `group_of`.
        clock: seconds of training so far, for the column `time`; without it there is none.

    Raises:
        ConnectionError: the server cannot be reached or refuses the run.
        PermissionError: the key is not accepted.
        ValueError: W&B refuses what it was given; above all when nobody is logged in.
    """
    if tracking.mode == "none":
        return None
    from bbi_lightning.tracking.lasting_wandb_logger import LastingWandbLogger

    # Started here and not by Lightning, which starts it at the first row: an unreachable server must be known
    # before any training, and a run of somebody else in this process must stay theirs.
    run = start_run(tracking, folder, config, parameters, group) if _is_rank_zero() else None
    return LastingWandbLogger(
        samples_a_step=samples_a_step(config),
        clock=clock,
        project=tracking.project,
        id=folder.name,
        name=folder.name,
        save_dir=folder.path.resolve(),  # W&B's process may have been started in another folder
        experiment=run,
    )


def start_run(
    tracking: WandbTracking, folder: RunFolder, config: Mapping[str, Any], parameters: int, group: str | None
) -> Any:
    """A running `wandb.Run` whose every metric has the optimizer step for its x-axis.

    Args and Raises: as `build_wandb_logger`; the mode is not "none".
    """
    import wandb

    labels = folder.record.labels
    mode: Literal["online", "offline"] = "online" if tracking.mode == "online" else "offline"
    try:
        run = wandb.init(
            mode=mode,
            project=tracking.project,
            entity=tracking.entity,
            id=folder.name,
            name=folder.name,
            resume="allow",
            reinit="create_new",
            group=_group(group, labels),
            job_type=labels.get("phase", "train"),
            tags=_tags(tracking, config),
            config=_complete_config(folder, config, parameters),
            dir=str(folder.path.resolve()),
            settings=_settings(wandb, tracking),
        )
    except wandb.errors.UsageError as error:
        raise ValueError(_refusal(tracking, error, "W&B refuses to start", "do as it says")) from None
    except wandb.errors.AuthenticationError as error:
        raise PermissionError(_refusal(tracking, error, "the login fails", "run `wandb login`")) from None
    except wandb.errors.Error as error:
        raise ConnectionError(
            _refusal(tracking, error, "no server can be had", "check the network")
        ) from None
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for axis in OTHER_AXES:  # of charts that ask for it; none of them needs a chart of its own
        run.define_metric(axis, step_metric=STEP, step_sync=True, hidden=True)
    return run


def group_of(sweep: str, arm: str | None = None) -> str:
    """The W&B group of a sweep's runs: one for each arm, so that W&B's means are of one optimizer's runs."""
    return f"{sweep}/{arm}" if arm else sweep


def finish_wandb(
    logger: WandbLogger | None,
    summary: Mapping[str, Any],
    *,
    state: str,
    checkpoints: Mapping[str, Path] | None = None,
) -> None:
    """Fill in W&B's summary and end its run; waits for the upload, at most two minutes.

    W&B shows "finished" for results (finished, diverged), "preempted" for an interrupted run, else "failed".
    Trouble here is a warning: the run itself is complete on disk.

    Args:
        logger: what `build_wandb_logger` returned.
        summary: as in `RunFolder.end_attempt`.
        state: as in `RunFolder.end_attempt`.
        checkpoints: folders to send, by alias ("best", "last"); they become versions of the artifact
            "<run>-checkpoint". Two aliases of one folder are one version. Their files are not copied, so an
            offline run's must still be there when it is sent.
    """
    if logger is None or not _is_rank_zero():
        return
    try:
        end_run(logger.experiment, summary, state, checkpoints or {})
    except Exception as error:  # W&B's helper process may be gone, in its own ways; the run is not
        warnings.warn(
            f"W&B did not finish ({_in_one_line(error)}): send {logger.save_dir}/wandb/* with `wandb sync`",
            stacklevel=2,
        )


def end_run(run: Any, summary: Mapping[str, Any], state: str, checkpoints: Mapping[str, Path]) -> None:
    """End a `wandb.Run` as `finish_wandb` does, which see; here trouble is an exception of W&B's."""
    _log_checkpoints(run, checkpoints)
    run.summary.update(dict(summary))
    if state == "interrupted":
        run.mark_preempting()
    run.finish(exit_code=0 if state in ("finished", "diverged") else 1)


def _log_checkpoints(run: Any, checkpoints: Mapping[str, Path]) -> None:
    import wandb

    aliases: dict[Path, list[str]] = {}
    for alias, path in checkpoints.items():
        aliases.setdefault(path, []).append(alias)
    for path, names in aliases.items():
        artifact = wandb.Artifact(f"{run.id}-checkpoint", type="model", metadata={"checkpoint": path.name})
        # absolute: what is recorded offline may be sent from elsewhere
        artifact.add_dir(str(path.resolve()), skip_cache=True, policy="immutable")
        run.log_artifact(artifact, aliases=names)


def _is_rank_zero() -> bool:
    from pytorch_lightning.utilities import rank_zero_only

    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning keeps it on the function


def _group(group: str | None, labels: Mapping[str, Any]) -> str | None:
    sweep = group or labels.get("sweep")
    return group_of(sweep, labels.get("arm")) if sweep else None


def _settings(wandb: Any, tracking: WandbTracking) -> Any:
    return wandb.Settings(
        console="off",  # what a run prints is not W&B's to keep
        disable_git=True,  # the config has commit and diff digest; W&B would store the diff and the remote
        quiet=True,
        silent=tracking.mode == "offline",  # its hints how to sync would repeat for every run of a sweep
        force=True,  # "online" without a login must not turn into offline unasked
        init_timeout=tracking.init_timeout,
        finish_timeout=FINISH_TIMEOUT,
    )


def _complete_config(folder: RunFolder, config: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """The resolved config and, beside its keys, what made this run: code, machine, labels, size.

    The labels stand there twice: as they are, and flat, where W&B can filter and group by them. "sweep" is
    `sweep_name`, for W&B takes "sweep" for a sweep of its own.
    """
    record = folder.record
    facts: dict[str, Any] = {"parameters": parameters, "labels": dict(record.labels)}
    facts |= {
        name: record.labels[label]
        for label, name in _FLAT_LABELS.items()
        if record.labels.get(label) is not None
    }
    facts |= {name: what for group, name in _FLAT_PARTS.items() if (what := _class_name(config, group))}
    if record.attempts:
        attempt = asdict(record.attempts[-1])
        facts |= {
            key: attempt[key] for key in ("commit", "dirty", "diff_sha256", "hardware", "versions", "host")
        }
    return {**config, **facts}


def _tags(tracking: WandbTracking, config: Mapping[str, Any]) -> list[str]:
    """The class names of optimizer, model and data, then the user's own tags."""
    names = [name for group in _FLAT_PARTS if (name := _class_name(config, group))]
    return list(dict.fromkeys([*names, *tracking.tags]))


def _class_name(config: Mapping[str, Any], group: str) -> str:
    target: str = (config.get(group) or {}).get("_target_", "")
    return target.rpartition(".")[2]


def _refusal(tracking: WandbTracking, error: Exception, what: str, remedy: str) -> str:
    fallback = {"online": "offline", "offline": "none"}[tracking.mode]
    return (
        f"tracking={tracking.mode}, but {what} ({_in_one_line(error)}): {remedy}, or use tracking={fallback}"
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
