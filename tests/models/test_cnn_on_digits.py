"""The defaults are worth comparing optimizers on: well trained, and a run takes about a second."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bbi_lightning.data.digits import DigitsDataModule
from bbi_lightning.models.cnn import CNN


@pytest.mark.parametrize(
    ("optimizer", "arguments", "least"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 0.98),
        (torch.optim.AdamW, {"lr": 0.01}, 0.985),
    ],
)
def test_usual_optimizers_reach_a_good_digits_models_accuracy(optimizer, arguments, least):
    accuracies = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        data = DigitsDataModule(seed=seed)
        data.setup("fit")
        data.setup("test")
        model = CNN(image_shape=data.image_shape, num_classes=data.num_classes)
        steps = optimizer(model.parameters(), **arguments)
        loader = data.train_dataloader()
        for _ in range(30):
            for images, labels in loader:
                steps.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                steps.step()

        model.eval()
        with torch.no_grad():
            hits = [model(images).argmax(1) == labels for images, labels in data.test_dataloader()]
        accuracies.append(torch.cat(hits).float().mean().item())
    assert sum(accuracies) / len(accuracies) >= least
