"""A component's schema is its target's signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch

from bbi_lightning.training.components import ConfigError, locate, parse

HERE = __name__


class Target:
    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        count: int = 1,
        betas: tuple[float, float] = (0.9, 0.999),
        mode: Literal["fast", "slow"] = "fast",
        flag: bool = False,
        limit: int | None = None,
        names: Sequence[str] = (),
        function: Callable[[], float] | None = None,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr={lr} is negative: give 0 or more")
        if count > 9:
            raise ValueError("that is too many")
        self.arguments = (lr, count, betas, mode, flag, limit, tuple(names))


@dataclass(frozen=True, kw_only=True)
class Options:
    size: int
    inner: Any = None


def free(value: int, **anything: Any) -> dict[str, Any]:
    return {"value": value, **anything}


class Unresolvable:
    def __init__(self, size: NotImportedHere = 3) -> None:  # type: ignore[name-defined]  # noqa: F821
        self.size = size


def target(name: str = "Target", **keys: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.{name}", **keys}


def test_values_arrive_as_annotated() -> None:
    node = target(_partial_=True, lr=1, betas=[0.5, 1], names=["a"], limit=None)
    built = parse(node, "optim").build()([])
    assert built.arguments == (1, 1, (0.5, 1), "fast", False, None, ("a",))


def test_int_stays_an_int_where_a_float_would_do() -> None:
    # some targets tell a count of 10 from a share of 0.1
    component = parse(target(_partial_=True, lr=10, betas=[1, 2]), "optim")
    assert type(component.arguments["lr"]) is int
    assert [type(b) for b in component.arguments["betas"]] == [int, int]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lrr": 1}, "optim.lrr=1 is unknown to Target: did you mean optim.lr?"),
        (
            {"zzz": 1},
            "optim.zzz=1 is unknown to Target: it takes betas, count, flag, function, limit, lr, mode, names",
        ),
        ({"lr": "fast"}, "optim.lr=fast has the wrong type: give a valid number"),
        ({"lr": "1e-3"}, "optim.lr=1e-3 has the wrong type: give a valid number"),
        ({"lr": True}, "optim.lr=true has the wrong type: give a valid number"),
        ({"count": 1.5}, "optim.count=1.5 has the wrong type: give a valid integer"),
        ({"count": None}, "optim.count=null has the wrong type: give a valid integer"),
        ({"flag": 1}, "optim.flag=1 has the wrong type: give a valid boolean"),
        ({"mode": "quick"}, "optim.mode=quick has the wrong type: give 'fast' or 'slow'"),
        ({"betas": [1, 2, 3]}, "optim.betas=[1, 2, 3] has the wrong type: give"),
        ({"betas": 0.9}, "optim.betas=0.9 has the wrong type: give a valid array"),
        ({"params": []}, "optim.params=[] cannot be set, training passes it itself: remove the key"),
        ({"lr": "???"}, "optim.lr=??? must be given: add optim.lr=VALUE"),
        ({"_partial_": "yes"}, "optim._partial_=yes has the wrong type: give true or false"),
    ],
)
def test_mistakes_are_one_sentence_with_key_value_and_remedy(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(target(**{"lr": 1.0, "_partial_": True, **keys}), "optim", given=("params",))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_missing_argument() -> None:
    with pytest.raises(
        ConfigError, match=r"^trainer.size is missing, Options needs it: add trainer.size=VALUE$"
    ):
        parse(target("Options"), "trainer")


def test_first_positional_argument_of_a_partial_comes_later() -> None:
    assert parse(target(_partial_=True, lr=1.0), "optim").partial
    with pytest.raises(ConfigError, match=r"optim\.params is missing"):
        parse(target(lr=1.0), "optim")


def test_nested_component_is_checked_and_built() -> None:
    inner = target("Options", size=3)
    assert parse(target("Options", size=1, inner=inner), "model").build().inner == Options(size=3)
    with pytest.raises(ConfigError, match=r"model\.inner\.size=big has the wrong type"):
        parse(target("Options", size=1, inner=target("Options", size="big")), "model")


def test_target_with_free_keywords_is_checked_as_far_as_it_says() -> None:
    assert parse(target("free", value=1, other="x"), "data").build() == {"value": 1, "other": "x"}
    with pytest.raises(ConfigError, match=r"data\.value=x has the wrong type"):
        parse(target("free", value="x"), "data")


def test_annotation_that_cannot_be_resolved_lets_any_value_pass() -> None:
    assert parse(target("Unresolvable", size="large"), "model").build().size == "large"


def test_torch_optimizers_are_components() -> None:
    adamw = parse(
        {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.99]}, "optim"
    )
    optimizer = adamw.build()([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "torch.optim.SGDD",
            r"optim._target_=torch.optim.SGDD does not exist: did you mean torch.optim.SGD\?",
        ),
        ("torch.optmi.SGD", r"optim._target_=torch.optmi.SGD does not exist: did you mean torch.optim\?"),
        ("nosuchpackage.Thing", "optim._target_=nosuchpackage.Thing does not exist: write it as"),
        ("word", "optim._target_=word does not exist: write it as"),
        ("torch.pi", "optim._target_=torch.pi is not callable: name a class or a function"),
    ],
)
def test_target_that_is_not_there(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        locate(path, "optim")


@pytest.mark.parametrize("node", [None, 3, {}, {"lr": 1}, {"_target_": 5}])
def test_node_without_target(node: Any) -> None:
    with pytest.raises(ConfigError, match="is not a component: give it a _target_"):
        parse(node, "optim")


def test_complaint_of_a_target_gets_the_key_in_front() -> None:
    with pytest.raises(ConfigError, match=r"^optim.lr=-1 is negative: give 0 or more$"):
        parse(target(_partial_=True, lr=-1), "optim").try_build([])


def test_culprit_is_found_where_the_target_does_not_name_it() -> None:
    component = parse(target(_partial_=True, lr=1.0, flag=True, count=10, mode="slow"), "optim")
    with pytest.raises(
        ConfigError, match=r"^optim.count=10 is refused by Target \(that is too many\): change it$"
    ):
        component.try_build([])
