"""The process a trial lives in: forked from a server that has made the heavy imports once.

A child names its run, waits for the word to go, and trains; its output goes into the run's log. It has a
process group of its own, and it ends when the sweep's process does: a run nobody watches would be run twice.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from bbi_lightning.sweeps.task import Task

LOG = "log.txt"
"""The file in a run's folder that holds what its processes printed."""

GRACE = 10.0  # seconds between SIGTERM, at which training may save, and SIGKILL

_TRACEBACK_LINES = 40
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_RANKS = re.compile(r"SLURM_(STEP_.*|STEPID|.*PROCS?|PROCID|.*TASKS.*|TASK_PID|LOCALID|NODEID|GTIDS)")
"""Variables that tell a process which of a job step's tasks it is. A trial is none of them."""

_ASK_AGAIN = 2.0  # seconds between two SIGTERM: the first may come before the child heeds it
_STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def threads(count: int) -> dict[str, str]:
    """The environment of a process that may use so many threads."""
    return dict.fromkeys(_THREADS, str(count))


def fork_server(preload: Sequence[str]) -> ForkServerContext:
    """The server that makes the children, started if it is not running; its imports go on in the background.

    It has one thread, and is deaf to signals: SLURM sends them to all processes of a step at once, and
    without the server nobody would learn how the children end. Its children are deaf to Ctrl-C alone, which
    is the supervisor's to handle.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with _environment(threads(1)), _deaf(), _out_of_the_way():
        forkserver.ensure_running()
    return context


def kill_server() -> None:
    """End the server now. By itself it ends with this process, but only after its imports, and until then it
    holds on to standard output."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # there is no public way
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def start(context: ForkServerContext, target: Any, *arguments: Any) -> tuple[ForkServerProcess, Connection]:
    """A new process that runs ``target(connection, *arguments)``, and our end of the connection."""
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    try:
        process.start()
    finally:
        theirs.close()  # else our end would never see that the child is gone
    return process, ours


def run_trial(
    connection: Connection,
    task: Task,
    overrides: Sequence[str],
    root: Path,
    labels: Mapping[str, Any],
    surroundings: Mapping[str, str],
) -> None:
    """A child's life: sends ("named", run name), waits for True, trains; may send ("raised", traceback)."""
    _become_a_trial(surroundings)
    try:
        name = task.run_name(overrides)
        connection.send(("named", name))
        if not connection.recv():
            return
        _print_into(root / name / LOG)
        task.run(overrides, root, labels)
    except EOFError:  # the supervisor has gone before it said a word
        sys.exit(1)
    except SystemExit:  # it was asked to stop, has saved, and says so by its exit code
        raise
    except BaseException:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            connection.send(("raised", "\n".join(traceback.format_exc().splitlines()[-_TRACEBACK_LINES:])))
        sys.exit(1)


def check(connection: Connection, task: Task, candidates: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A child that validates (what it is, overrides) pairs; sends the first complaint, or None."""
    _become_a_trial(threads(1))
    complaint = None
    warnings.simplefilter("ignore")  # a run's log is the place for warnings, not the user's screen
    for what, overrides in candidates:
        try:
            task.validate(overrides)
        except (ValueError, TypeError, FileNotFoundError) as error:
            complaint = f"{what}: {error}"
            break
        except Exception:  # not a user's error: the traceback is what helps
            complaint = f"{what} cannot be validated:\n{traceback.format_exc()}"
            break
    connection.send(complaint)


def stop(processes: Sequence[ForkServerProcess], grace: float, hurry: Callable[[], bool] = bool) -> None:
    """SIGTERM to the processes and all they started, SIGKILL to those still there after `grace` seconds, or
    as soon as `hurry` says so."""
    deadline = time.monotonic() + grace
    asked = -math.inf
    while any(process.exitcode is None for process in processes):
        now = time.monotonic()
        if hurry() or now > deadline:
            for process in processes:
                kill(process)
        elif now > asked + _ASK_AGAIN:
            asked = now
            for process in processes:
                ask_to_stop(process)
        wait([process.sentinel for process in processes if process.exitcode is None], 0.1)


def ask_to_stop(process: ForkServerProcess) -> None:
    """SIGTERM to a child and all it started: it saves and leaves."""
    _signal_group(process, signal.SIGTERM)


def kill(process: ForkServerProcess) -> None:
    """SIGKILL to a child and all it started."""
    _signal_group(process, signal.SIGKILL)


def _become_a_trial(surroundings: Mapping[str, str]) -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_DFL)  # the server is deaf to them
    with contextlib.suppress(PermissionError):  # a session leader already
        os.setsid()
    with contextlib.suppress(OSError):  # when memory runs out, the kernel takes a trial and not the worker
        Path("/proc/self/oom_score_adj").write_text("500")
    for name in [name for name in os.environ if _RANKS.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(surroundings)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(surroundings[_THREADS[0]]))
    threading.Thread(target=_end_with_the_supervisor, name="supervisor-watch", daemon=True).start()


def _end_with_the_supervisor() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def _signal_group(process: ForkServerProcess, number: int) -> None:
    if process.exitcode is not None or process.pid is None:
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # gone, or not yet a group of its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _print_into(log: Path) -> None:
    """Standard output and error of this process, and of whatever it starts, go to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _out_of_the_way() -> Iterator[None]:
    """What is started inside imports nothing from the working folder, where PYTHONSAFEPATH asks for that and
    Python is too old to know it."""
    if sys.version_info >= (3, 11) or "PYTHONSAFEPATH" not in os.environ:
        yield
        return
    here = Path.cwd()
    os.chdir(os.sep)
    try:
        yield
    finally:
        os.chdir(here)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started inside ignores signals from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_STOPPING)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
