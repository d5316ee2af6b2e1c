"""What is taken out of Lightning's way changes nothing but the time."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from bbi_lightning.training.classification import Classification
from bbi_lightning.training.lean_lightning import LeanModule, NoProfiler, without_signature_search
from training.reference import bare_trainer, batches, loader, network, sgd

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]


def test_parameters_buffers_and_modules_are_registered_as_ever() -> None:
    module = LeanModule()
    module.weight = nn.Parameter(torch.zeros(2))
    module.inner = nn.Linear(2, 2)
    module.register_buffer("mean", torch.zeros(1))
    module.mean = torch.ones(1)
    module._current_fx_name = "training_step"
    assert set(module.state_dict()) == {"weight", "inner.weight", "inner.bias", "mean"}
    assert module._buffers["mean"] == 1
    assert module._current_fx_name == "training_step"


class NotesHooks(Classification):
    """Logs in two hooks, for which Lightning must know their names."""

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        self.names = [*getattr(self, "names", []), self._current_fx_name]

    def on_train_epoch_end(self) -> None:
        self.names.append(self._current_fx_name)
        self.log("said", 3.0)


def test_lightning_knows_which_hook_is_running() -> None:
    module = NotesHooks(network(), nn.CrossEntropyLoss(), sgd, num_classes=3)
    trainer = bare_trainer(precision="64-true", profiler=NoProfiler())
    trainer.fit(module, loader(batches(2)))
    assert module.names == ["on_train_batch_start", "on_train_batch_start", "on_train_epoch_end"]
    assert module._current_fx_name is None
    assert trainer.callback_metrics["said"] == 3.0


def test_training_step_is_given_what_lightning_would_give_it() -> None:
    module = Classification(network(), nn.CrossEntropyLoss(), sgd, num_classes=3)
    trainer = bare_trainer()
    trainer.strategy._lightning_module = module
    loop = trainer.fit_loop.epoch_loop
    theirs = loop._build_kwargs(OrderedDict(), "batch", 7)
    without_signature_search(trainer)
    assert loop._build_kwargs(OrderedDict(), "batch", 7) == dict(theirs) == {"batch": "batch", "batch_idx": 7}


def test_the_profiler_that_measures_nothing_nests_and_lets_errors_pass() -> None:
    profiler = NoProfiler()
    with pytest.raises(KeyError), profiler.profile("outer"), profiler.profile("inner"):
        raise KeyError
    assert profiler.summary() == ""
