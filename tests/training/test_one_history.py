"""The metric log of a run is line by line that of the run that was never stopped, wherever it was stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bbi_lightning.tracking.metric_log import read_metrics
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.classification import Classification
from bbi_lightning.training.config import compose
from bbi_lightning.training.run import train


def trained(root: Path) -> RunFolder:
    """Two epochs; three batches to validate, four to test; a checkpoint at every step."""
    return train(
        compose([
            "tracking=none", "runtime.progress=none", "runtime.threads=1", "runtime.accelerator=cpu",
            "runtime.log_every=4", "trainer.max_epochs=2", "data.eval_batch_size=100", "checkpoint.every=0",
            f"runtime.root={root}",
        ])
    )  # fmt: skip


def history(folder: RunFolder) -> list[dict[str, Any]]:
    """Every row without what a clock measured."""
    return [
        {name: None if name == "time" or name.startswith("speed/") else value for name, value in row.items()}
        for row in read_metrics(folder.metrics_file)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return history(trained(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        *(("training_step", call) for call in (4, 7, 18, 19)),
        *(("validation_step", call) for call in (2, 4)),
        *(("test_step", call) for call in (1, 3)),
    ],
)
def test_stopped_in_any_part_of_a_run(
    hook: str, call: int, whole: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = getattr(Classification, hook), [0]

    def stopping(self: Classification, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, hook, stopping)
        assert trained(tmp_path).record.state == "interrupted"
    folder = trained(tmp_path)
    assert folder.record.state == "finished"
    assert history(folder) == whole
