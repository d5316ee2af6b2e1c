"""Run by a test: a process that gets into trouble, with a watchdog of shortened patience.

python watchdog_program.py TROUBLE FOLDER

It prints "ready" when its trouble has begun; the watchdog's last words go to FOLDER/words.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbi_lightning.training import interrupts, watchdog
from bbi_lightning.training.watchdog import Watchdog

watchdog._GRACE, watchdog._AT_ONCE, watchdog._LAST_WORDS = 2.0, 1.0, 1.0


def hang() -> None:
    """Wait as in a hung collective: for ever, with the GIL released, and no Python handler is ever run."""
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)


def ready() -> None:
    print("ready", flush=True)


class Observer(threading.Thread):
    """Lightning's, without its imports: when one process ends with an error, it kills all and this one."""

    def __init__(self, children: list[Any]) -> None:
        super().__init__(daemon=True, name="child-process-observer")
        self._child_processes = children

    def run(self) -> None:
        while True:
            time.sleep(5)
            if any(child.poll() for child in self._child_processes):
                os.kill(os.getpid(), signal.SIGKILL)


class Trouble:
    """One process's; each method is one kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def say(self, kind: str) -> Callable[[str], None]:
        words = self.folder / f"words{os.environ.get('LOCAL_RANK', '')}"
        return lambda reason: words.write_text(f"{kind}: {reason}") and None

    def dog(self, stop_within: float = 1.0) -> Watchdog:
        dog = Watchdog(stop_within, self.say("expiry"), self.say("lost"))
        dog.start()
        return dog

    def hung(self) -> None:
        self.dog()
        ready()
        hang()

    def hung_with_patience(self) -> None:
        self.dog(stop_within=1000)
        ready()
        hang()

    def hung_before_the_watch(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        self.dog()
        hang()

    def hung_last_words(self) -> None:
        Watchdog(1.0, lambda reason: time.sleep(1000)).start()
        ready()
        hang()

    def failing_last_words(self) -> None:
        Watchdog(1.0, lambda reason: Path(reason, "nowhere").write_text("")).start()
        ready()
        hang()

    def lively(self) -> None:
        """Twice its patience after the signal, but from boundary to boundary."""
        dog = self.dog(stop_within=2.0)
        ready()
        while interrupts.received() is None:
            time.sleep(0.01)
        for _ in range(40):
            dog.reached_boundary()
            time.sleep(0.1)
        dog.stop()

    def busy(self) -> None:
        """Three times its patience after the signal, which it has asked for; then hung."""
        dog = self.dog()
        dog.extend(1000)
        ready()
        while interrupts.received() is None:
            time.sleep(0.01)
        time.sleep(3)
        print("saved", flush=True)
        dog.reached_boundary()
        hang()

    def leaving(self) -> None:
        """Takes its time for the end."""
        dog = self.dog()
        self.launch("1", "2")
        ready()
        while dog.lost_rank(0) is None:
            time.sleep(0.01)
        dog.leaving(1000)
        time.sleep(4)

    def hung_with_ranks(self) -> None:
        self.dog()
        self.launch("1", "2")
        ready()
        hang()

    def hung_with_ranks_of_lightning(self) -> None:
        from lightning_fabric.strategies.launchers.subprocess_script import _launch_process_observer

        self.dog()
        self.launch("1", "2", observe=_launch_process_observer)
        ready()
        hang()

    def ranks_that_finish(self) -> None:
        self.dog()
        self.launch("1", "2", trouble="finishing")
        ready()
        time.sleep(4)

    def finishing(self) -> None:
        """A rank that is done."""

    def rank(self) -> None:
        """A rank that another one has started."""
        self.dog()
        self.announce()
        hang()

    def rank_hung_at_its_end(self) -> None:
        self.dog().stop()
        self.announce()
        hang()

    def hung_with_a_rank_at_its_end(self) -> None:
        self.dog()
        self.launch("1", trouble="rank_hung_at_its_end")
        ready()
        hang()

    def announce(self) -> None:
        unfinished = self.folder / f".{os.getpid()}"
        unfinished.write_text(str(os.getpid()))
        unfinished.rename(self.folder / f"rank-{os.environ['LOCAL_RANK']}")

    def launch(
        self, *ranks: str, trouble: str = "rank", observe: Callable[[list[Any]], None] | None = None
    ) -> None:
        """Start further ranks as Lightning's launcher does, with the thread that it sets on them."""
        command = [sys.executable, __file__, trouble, str(self.folder)]
        children = [subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": rank}) for rank in ranks]
        (observe or (lambda children: Observer(children).start()))(children)
        while trouble != "finishing" and len(list(self.folder.glob("rank-*"))) < len(ranks):
            time.sleep(0.01)


if __name__ == "__main__":
    with interrupts.listening():
        getattr(Trouble(Path(sys.argv[2])), sys.argv[1])()
