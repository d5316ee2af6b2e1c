"""From overrides to a checked config, a name, or one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bbi_lightning.training import composition, config_files
from bbi_lightning.training.components import ConfigError
from bbi_lightning.training.config import compose, groups, plain, run_name, validate


def test_defaults_compose_and_are_valid() -> None:
    config = compose()
    validate(config)
    assert config.optim.lr == 0.2
    assert config.optim.seed == config.seed == 0


def test_every_group_and_option_is_found() -> None:
    assert {"bbi", "sgd", "adamw"} <= set(groups()["optim"])
    assert groups()["scheduler"] == ("constant", "cosine", "multistep", "step")


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "0.00001", "1.0e-5"])
def test_scientific_notation_is_a_number_on_the_command_line_and_in_yaml(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain(compose([f"optim.lr={text}"]))["optim"]["lr"] == 1e-5

    folder = tmp_path / "configs"
    shutil.copytree(config_files.config_folder(), folder)
    (folder / "optim" / "tiny.yaml").write_text(f"_target_: torch.optim.SGD\n_partial_: true\nlr: {text}\n")
    for module in (composition, config_files):  # plain YAML 1.1 would read 1e-5 as a string
        monkeypatch.setattr(module, "config_folder", lambda: folder)
    assert plain(compose(["optim=tiny"]))["optim"]["lr"] == 1e-5


def test_key_that_only_the_signature_knows_needs_no_plus() -> None:
    config = compose(["optim=adamw", "optim.capturable=true", "optim.lr=0.5"])
    assert config.optim.capturable is True
    assert config.optim.lr == 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim=bbbi"], "optim=bbbi is not an option of optim: did you mean bbi?"),
        (["optim=zzz"], "optim=zzz is not an option of optim: choose one of adam, adamw, bbi"),
        (["optim=null"], "optim=null is not an option of optim: choose one of"),
        (["optim=[bbi,sgd]"], "optim=['bbi', 'sgd'] is not an option of optim: choose one of"),
        (["optin=sgd"], "optin=sgd is unknown: did you mean optim?"),
        (["sede=1"], "sede=1 is unknown: did you mean seed?"),
        (["optim.lrr=1"], "optim.lrr=1 is unknown: did you mean optim.lr?"),
        (["optim=sgd", "optim.patience=1"], "optim.patience=1 is unknown: the keys here are"),
        (["trainer.max_epoch=1"], "trainer.max_epoch=1 is unknown: did you mean trainer.max_epochs?"),
        (["optmi.lr=1"], "optmi.lr=1 is unknown: did you mean optim?"),
        (["optim.lr.x=1"], "optim.lr.x=1 is unknown: optim.lr is a value, not a group of keys"),
        (["runtime.lables.x=1"], "runtime.lables.x=1 is unknown: did you mean runtime.labels?"),
        (["zzz.lr=1"], "zzz.lr=1 is unknown: there is no zzz to set it in"),
        (["seed.deep=1"], "seed.deep=1 is unknown: "),
        (["optim.lr"], "'optim.lr' cannot be read: write KEY=VALUE"),
        (["optim.lr=[1"], "'optim.lr=[1' cannot be read: write KEY=VALUE"),
        (["optim.lr=0.1,0.2"], "'optim.lr=0.1,0.2' gives several values, a run takes one"),
    ],
)
def test_composition_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr=fast"], "optim.lr=fast has the wrong type: give a valid number"),
        (["optim.lr=-1"], "optim.lr=-1 "),
        (["optim=sgd", "optim.lr=-1"], "optim.lr=-1 is refused by SGD"),
        (["optim=sgd", "optim.momentum=-3"], "optim.momentum=-3 is refused by SGD"),
        (["optim._target_=torch.optim.SGDD"], "optim._target_=torch.optim.SGDD does not exist"),
        (["+optim.zzz=1"], "optim.zzz=1 is unknown to BBI: it takes"),
        (["+extra=1"], "extra=1 is unknown at the root of a training config"),
        (["~optim"], "optim is missing: add optim=OPTION"),
        (["seed=-1"], "seed=-1 is not a seed: give an integer from 0"),
        (["seed=a"], "seed=a is not a seed"),
        (["scheduler=cosine", "scheduler.final=2"], "scheduler.final=2 is not a share"),
        (
            ["scheduler=multistep", "scheduler.milestones=[0.6,0.3]"],
            "scheduler.milestones=[0.6, 0.3] must rise",
        ),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 is too small: give 1 or more"),
        (["trainer.max_epochs=null"], "trainer.max_epochs=null and max_steps=null would never end"),
        (["trainer.precision=8"], "trainer.precision=8 has the wrong type: give '64-true', '32-true'"),
        (["trainer.gradient_clip_val=0"], "trainer.gradient_clip_val=0 must be above 0"),
        (["runtime.log_every=0"], "runtime.log_every=0 is too small"),
        (["runtime.progress=loud"], "runtime.progress=loud has the wrong type: give 'auto', 'bar'"),
        (["tracking.mode=cloud"], "tracking.mode=cloud has the wrong type"),
        (["loss.label_smoothing=2"], "loss.label_smoothing=2 is refused by CrossEntropyLoss"),
        (["model.num_classes=10"], "model.num_classes=10 cannot be set, training passes it itself"),
        (["model.channels=[]"], "model."),
        (["data.val_size=9000"], "data.val_size=9000 leaves none of"),
        (["data.batch_size=5000"], "data.batch_size=5000 is larger than the"),
        (["data=mnist", "data.data_dir=/nowhere"], "data: /nowhere/MNIST/raw has no file"),
        (
            ["data.batch_size=65", "runtime.devices=2"],
            "data.batch_size=65 cannot be divided among the 2 processes",
        ),
        (["trainer.precision=16-mixed", "runtime.accelerator=cpu"], "trainer.precision=16-mixed and runtime"),
        (
            ["optim=adamw", "trainer.precision=16-mixed", "trainer.gradient_clip_val=1"],
            "trainer.gradient_clip_val=1 with trainer.precision=16-mixed contradicts optim.fused=true",
        ),
    ],
)
def test_validation_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose(overrides))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_name_tells_data_model_optimizer_and_seed() -> None:
    name = run_name(compose(["optim=sgd", "seed=12"]))
    data, model, optim, digest, seed = name.split("-")
    assert (data, model, optim, seed) == ("digits", "cnn", "sgd", "s12")
    assert len(digest) == 10


@pytest.mark.parametrize(
    "same",
    [
        ["runtime.root=elsewhere", "runtime.threads=1", "runtime.labels.why=test"],
        ["tracking=none"],
        ["runtime.accelerator=cpu", "runtime.log_every=3"],
        ["data.batch_size=64", "optim.floor=0"],
    ],
)
def test_name_does_not_depend_on_where_and_how_it_runs(same: list[str]) -> None:
    assert run_name(compose(same)) == run_name(compose())


@pytest.mark.parametrize(
    "other",
    [
        ["optim.lr=0.21"],
        ["trainer.max_epochs=31"],
        ["optim.seed=5"],
        ["data.batch_size=65"],
        ["scheduler=cosine"],
        ["loss.label_smoothing=0.1"],
    ],
)
def test_name_depends_on_what_shapes_the_result(other: list[str]) -> None:
    assert run_name(compose(other)) != run_name(compose())


def test_seeds_of_one_setting_share_the_hash() -> None:
    names = {run_name(compose([f"seed={seed}"])).rpartition("-s") for seed in (0, 1, 1000)}
    assert len({stem for stem, _, _ in names}) == 1
    assert len(names) == 3


def test_where_the_data_lie_is_no_part_of_a_runs_identity() -> None:
    names = {run_name(compose(["data=mnist", f"data.data_dir={place}"])) for place in ("a", "b")}
    assert len(names) == 1


def test_name_survives_new_order_and_spelling_of_the_same_values() -> None:
    config = compose(["optim.lr=1"])
    again = OmegaConf.create(dict(reversed(list(config.items()))))
    again.optim.lr = 1.0
    assert run_name(again) == run_name(config)


def test_identical_experiment_by_hand_and_by_name_is_one_run() -> None:
    from_file = compose(["experiment=digits"])
    values = plain(from_file)
    by_hand = [f"optim.lr={values['optim']['lr']}", "data.augment=true"]
    assert run_name(compose(by_hand)) == run_name(from_file)
