"""Every YAML file under configs/ composes, agrees with its target's signature, and can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from bbi_lightning.training.components import locate, parse
from bbi_lightning.training.config import checked, compose, groups, plain, run_name, validate
from bbi_lightning.training.config_files import config_folder

COMPONENTS = ("checkpoint", "data", "loss", "model", "optim", "runtime", "scheduler", "tracking", "trainer")
ADDED = {
    "model": {"image_shape", "num_classes"},
    "optim": {"params"},
    "scheduler": {"optimizer", "total_steps"},
}
OPTIONS = [(group, option) for group in COMPONENTS for option in groups()[group]]
EXPERIMENTS = groups()["experiment"]
LARGE = {"imagenet": (3, 224, 224)}


def test_every_folder_and_file_is_known_here() -> None:
    assert set(groups()) == {*COMPONENTS, "experiment", "start", "sweep"}
    assert {path.name for path in config_folder().glob("*.yaml")} == {"train.yaml", "sweep.yaml"}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_keys_and_types_agree_with_the_signature(group: str, option: str) -> None:
    checked(compose([f"{group}={option}"]))


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] not in ("loss", "tracking")])
def test_file_spells_out_every_argument_of_our_own_targets(group: str, option: str) -> None:
    """A new argument, or a new default, is then seen in the config and in a run's identity."""
    node = yaml.safe_load((config_folder() / group / f"{option}.yaml").read_text())
    if node["_target_"].startswith("bbi_lightning."):
        component = parse(plain(compose([f"{group}={option}"]))[group], group, ADDED.get(group, set()))
        missing = set(component.argument_names) - set(component.arguments) - ADDED.get(group, set())
        assert not missing


@pytest.mark.parametrize("option", groups()["optim"])
def test_optimizer_is_built_and_minimises(option: str) -> None:
    config = checked(compose([f"optim={option}"]))
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = config.optim.build()([parameter])
    optimizer.param_groups[0]["lr"] = 0.05
    losses = []
    for _ in range(60):

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = (parameter**2).sum()
            loss.backward()
            return loss

        losses.append(float(closure().detach()))
        optimizer.step(closure)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("option", groups()["scheduler"])
def test_scheduler_is_built(option: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    checked(compose([f"scheduler={option}"])).scheduler.build()(optimizer, total_steps=10)


@pytest.mark.parametrize("option", groups()["model"])
def test_model_is_built_and_maps_images_to_logits(option: str) -> None:
    config = checked(compose([f"model={option}"]))
    with torch.device("meta"):
        model = config.model.build(image_shape=(3, 224, 224), num_classes=7)
        assert model.eval()(torch.empty(2, 3, 224, 224)).shape == (2, 7)


@pytest.mark.parametrize("option", groups()["data"])
def test_data_module_is_built_without_reading_anything(option: str) -> None:
    data = checked(compose([f"data={option}"])).data.build()
    assert len(data.image_shape) == 3
    assert data.num_classes >= 2


@pytest.mark.parametrize("group", ["loss", "runtime", "tracking", "trainer"])
def test_the_rest_is_built(group: str) -> None:
    for option in groups()[group]:
        getattr(checked(compose([f"{group}={option}"])), group).build()


@pytest.mark.parametrize("option", EXPERIMENTS)
def test_experiment_is_valid_but_for_data_that_are_not_here(option: str) -> None:
    config = compose([f"experiment={option}"])
    try:
        validate(config)
    except ValueError as error:
        assert "data.data_dir" in str(error)  # noqa: PT017  # any other complaint is a failure


@pytest.mark.parametrize("option", EXPERIMENTS)
def test_experiment_opens_with_its_command_hardware_time_and_result(option: str) -> None:
    text = (config_folder() / "experiment" / f"{option}.yaml").read_text()
    head = text.split("defaults:")[0]
    assert f"bbi train experiment={option}" in head
    for word in ("Hardware:", "Time:", "Result"):
        assert word in head


def test_published_settings_of_the_cifar_comparison() -> None:
    bbi = compose(["experiment=cifar10_bbi"])
    assert (bbi.optim.lr, bbi.optim.patience, bbi.optim.bounce_every, bbi.optim.n_bounces) == (
        0.0622,
        2000,
        100,
        100,
    )
    sgd = compose(["experiment=cifar10_sgd"])
    assert (sgd.optim.lr, sgd.optim.momentum) == (0.0163, 0.847)
    for config in (bbi, sgd):
        assert (config.trainer.max_epochs, config.data.batch_size, config.data.augment) == (150, 128, True)
        assert locate(config.scheduler._target_, "scheduler").__name__ == "constant"


def test_resolved_config_describes_the_same_run(tmp_path: Path) -> None:
    """config.yaml of a run folder can be read back and checked."""
    config = compose(["optim=ecdsep", "seed=3"])
    file = tmp_path / "config.yaml"
    file.write_text(OmegaConf.to_yaml(config, resolve=True))
    again = OmegaConf.load(file)
    assert plain(again) == plain(config)
    assert run_name(again).endswith("-s3")
