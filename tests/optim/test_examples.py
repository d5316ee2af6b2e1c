from __future__ import annotations

import doctest

import pytest

import bbi_lightning.optim as optim
from bbi_lightning.optim import ECD

CLASSES = [getattr(optim, name) for name in optim.__all__]


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not ECD])
def test_the_example_in_every_docstring_runs(cls: type[ECD]):
    tests = doctest.DocTestFinder(recurse=False).find(cls, cls.__name__)
    assert sum(len(test.examples) for test in tests) > 0
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_the_example_of_the_package_runs():
    """It is written as a program, for a model and data of the reader's."""
    import torch

    source = optim.__doc__.split("\n", 1)[1]
    names = {
        "model": (model := torch.nn.Linear(3, 1)),
        "loss_fn": torch.nn.functional.mse_loss,
        "x": torch.randn(8, 3),
        "y": torch.randn(8, 1),
    }
    before = model.weight.detach().clone()
    exec(source, names)
    assert not torch.equal(model.weight, before)
