from typing import ClassVar

import pytest

from bbi_lightning.tracking.lasting_wandb_logger import LastingWandbLogger


def test_a_wandb_that_breaks_on_the_way_is_one_warning_and_training_goes_on(tmp_path):
    class Broken:
        """A W&B run whose helper process goes after the first row."""

        rows: ClassVar[list[dict]] = []

        def log(self, row, step=None):
            if self.rows:
                raise ConnectionResetError("Connection lost")
            self.rows.append(row)

    logger = LastingWandbLogger(save_dir=tmp_path, experiment=Broken())
    logger.log_metrics({"train/loss": 1.0}, step=1)
    with pytest.warns(UserWarning, match=r"no more rows after step 2 \(Connection lost\)"):
        logger.log_metrics({"train/loss": 0.5}, step=2)
    logger.log_metrics({"train/loss": 0.4}, step=3)  # a second warning would be an error
    assert [row["train/loss"] for row in Broken.rows] == [1.0]


def test_every_row_says_after_how_many_samples_and_seconds_it_comes(tmp_path):
    class Run:
        """Keeps what it is given."""

        rows: ClassVar[list[dict]] = []

        def log(self, row, step=None):
            self.rows.append(row)

    seconds = iter([0.5, 1.25])
    logger = LastingWandbLogger(
        save_dir=tmp_path, experiment=Run(), samples_a_step=64, clock=lambda: next(seconds)
    )
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.log_metrics({"val/loss": 2.0}, step=10)
    assert [(row["samples"], row["time"]) for row in Run.rows] == [(64, 0.5), (640, 1.25)]


def test_a_run_of_unknown_batches_has_no_such_columns(tmp_path):
    class Run:
        """Keeps what it is given."""

        rows: ClassVar[list[dict]] = []

        def log(self, row, step=None):
            self.rows.append(row)

    LastingWandbLogger(save_dir=tmp_path, experiment=Run()).log_metrics({"train/loss": 1.0}, step=1)
    assert "samples" not in Run.rows[0]
    assert "time" not in Run.rows[0]
