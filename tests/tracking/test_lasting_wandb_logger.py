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
