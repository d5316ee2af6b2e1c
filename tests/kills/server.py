"""The test's side of the warm server that forks `bbi` processes, and fresh processes with the same face."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

TESTS = Path(__file__).parents[1]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a process sees: ours without pytest's, one thread, and `extra`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SLURM"))}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **extra}


class Process(Protocol):
    """A process that a test may kill."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""


class Launcher(Protocol):
    """Starts processes that are `bbi` with some arguments."""

    def start(self, argv: Sequence[str], extra: Mapping[str, str], output: Path) -> Process: ...


class Fresh:
    """Every process imports everything itself: seconds, and what a user has."""

    def start(self, argv: Sequence[str], extra: Mapping[str, str], output: Path) -> Process:
        with output.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "kills.program", *argv],
                env=environment(extra),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


class Warm:
    """One process has made the imports, and forks: a tenth of a second."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "kills.program", "--serve"],
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started: list[int] = []
        self._answer()

    def start(self, argv: Sequence[str], extra: Mapping[str, str], output: Path) -> Process:
        request = {"argv": list(argv), "env": environment(extra), "output": str(output)}
        pid = self.ask({"start": request})["pid"]
        self._started.append(pid)
        return _Forked(self, pid)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One question, one answer."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server and every process of it that still lives."""
        for pid in self._started:
            if self.ask({"poll": pid})["code"] is None:
                os.kill(pid, signal.SIGKILL)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()


class _Forked:
    def __init__(self, server: Warm, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        code: int | None = self._server.ask({"poll": self.pid})["code"]
        return code


def wait(processes: Sequence[Process], timeout: float) -> list[int] | None:
    """The exit codes of processes once all have ended; None if some live on after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes):
            return [code for code in codes if code is not None]
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)
