"""Lightning saves into the store and resumes from it; what it loads is data only."""

from __future__ import annotations

import pickle
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bbi_lightning.checkpoints.lightning_io import StoreCheckpointIO
from bbi_lightning.checkpoints.manifest import STATE, Note
from bbi_lightning.checkpoints.store import CheckpointStore
from bbi_lightning.checkpoints.writer import CheckpointWriter


class Tiny(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SaveAt(Callback):
    """Saves after these steps."""

    def __init__(self, io: StoreCheckpointIO, steps: set[int]) -> None:
        self.io = io
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if trainer.global_step in self.steps:
            self.io.note = Note(trainer.global_step, trainer.current_epoch, ("milestone",))
            trainer.save_checkpoint("anywhere")


@pytest.fixture
def io(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", "tiny-s0", keep_last=10)
    io = StoreCheckpointIO(CheckpointWriter(store, on_trouble=pytest.fail))
    yield io
    io.writer.close()


def trained(io: StoreCheckpointIO, folder, steps: set[int], resume_from=None) -> Tiny:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=4,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[SaveAt(io, steps)],
            plugins=[io],
        )
        module = Tiny()
        trainer.fit(module, DataLoader(data, batch_size=8), ckpt_path=resume_from)
    return module


def test_a_run_resumed_from_the_store_ends_like_one_that_was_never_stopped(io, tmp_path):
    whole = trained(io, tmp_path, {4, 8, 12})
    assert io.writer.flush()
    store = io.writer.store
    assert [c.step for c in store.checkpoints()] == [4, 8, 12]
    assert not (tmp_path / "anywhere").exists()
    middle = store.checkpoints()[1]
    resumed = trained(io, tmp_path, set(), resume_from=middle.path)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_what_lightning_keeps_is_saved_whole(io, tmp_path):
    trained(io, tmp_path, {8})
    assert io.writer.flush()
    state = io.load_checkpoint(io.writer.store.checkpoints()[0].path)
    assert state["global_step"] == 8
    assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"} <= state.keys()


def test_what_was_loaded_does_not_depend_on_the_file_any_more(io):
    io.note = Note(1, 0)
    io.save_checkpoint({"w": torch.ones(100_000)}, "")
    assert io.writer.flush()
    path = io.writer.store.checkpoints()[0].path
    loaded = io.load_checkpoint(path)
    (path / STATE).write_bytes(b"")
    assert loaded["w"].sum() == 100_000


def test_a_checkpoint_that_would_run_code_is_not_loaded_even_if_asked_to(io, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    torch.save({"evil": Evil()}, tmp_path / STATE)
    with pytest.raises(pickle.UnpicklingError):
        io.load_checkpoint(tmp_path, weights_only=False)


def test_a_save_without_a_note_is_refused(io):
    with pytest.raises(RuntimeError, match="set `note`"):
        io.save_checkpoint({}, "anywhere")
