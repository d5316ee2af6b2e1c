"""A component of a config: a mapping with a `_target_`, whose schema is the target's own signature.

    optim:
      _target_: torch.optim.SGD     what is called
      _partial_: true               called later, by whoever has the missing arguments
      lr: 0.1                       every other key is an argument of the target

`parse` compares keys with the signature's names and values with its annotations, so no config class repeats
them, and a new component needs no registration. Values count as in JSON: a list serves for a tuple, an int
for a float, but "0.1" is not a number and 1 is not a bool. Ranges are the target's own business: `try_build`
turns its complaint into a sentence about the config.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

_LENIENT_CLASSES = ConfigDict(arbitrary_types_allowed=True, strict=True)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ConfigError(ValueError):
    """A mistake in the config: one sentence with key, value and remedy. Nothing has started."""


@dataclass(frozen=True)
class Component:
    """A checked component.

    Attributes:
        key: where it stands in the config ("optim").
        target: what `_target_` names.
        arguments: the keyword arguments of the config, converted to the annotated types; a nested component
            stands as a Component.
        partial: whether `build` returns a function that still wants arguments.
    """

    key: str
    target: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False

    @property
    def name(self) -> str:
        """The target's name in lower case, a component's part of a run's name."""
        name = str(getattr(self.target, "__name__", type(self.target).__name__))
        return name.removesuffix("DataModule").lower()

    @property
    def argument_names(self) -> list[str]:
        """The names of the target's arguments."""
        return _names(_signature(self.target).parameters)

    def accepts(self, argument: str) -> bool:
        """Whether the target takes a keyword argument of this name."""
        return argument in self.argument_names or _takes_any_keyword(_signature(self.target).parameters)

    def build(self, *positional: Any, **given: Any) -> Any:
        """Call the target (or, if partial, bind it) with the config's arguments and what the caller adds."""
        arguments = {name: _built(value) for name, value in self.arguments.items()}
        if self.partial:
            return functools.partial(self.target, *positional, **arguments, **given)
        return self.target(*positional, **arguments, **given)

    def try_build(self, *positional: Any, use: Callable[[Any], Any] | None = None, **given: Any) -> Any:
        """As `build`, and a partial is called at once: are all values in the ranges the target accepts?

        Args:
            *positional: passed on to the target.
            use: tries out what was built, for targets that check their arguments only then.
            **given: passed on to the target.

        Raises:
            ConfigError: the target refused them; names the argument it complained of.
        """

        def attempt(arguments: Mapping[str, Any]) -> Any:
            built = Component(self.key, self.target, arguments).build(*positional, **given)
            if use is not None:
                use(built)
            return built

        try:
            return attempt(self.arguments)
        except (ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
            if isinstance(error, NotImplementedError):
                raise
            raise ConfigError(_complaint(self, error, attempt)) from error


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, Component) else value


