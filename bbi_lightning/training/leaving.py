"""How a process of several ends: with its own exit code."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def own_exit_code() -> Iterator[None]:
    """Around the main of a program that may be one of several ranks; other processes end as ever.

    In torch 2.15 gloo's destructors abort about one end in five (code 134), whether the process group was
    destroyed or not: a rank that has done its work would count as crashed. So a rank ends without them.
    """
    try:
        yield
    except SystemExit as leaving:
        if _is_rank():
            _leave(leaving.code)
        raise
    except BaseException:
        if _is_rank():
            traceback.print_exc()
            _leave(1)
        raise
    if _is_rank():
        _leave(0)


def _is_rank() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _leave(code: str | int | None) -> NoReturn:
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()  # W&B, logging, temporary folders
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
