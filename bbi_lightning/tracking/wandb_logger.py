"""Weights & Biases through Lightning's logger: one run folder is one W&B run, however many attempts it took.

Offline by default: no account, no network; `wandb sync <run folder>/wandb/offline-run-*` sends it later, and
attempts of one run arrive as one. W&B's own step counts log calls, and rows that a resume rolled back appear
twice in it: plot against `trainer/global_step`, which every chart does by default. `metrics.jsonl` stays the
source of truth.

The API key is W&B's business (`wandb login` or WANDB_API_KEY); it is neither read nor stored here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bbi_lightning.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger

FINISH_TIMEOUT = 120.0  # seconds; after that the rest stays on disk for `wandb sync` and the job can end


@dataclass(frozen=True, kw_only=True)
class WandbTracking:
    """Whether and where W&B shows the runs (the config group `tracking`); never part of a run's identity.

    Attributes:
        mode: "offline" writes beside the run, "online" sends while training, "none" leaves W&B out.
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        tags: extra tags; the names of optimizer, model and data set are always there.
        init_timeout: seconds to wait for the server at the start (> 0).

    Raises:
        ValueError: an unknown mode, a project W&B cannot have, or a timeout that is not positive.
    """

    mode: Literal["offline", "online", "none"] = "offline"
    project: str = "bbi_lightning"
    entity: str | None = None
    tags: Sequence[str] = ()
    init_timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online", "none"):
            raise ValueError(f"tracking.mode={self.mode!r} is unknown: use offline, online or none")
        if not self.project or len(self.project) > 128 or set(self.project) & set("/\\#?%:"):
            raise ValueError(
                f"tracking.project={self.project!r} cannot be had: use up to 128 characters, none of /\\#?%:"
            )
        if not self.init_timeout > 0:
            raise ValueError(f"tracking.init_timeout={self.init_timeout} must be positive: give seconds")


def build_wandb_logger(
    tracking: WandbTracking,
    folder: RunFolder,
    config: Mapping[str, Any],
    *,
    parameters: int,
    group: str | None = None,
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
        group: W&B group; the label "sweep" if not given.

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
    run = _start_run(tracking, folder, config, parameters, group) if _is_rank_zero() else None
    return LastingWandbLogger(
        project=tracking.project, id=folder.name, name=folder.name, save_dir=folder.path, experiment=run
    )


def _start_run(
    tracking: WandbTracking, folder: RunFolder, config: Mapping[str, Any], parameters: int, group: str | None
) -> Any:
    """A running `wandb.Run` whose every metric has the optimizer step for its x-axis."""
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
            group=group or labels.get("sweep"),
            job_type=labels.get("phase", "train"),
            tags=_tags(tracking, config),
            config=_complete_config(folder, config, parameters),
            dir=str(folder.path),
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
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


def finish_wandb(logger: WandbLogger | None, summary: Mapping[str, Any], *, state: str) -> None:
    """Fill in W&B's summary and end its run; waits for the upload, at most two minutes.

    W&B shows "finished" for results (finished, diverged), "preempted" for an interrupted run, else "failed".
    Trouble here is a warning: the run itself is complete on disk.

    Args:
        logger: what `build_wandb_logger` returned.
        summary: as in `RunFolder.end_attempt`.
        state: as in `RunFolder.end_attempt`.
    """
    if logger is None or not _is_rank_zero():
        return
    try:
        run = logger.experiment
        run.summary.update(dict(summary))
        if state == "interrupted":
            run.mark_preempting()
        run.finish(exit_code=0 if state in ("finished", "diverged") else 1)
    except Exception as error:  # W&B's helper process may be gone, in its own ways; the run is not
        warnings.warn(
            f"W&B did not finish ({_in_one_line(error)}): send {logger.save_dir}/wandb/* with `wandb sync`",
            stacklevel=2,
        )


def _is_rank_zero() -> bool:
    from pytorch_lightning.utilities import rank_zero_only

    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning keeps it on the function


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
    """The resolved config and, beside its keys, what made this run: code, machine, labels, size."""
    record = folder.record
    facts: dict[str, Any] = {"parameters": parameters, "labels": dict(record.labels)}
    if record.attempts:
        attempt = asdict(record.attempts[-1])
        facts |= {
            key: attempt[key] for key in ("commit", "dirty", "diff_sha256", "hardware", "versions", "host")
        }
    return {**config, **facts}


def _tags(tracking: WandbTracking, config: Mapping[str, Any]) -> list[str]:
    """The class names of optimizer, model and data, then the user's own tags."""
    targets = [(config.get(group) or {}).get("_target_", "") for group in ("optim", "model", "data")]
    names = [target.rpartition(".")[2] for target in targets if target]
    return list(dict.fromkeys([*names, *tracking.tags]))


def _refusal(tracking: WandbTracking, error: Exception, what: str, remedy: str) -> str:
    fallback = {"online": "offline", "offline": "none"}[tracking.mode]
    return (
        f"tracking={tracking.mode}, but {what} ({_in_one_line(error)}): {remedy}, or use tracking={fallback}"
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