def parse(node: Any, key: str, given: Iterable[str] = ()) -> Component:
    """Check a component against its target's signature.

    Args:
        node: plain containers (an OmegaConf node resolved with `to_container`).
        key: where it stands in the config, for messages.
        given: arguments that the caller will add and the config must not set.

    Raises:
        ConfigError: no `_target_`, an unknown, missing or forbidden key, a value of the wrong type.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(
            f"{key}={_shown(node)} is not a component: give it a _target_, or pick an option of {key}"
        )
    target = locate(node["_target_"], key)
    parameters = _signature(target).parameters
    hints = _hints(target)
    partial = node.get("_partial_", False)
    if not isinstance(partial, bool):
        raise ConfigError(f"{key}._partial_={_shown(partial)} has the wrong type: give true or false")

    given = set(given)
    arguments: dict[str, Any] = {}
    for name, value in node.items():
        if name in ("_target_", "_partial_"):
            continue
        here = f"{key}.{name}"
        if name in given:
            raise ConfigError(
                f"{here}={_shown(value)} cannot be set, training passes it itself: remove the key"
            )
        if name not in _names(parameters) and not _takes_any_keyword(parameters):
            raise ConfigError(_unknown(here, value, target, sorted(set(_names(parameters)) - given)))
        if value == "???":
            raise ConfigError(f"{here}=??? must be given: add {here}=VALUE")
        arguments[name] = _converted(value, hints.get(name), here)
    _require(parameters, arguments, given, key, target, partial)
    return Component(key, target, arguments, partial)


def locate(path: str, key: str) -> Callable[..., Any]:
    """The object that a dotted path names.

    Raises:
        ConfigError: a module or a name in the path does not exist, or the object cannot be called.
    """
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # its own absence lets us look one level up; a missing dependency inside it is the user's news
            if error.name is not None and (
                module_name == error.name or module_name.startswith(error.name + ".")
            ):
                continue
            raise ConfigError(
                f"{key}._target_={path} cannot be imported ({error}): install what it needs"
            ) from error
        for depth, part in enumerate(parts[cut:], start=cut):
            if not hasattr(found, part):
                names = [name for name in dir(found) if not name.startswith("_")]
                hint = closest(part, names, prefix=".".join(parts[:depth]) + ".")
                raise ConfigError(f"{key}._target_={path} does not exist: {hint or 'correct the path'}")
            found = getattr(found, part)
        if not callable(found):
            raise ConfigError(f"{key}._target_={path} is not callable: name a class or a function")
        return typing.cast("Callable[..., Any]", found)
    raise ConfigError(f"{key}._target_={path} does not exist: write it as package.module.Name")


def closest(word: str, possibilities: Iterable[str], prefix: str = "") -> str:
    """A did-you-mean for a misspelt word, empty when nothing is near."""
    near = difflib.get_close_matches(word, list(possibilities), n=1, cutoff=0.6)
    return f"did you mean {prefix}{near[0]}?" if near else ""


@functools.lru_cache(maxsize=256)
def _signature(target: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(target)


@functools.lru_cache(maxsize=256)
def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of the target's arguments; none where they cannot be resolved."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # imported under TYPE_CHECKING, or a built-in
        return {}


@functools.lru_cache(maxsize=512)
def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """A validator of the annotation, None where pydantic cannot make one (then anything goes)."""
    try:
        return TypeAdapter(annotation, config=_LENIENT_CLASSES)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            return None
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError, NameError):
        return None
    return TypeAdapter(annotation)  # a dataclass or a model brings its own config


def _converted(value: Any, annotation: Any, key: str) -> Any:
    """The value as its annotation wants it."""
    if isinstance(value, Mapping) and "_target_" in value:
        return parse(value, key)
    adapter = None if annotation is None else _adapter(annotation)
    if adapter is None:
        return value
    try:
        return _with_ints_kept(value, adapter.validate_json(json.dumps(value), strict=True))
    except ValidationError as error:
        # a class that no JSON can spell is no alternative to offer
        details = [e for e in error.errors() if e["type"] != "needs_python_object"]
        wants = dict.fromkeys(str(e["msg"]).removeprefix("Input should be ") for e in details)
        wanted = " or ".join(wants) or f"an object of type {getattr(annotation, '__name__', annotation)}"
        raise ConfigError(f"{key}={_shown(value)} has the wrong type: give {wanted}") from None


def _with_ints_kept(value: Any, converted: Any) -> Any:
    """An int passes for a float as it is: some targets tell a count (10) from a share (0.1)."""
    if isinstance(converted, float) and isinstance(value, int):
        return value
    if isinstance(converted, (list, tuple)) and type(converted) in (list, tuple):
        return type(converted)(map(_with_ints_kept, value, converted))
    return converted


def _require(
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    given: set[str],
    key: str,
    target: Callable[..., Any],
    partial: bool,
) -> None:
    """Every argument without a default is in the config or promised by the caller.

    The first positional argument of a partial (an optimizer's params, a scheduler's optimizer) comes later.
    """
    needed = [p for p in parameters.values() if p.default is p.empty and (p.kind in (*_NAMED, *_POSITIONAL))]
    if partial and needed and needed[0].kind in _POSITIONAL and needed[0] is next(iter(parameters.values())):
        needed = needed[1:]
    for parameter in needed:
        if parameter.name not in arguments and parameter.name not in given:
            here = f"{key}.{parameter.name}"
            raise ConfigError(f"{here} is missing, {target.__name__} needs it: add {here}=VALUE")


def _names(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    return [p.name for p in parameters.values() if p.kind in _NAMED]


def _takes_any_keyword(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _unknown(key: str, value: Any, target: Callable[..., Any], names: list[str]) -> str:
    parent, _, name = key.rpartition(".")
    hint = closest(name, names, prefix=parent + ".") or f"it takes {', '.join(names) or 'no arguments'}"
    return f"{key}={_shown(value)} is unknown to {getattr(target, '__name__', target)}: {hint}"


def _complaint(component: Component, error: Exception, attempt: Callable[[Mapping[str, Any]], Any]) -> str:
    """What the target said, with the config's key in front."""
    said = " ".join(str(error).split()) or type(error).__name__
    if said.startswith(f"{component.key}."):
        return said
    for name in component.arguments:
        if said.startswith(f"{name}="):
            return f"{component.key}.{said}"
    culprit = _culprit(component.arguments, attempt)
    if culprit is None:
        return f"{component.key}: {said}"
    value = _shown(component.arguments[culprit])
    return f"{component.key}.{culprit}={value} is refused by {component.target.__name__} ({said}): change it"


def _culprit(arguments: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], Any]) -> str | None:
    """The argument without which the target can be built."""
    for name in arguments:
        try:
            attempt({k: v for k, v in arguments.items() if k != name})
        except Exception:  # any failure means the same: not this one
            continue
        return name
    return None


def _shown(value: Any) -> str:
    """A value as one would type it on the command line."""
    if value is None or isinstance(value, (bool, list, dict)):
        return json.dumps(value, default=str)
    return str(value)
