"""What holds for every model, one row each; the last test fails where a row is forgotten."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from torch import nn

from bbi_lightning.models.cnn import CNN
from bbi_lightning.models.mlp import MLP
from bbi_lightning.models.mnist_cnn import MNISTCNN
from bbi_lightning.models.resnet import CIFARResNet18, ResNet18, ResNet50
from bbi_lightning.models.vit import ViTB, ViTS, default_patch_size
from bbi_lightning.models.wide_resnet import WideResNet

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "model").glob("*.yaml"))
DIGITS, MNIST, CIFAR, IMAGENET = (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 224, 224)
HEAD_STARTS_AT_ZERO = (ViTS, ViTB)


@dataclass(frozen=True)
class Row:
    """A model as small as it may be for the tests that run it, on each kind of images it is meant for."""

    model: type[nn.Module]
    shapes: list[tuple[int, int, int]]
    arguments: dict[str, Any] = field(default_factory=dict)

    def make(self, shape: tuple[int, int, int], num_classes: int = 5) -> nn.Module:
        torch.manual_seed(0)
        return self.model(image_shape=shape, num_classes=num_classes, **self.arguments)


ROWS = [
    Row(MLP, [DIGITS, CIFAR], {"widths": [16, 8], "dropout": 0.1}),
    Row(CNN, [DIGITS, MNIST, CIFAR, (2, 1, 9)], {"dropout": 0.1}),
    Row(CNN, [DIGITS], {"channels": [4], "kernel_size": 5, "batch_norm": False}),
    Row(MNISTCNN, [DIGITS, MNIST, CIFAR]),
    Row(CIFARResNet18, [DIGITS, MNIST, CIFAR]),
    Row(ResNet18, [CIFAR, (1, 64, 48)]),
    Row(ResNet50, [CIFAR]),
    Row(WideResNet, [DIGITS, CIFAR], {"depth": 10, "widen_factor": 1, "dropout": 0.3}),
    Row(ViTS, [DIGITS, CIFAR], {"dropout": 0.1}),
    Row(ViTB, [CIFAR]),
]
CASES = [
    pytest.param(row, shape, id=f"{row.model.__name__}-{'x'.join(map(str, shape))}")
    for row in ROWS
    for shape in row.shapes
]


@pytest.mark.parametrize(("row", "shape"), CASES)
def test_a_batch_gives_finite_logits(row, shape):
    logits = row.make(shape)(torch.randn(3, *shape))
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize(("row", "shape"), CASES)
def test_the_loss_reaches_every_parameter(row, shape):
    model = row.make(shape)
    if row.model in HEAD_STARTS_AT_ZERO:
        nn.init.normal_(model.heads.head.weight, std=0.1)
    images, labels = torch.randn(8, *shape), torch.arange(8) % 5
    nn.functional.cross_entropy(model(images), labels).backward()
    unreached = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert unreached == []


@pytest.mark.parametrize(("row", "shape"), CASES)
def test_evaluation_is_deterministic_and_treats_samples_alone(row, shape):
    model = row.make(shape).eval()
    images = torch.randn(4, *shape)
    with torch.no_grad():
        logits = model(images)
        assert torch.equal(logits, model(images))
        torch.testing.assert_close(model(images[1:3]), logits[1:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.model.__name__)
def test_a_seed_determines_the_initial_parameters(row):
    first, second = (row.make(row.shapes[0]).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("model", "shape", "num_classes", "expected"),
    [
        pytest.param(CIFARResNet18, CIFAR, 10, 11_173_962, id="ResNet-18-CIFAR-10"),
        pytest.param(ResNet18, IMAGENET, 1000, 11_689_512, id="ResNet-18"),
        pytest.param(ResNet50, IMAGENET, 1000, 25_557_032, id="ResNet-50"),
        pytest.param(WideResNet, CIFAR, 10, 36_479_194, id="WRN-28-10"),
        pytest.param(ViTS, IMAGENET, 1000, 22_050_664, id="ViT-S/16"),
        pytest.param(ViTB, IMAGENET, 1000, 86_567_656, id="ViT-B/16"),
        pytest.param(MNISTCNN, MNIST, 10, 28_938, id="MNIST-CNN"),
        pytest.param(MNISTCNN, MNIST, 120, 201_528, id="MNIST-CNN-as-in-the-paper's-code"),
    ],
)
def test_parameters_are_as_many_as_published(model, shape, num_classes, expected):
    with torch.device("meta"):
        made = model(image_shape=shape, num_classes=num_classes)
    assert sum(parameter.numel() for parameter in made.parameters()) == expected


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ResNet18, "resnet18"), (ResNet50, "resnet50"), (ViTB, "vit_b_16")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_torchvisions_checkpoints_load(ours, theirs):
    with torch.device("meta"):
        model = ours(image_shape=IMAGENET, num_classes=1000)
        reference = getattr(torchvision.models, theirs)(weights=None)
    expected = {name: value.shape for name, value in reference.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("model", [CIFARResNet18, WideResNet])
def test_a_small_image_keeps_its_resolution_to_the_last_stage(model):
    """8x8 of 32x32 after three stages (ResNet-18 halves once more): the 3x3 stem does not reduce."""
    made = model(image_shape=CIFAR, num_classes=10, **({"depth": 10} if model is WideResNet else {}))
    sizes = []
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _input, output: sizes.append(output.shape[-1]))
    made(torch.zeros(2, *CIFAR))
    assert sizes[0] == 32
    assert sizes[-1] == (4 if model is CIFARResNet18 else 8)


@pytest.mark.parametrize(
    ("side", "patch"), [(8, 1), (28, 4), (32, 4), (64, 8), (96, 12), (128, 16), (224, 16), (7, 1), (5, 1)]
)
def test_the_default_patch_divides_the_image(side, patch):
    assert default_patch_size(side) == patch


TASK = {"image_shape": CIFAR, "num_classes": 10}


@pytest.mark.parametrize("model", [row.model for row in ROWS], ids=lambda model: model.__name__)
@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        ({"image_shape": (32, 32)}, r"image_shape=\(32, 32\) is not three positive integers"),
        ({"image_shape": (3, 32, 0)}, r"image_shape=\(3, 32, 0\) is not three positive integers"),
        ({"num_classes": 1}, r"num_classes=1 is not an integer of at least 2"),
        ({"num_classes": 2.0}, r"num_classes=2\.0 is not an integer"),
    ],
)
def test_an_impossible_task_is_named(model, task, complaint):
    with pytest.raises(ValueError, match=complaint):
        model(**(TASK | task))


@pytest.mark.parametrize(
    ("model", "arguments", "complaint"),
    [
        (MLP, {"widths": []}, r"widths=\[\] is not a list of positive integers"),
        (MLP, {"widths": [8, 0]}, r"widths=\[8, 0\] "),
        (MLP, {"activation": "rely"}, "activation='rely' is unknown: pass one of relu, gelu, tanh, silu"),
        (MLP, {"dropout": 1.0}, r"dropout=1\.0 is not a probability in \[0, 1\)"),
        (CNN, {"channels": []}, r"channels=\[\] "),
        (CNN, {"kernel_size": 2}, "kernel_size=2 is not odd"),
        (CNN, {"dropout": -0.1}, r"dropout=-0\.1 "),
        (MNISTCNN, {"image_shape": (1, 3, 8)}, "too small for the MNIST CNN.*at least 4x4"),
        (CIFARResNet18, {"image_shape": (3, 4, 4)}, "too small for the CIFAR ResNet-18.*at least 8x8"),
        (ResNet18, {"image_shape": (1, 28, 28)}, "too small for an ImageNet ResNet.*at least 32x32"),
        (ResNet50, {"image_shape": (1, 28, 28)}, "too small for an ImageNet ResNet.*at least 32x32"),
        (WideResNet, {"depth": 27}, r"depth=27 is not 6 n \+ 4"),
        (WideResNet, {"depth": 4}, r"depth=4 is not 6 n \+ 4"),
        (WideResNet, {"widen_factor": 0}, "widen_factor=0 is below 1"),
        (WideResNet, {"dropout": 2}, "dropout=2 "),
        (ViTS, {"image_shape": (3, 32, 28)}, r"image_shape=\(3, 32, 28\) is not square"),
        (ViTS, {"patch_size": 5}, "patch_size=5 does not divide the image's side 32"),
        (ViTB, {"patch_size": 0}, "patch_size=0 does not divide"),
        (ViTB, {"dropout": 1}, "dropout=1 "),
    ],
)
def test_bad_arguments_are_named(model, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        model(**(TASK | arguments))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_states_its_models_arguments_and_their_defaults(path):
    arguments = yaml.safe_load(path.read_text())
    module, _, name = arguments.pop("_target_").rpartition(".")
    model = getattr(import_module(module), name)
    parameters = dict(inspect.signature(model).parameters)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert parameters.pop("image_shape").default is inspect.Parameter.empty
    assert parameters.pop("num_classes").default is inspect.Parameter.empty
    as_yaml = {
        key: list(value.default) if isinstance(value.default, tuple) else value.default
        for key, value in parameters.items()
    }
    assert arguments == as_yaml
    with torch.device("meta"):
        assert isinstance(model(image_shape=CIFAR, num_classes=10, **arguments), nn.Module)


def test_every_config_has_a_row_and_every_row_a_config():
    targets = {yaml.safe_load(path.read_text())["_target_"] for path in CONFIGS}
    assert targets == {f"{row.model.__module__}.{row.model.__name__}" for row in ROWS}
