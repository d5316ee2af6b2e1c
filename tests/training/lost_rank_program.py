"""Run by a test: two ranks that train until something ends them, as `training.run` lets a run end.

python lost_rank_program.py FOLDER STOP_WITHIN

Every rank writes its process id to FOLDER/rank-N once it trains; rank zero writes how the run ended to
FOLDER/record.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from bbi_lightning.training import interrupts
from bbi_lightning.training.leaving import own_exit_code

with interrupts.listening():
    import pytorch_lightning as pl
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from bbi_lightning.training.interrupts import InterruptedRunError
    from bbi_lightning.training.watchdog import LOST_RANK, Watchdog


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        time.sleep(0.002)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class StopWhenAsked(pl.Callback):
    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self.folder = folder
        self.watchdog = watchdog

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        (self.folder / f"rank-{trainer.global_rank}").write_text(str(os.getpid()))

    def on_train_batch_end(self, *_: Any) -> None:
        self.watchdog.reached_boundary()
        vote = torch.tensor(int(interrupts.received() or 0))
        torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MAX)
        if vote:
            raise InterruptedRunError(signal.Signals(int(vote)))


def main(folder: Path, stop_within: float) -> int:
    leads = os.environ.get("LOCAL_RANK", "0") == "0"

    def end(state: str, reason: str) -> None:
        watchdog.leaving(60)
        if leads:
            (folder / "record.json").write_text(json.dumps([state, reason]))

    watchdog = Watchdog(
        stop_within, lambda reason: end("interrupted", reason), lambda reason: end("failed", reason)
    )
    watchdog.start()
    trainer = pl.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StopWhenAsked(folder, watchdog)],
    )
    interrupts.keep_from_lightning(trainer)
    loader = DataLoader(TensorDataset(torch.ones(256, 4)), batch_size=4)
    try:
        trainer.fit(Model(), loader)
    except InterruptedRunError as error:
        end("interrupted", error.cause.name)
        return interrupts.exit_code(error.cause)
    except BaseException as error:
        lost = watchdog.lost_rank()
        end("failed", lost or f"{type(error).__name__}: {error}")
        if lost is None:
            raise
        return LOST_RANK
    finally:
        watchdog.stop()
    return 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with own_exit_code():
        with interrupts.listening():
            code = main(Path(sys.argv[1]), float(sys.argv[2]))
        sys.exit(code)
