"""What the child of `test_wandb_logger` does: real attempts on runs, each in a process of its own.

`python <this file>` imports Lightning once and forks a process for each job, each with an environment of its
own, so that nothing of this machine's W&B account takes part.
"""

import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

from bbi_lightning.tracking.metric_log import MetricLog
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.wandb_logger import WandbTracking, build_wandb_logger, finish_wandb

CONFIG = {
    "seed": 1000,
    "data": {"_target_": "bbi_lightning.data.digits.Digits", "batch_size": 64},
    "model": {"_target_": "bbi_lightning.models.cnn.CNN", "widths": [16, 32]},
    "optim": {"_target_": "bbi_lightning.optim.BBI", "_partial_": True, "lr": 0.4},
}


def attempt(path, tracking, from_step, to_step, state, labels, break_wandb=False, checkpoints=()):
    """One attempt on a run, as training makes it: the same rows to the metric log and to W&B."""
    folder = RunFolder.create(path, config="seed: 1000\n", labels=labels)
    folder.begin_attempt(from_step=from_step)
    with MetricLog(folder.metrics_file) as log:
        logger = build_wandb_logger(
            WandbTracking(**tracking), folder, CONFIG, parameters=1234 + from_step, clock=lambda: log.seconds
        )
        log.cut_to(from_step)  # one row a step
        for step in range(from_step + 1, to_step + 1):
            metrics = {"train/loss": math.nan if step == 5 else 1 / step, "energy/bounces": step}
            log.append(step, step // 4, metrics)
            if logger is not None:
                logger.log_metrics({"epoch": step // 4, **metrics}, step=step)
    if logger is not None and break_wandb:
        kill_children()
    summary = {"val/acc": 0.9 + from_step / 100, "steps": to_step}
    kept = {alias: checkpoint(folder, name) for alias, name in checkpoints}
    finish_wandb(logger, summary, state=state, checkpoints=kept)
    folder.end_attempt(state, summary=summary)


def checkpoint(folder, name):
    """A checkpoint's folder with two files."""
    path = folder.checkpoints / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").write_text("{}")
    (path / "state.pt").write_bytes(name.encode())
    return path


def kill_children():
    """W&B's helper process, which this process started, goes as if the kernel had run out of memory."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def nothing_from_other_ranks(path):
    from pytorch_lightning.utilities import rank_zero_only

    rank_zero_only.rank = 1
    folder = RunFolder(path)  # rank zero may not even have made it yet
    logger = build_wandb_logger(WandbTracking(), folder, CONFIG, parameters=1)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    finish_wandb(logger, {}, state="finished")


def two_runs_beside_one_of_the_user_s_own(path):
    import wandb

    own = wandb.init(mode="offline", project="own", dir=str(Path(path).parent), id="own")
    for name in ("first", "second"):
        attempt(Path(path) / name, {}, 0, 2, "failed", {})
    own.log({"mine": 1})
    own.finish()


JOBS = {
    "attempt": attempt,
    "other_rank": nothing_from_other_ranks,
    "two_runs": two_runs_beside_one_of_the_user_s_own,
}


def in_a_forked_process(job):
    """Run one job; {"output": what it printed, "error": [type, message] or None, "seconds": how long}."""
    output, answer = Path(job["home"]) / "output.txt", Path(job["home"]) / "answer.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(job["environment"])
        with output.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        error = None
        try:
            JOBS[job["do"]](**job["arguments"])
        except Exception as raised:
            traceback.print_exc()
            error = [type(raised).__name__, str(raised)]
        answer.write_text(json.dumps(error))
        with contextlib.suppress(Exception):
            import wandb

            wandb.teardown()
        os._exit(0)
    os.waitpid(child, 0)
    return {
        "output": output.read_text(),
        "error": json.loads(answer.read_text()),
        "seconds": time.monotonic() - start,
    }


def main():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, at import
        import pytorch_lightning  # noqa: F401  # once, for all forked processes
    jobs = json.loads(sys.stdin.read())
    json.dump([in_a_forked_process(job) for job in jobs], sys.stdout)


if __name__ == "__main__":
    main()
