"""`bbi …`, in a process that a test may kill at a named moment, or put into another world.

As a program it is a fresh process:      python tests/kills/program.py train optim=sgd
As a server it has made the imports:     python -m kills.program --serve
The server reads one JSON object a line: {"start": {"argv", "env", "output"}} is answered by {"pid"}, and the
process is a fork; {"poll": pid} by {"code"}: null while it lives, negative for a signal. The server ends with
its input.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from kills import moments, worlds

MET = "BBI_TEST_MET"
"""The environment variable that carries the name of a file that says whether the ranks have met."""


def become(argv: list[str]) -> None:
    """Be `bbi` with these arguments, killed or displaced as the environment says."""
    sys.argv = ["bbi", *argv]
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    worlds.install(json.loads(os.environ.get(worlds.VARIABLE, "{}")))
    if moments.VARIABLE in os.environ:
        kill = moments.Kill(**json.loads(os.environ[moments.VARIABLE]))
        if kill.rank == rank:
            moments.install(kill)
    if MET in os.environ:
        _note_the_meeting(Path(os.environ[MET]))
    from bbi_lightning.cli import main

    main()


def _note_the_meeting(marker: Path) -> None:
    """Touch a file once the ranks know of each other."""
    import torch

    meet = torch.distributed.init_process_group

    def noted(*args: Any, **kwargs: Any) -> None:
        meet(*args, **kwargs)
        marker.touch()

    torch.distributed.init_process_group = noted


def serve() -> None:
    """Fork processes until the input ends."""
    import bbi_lightning.cli.sweep_preload  # noqa: F401

    gc.collect()
    gc.freeze()  # else every child would copy all of it at its first collection
    _answer({"ready": True})
    codes: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                _child(**request["start"])
            codes[pid] = None
            _answer({"pid": pid})
        else:
            pid = request["poll"]
            if codes[pid] is None:
                done, status = os.waitpid(pid, os.WNOHANG)
                codes[pid] = os.waitstatus_to_exitcode(status) if done else None
            _answer({"code": codes[pid]})
    os._exit(0)


def _answer(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _child(argv: list[str], env: dict[str, str], output: str) -> NoReturn:
    """Be `bbi`, and end as Python does, but without taking all the modules down: that takes a second."""
    code = 1
    try:
        _settle(env, output)
        become(argv)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle(env: dict[str, str], output: str) -> None:
    os.setsid()
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from pytorch_lightning.utilities import rank_zero_only

    from bbi_lightning.training import interrupts

    # what a fresh process finds out as it imports
    rank_zero_only.rank = int(env.get("LOCAL_RANK", "0"))
    interrupts.PARENT = os.getppid()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else become(sys.argv[1:])
