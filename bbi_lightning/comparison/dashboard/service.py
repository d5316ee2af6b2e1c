"""The W&B account, reached or not: every way in which it cannot be had is one sentence with its remedy."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

PATIENCE = 10  # seconds for the server to let us in
TIMEOUT = 60  # seconds that one question to it may take then

_THEIRS = ("wandb", "wandb_workspaces", "requests", "urllib3", "pydantic", "pydantic_core")  # who raises

INSTALL = "pip install 'bbi-lightning[dashboard]'"


class UnavailableError(RuntimeError):
    """W&B cannot be asked: no package, no key, no server, no such project. The message says what to do."""


def missing_package() -> str | None:
    """A sentence if wandb-workspaces, the extra `dashboard`, is not installed."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        return f"wandb-workspaces is not installed: {INSTALL}"
    return None


def connect() -> Any:
    """A `wandb.Api` whose key the server has accepted. Never asks for a key, never waits for input.

    Raises:
        UnavailableError: nobody is logged in, or the server does not answer.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # what was saved where is said by us
    import wandb

    with speaking_plainly():
        if not wandb.login(prompt=False, verify=False):
            raise UnavailableError("nobody is logged in to W&B: run `wandb login`, or set WANDB_API_KEY")
        wandb.Api(timeout=PATIENCE)
        return wandb.Api(timeout=TIMEOUT)


@contextlib.contextmanager
def speaking_plainly() -> Iterator[None]:
    """Turn what W&B and its network raise into an `UnavailableError` of one sentence."""
    import wandb

    try:
        yield
    except UnavailableError:
        raise
    except wandb.errors.AuthenticationError as error:
        raise UnavailableError(
            f"W&B does not let us in ({one_line(error)}): check the network, then `wandb login`"
        ) from None
    except (wandb.errors.Error, ConnectionError, TimeoutError) as error:
        raise UnavailableError(
            f"W&B refuses ({one_line(error)}): check the network, entity and project"
        ) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _THEIRS:
            raise
        raise UnavailableError(
            f"W&B cannot be reached ({type(error).__name__}: {one_line(error)}): try again later"
        ) from None


def account(api: Any, entity: str | None) -> str:
    """The user or team to write to: the one asked for, or the account's default."""
    with speaking_plainly():
        found = entity or api.default_entity
    if not found:
        raise UnavailableError("the W&B account has no default user or team: give one with --entity")
    return str(found)


def one_line(error: Exception) -> str:
    """An error's message without line breaks, at most 300 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def runs_of(api: Any, entity: str, project: str, filters: dict[str, Any]) -> list[Any]:
    """Runs of a project with config and summary; empty where there is no such project."""
    found = api.runs(f"{entity}/{project}", filters=filters, per_page=200, lazy=False)
    try:
        return [run for run in found]  # noqa: C416  # list() asks for the length, which hides a TypeError
    except ValueError as error:
        if "Could not find project" in str(error):
            return []
        raise
