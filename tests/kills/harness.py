"""A training command that is killed and started again until it is finished, and what came of it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bbi_lightning.tracking.run_folder import RunFolder, RunRecord
from bbi_lightning.training.composition import compose
from bbi_lightning.training.config import run_name
from kills.moments import VARIABLE, Kill
from kills.program import MET
from kills.server import Launcher, Process, wait
from kills.worlds import VARIABLE as WORLD

LEAVES_WITHIN = 30.0
"""Seconds in which a process must have left after one it works with was killed."""

PATIENCE = 120.0
"""Seconds after which a process that should train and end is held to hang."""

MANY = 20

SIGNALS = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGINT", "SIGUSR2")

EVERY_STEP = ("as a batch arrives", "in forward", "in backward", "after the optimizer")
EVERY_ROW = ("before a row", "after a row")
EVERY_FILE = (
    "in the middle of a file",
    "before a sync",
    "before a rename",
    "after a rename",
    "before a removal",
)
EVERY_EPOCH = ("in validation", "after validation")
ONCE = (
    "before the run exists",
    "before the attempt is written",
    "while data are prepared",
    "as training starts",
)


def random_kill(dice: random.Random, ranks: int = 1, steps: int = 8) -> Kill:
    """A moment in the next `steps` optimizer steps or so, with a bias to those where much is in flux."""
    kind, furthest = dice.choices(
        [(EVERY_STEP, steps), (EVERY_ROW, steps // 2), (EVERY_FILE, steps), (EVERY_EPOCH, 1), (ONCE, 1)],
        weights=[8, 3, 5, 2, 1],
    )[0]
    # half of the kills give no notice
    chosen = dice.choice(SIGNALS[1:]) if dice.random() < 0.5 else "SIGKILL"
    # files, rows and the record are the business of one rank
    rank = 0 if kind in (EVERY_FILE, EVERY_ROW) else dice.randrange(ranks)
    return Kill(dice.choice(kind), dice.randint(1, furthest), chosen, rank)


@dataclass
class Training:
    """One command, its processes, and the history of what was done to them.

    Attributes:
        launcher: makes the processes.
        root: holds the run's folder.
        overrides: of `bbi train`, without what the harness adds.
        ranks: processes of an attempt.
        started_by_lightning: ranks above 0 are started by rank 0, as on one machine by hand; otherwise all
            are started here, as by srun or torchrun.
        varied: overrides that must not matter, of which every attempt has one.
        printed_to: the file that takes all that is printed; None: `output.txt` in `root`.
        history: what was done to each attempt, and the exit codes.
    """

    launcher: Launcher
    root: Path
    overrides: Sequence[str]
    ranks: int = 1
    started_by_lightning: bool = False
    varied: Sequence[str] = ()
    printed_to: Path | None = None
    history: list[str] = field(default_factory=list)
    killed: int = 0

    @property
    def folder(self) -> RunFolder:
        """The run's."""
        return RunFolder(self.root / _name_of(tuple(self.overrides)))

    @property
    def output(self) -> Path:
        """What all attempts have printed."""
        return self.printed_to or self.root / "output.txt"

    @property
    def _met(self) -> Path:
        return self.output.with_name("ranks_have_met")

    def command(self, *more: str) -> list[str]:
        """The overrides in full."""
        return [
            "tracking=none",
            "runtime.progress=none",
            "runtime.threads=1",
            "runtime.accelerator=cpu",
            f"runtime.devices={self.ranks}",
            "runtime.timeout=20",
            f"runtime.root={self.root}",
            *self.overrides,
            *more,
        ]

    def start(
        self,
        *more: str,
        kill: Kill | None = None,
        world: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> list[Process]:
        """The processes of one attempt."""
        self.root.mkdir(parents=True, exist_ok=True)
        extra = {WORLD: json.dumps(world or {}), **({VARIABLE: kill.to_json()} if kill else {})}
        command = ["resume", str(self.folder.path), *more] if resume else ["train", *self.command(*more)]
        if self.ranks == 1 or self.started_by_lightning:
            return [self.launcher.start(command, extra, self.output)]
        port = str(_free_port())
        self._met.unlink(missing_ok=True)
        extra[MET] = str(self._met)
        return [
            self.launcher.start(command, {**extra, **_place(rank, self.ranks, port)}, self.output)
            for rank in range(self.ranks)
        ]

    def attempt(
        self,
        *more: str,
        kill: Kill | None = None,
        world: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> list[int]:
        """Start, wait, check how the processes and the record ended.

        Args:
            more: overrides that are no part of the identity, of this attempt only.
            kill: what shall happen to it.
            world: where it runs.
            resume: by `bbi resume RUN` instead of `bbi train …`.

        Returns:
            the exit codes of the ranks.
        """
        before = self.record
        codes = self.finish(self.start(*more, kill=kill, world=world, resume=resume), kill)
        self.history.append(f"{' '.join(more)} {kill or 'undisturbed'}: {codes}")
        self._check_end(kill, codes)
        self._check_attempts(before)
        return codes

    def finish(self, processes: Sequence[Process], kill: Kill | None = None) -> list[int]:
        """Wait; a process that stays is killed, and that is a failure."""
        if kill is not None and kill.signal == "SIGKILL" and len(processes) > 1:
            wait([processes[kill.rank]], PATIENCE)
            if not self._met.exists():
                _end(processes)  # before they have met, a lost rank is the business of who started them
            codes = wait(processes, LEAVES_WITHIN)
        else:
            codes = wait(processes, PATIENCE)
        if codes is None:
            _end(processes)
            raise AssertionError(f"processes did not end after {kill}\n{self.report()}")
        return codes

    def _check_end(self, kill: Kill | None, codes: Sequence[int]) -> None:
        """Exit codes and record must tell what happened."""
        told = set(codes)
        if kill is None:
            assert told == {0}, self.report()
            assert self.finished, self.report()
        elif kill.signal == "SIGKILL":
            self.killed += -signal.SIGKILL in told
            others = {code for rank, code in enumerate(codes) if rank != kill.rank}
            if -signal.SIGKILL in told and 0 in others:
                assert self.finished, self.report()
        else:
            expected = 128 + signal.Signals[kill.signal]
            self.killed += expected in told
            assert told in ({expected}, {0}), self.report()
            assert self.finished or told == {expected}, self.report()

    def _check_attempts(self, before: RunRecord | None) -> None:
        """The record has one attempt more, if it got that far; what was done is not done again."""
        if self.record is None:
            return
        earlier = () if before is None else before.attempts
        attempts = self.record.attempts
        assert len(attempts) - len(earlier) in (0, 1), self.report()
        if before is None or len(attempts) == len(earlier) or not earlier:
            return
        begun = attempts[-1].from_step
        if before.state == "running":
            assert attempts[-2].reason == "lost", self.report()
            assert begun >= attempts[-2].from_step, self.report()
        elif before.state == "interrupted":
            assert begun == before.summary["steps"], f"a step was lost after a notice\n{self.report()}"

    @property
    def record(self) -> RunRecord | None:
        """`run.json`, None before there is one."""
        return self.folder.record if self.folder.exists else None

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return self.record is not None and self.record.state == "finished"

    def kill_often(self, times: int, seed: int) -> None:
        """Kill it that many times at random moments, after many also in its test, then let it finish."""
        dice = random.Random(seed)
        started = 0
        while self.killed < times:
            started += 1
            assert not self.finished, f"finished after {self.killed} kills: train longer\n{self.report()}"
            assert started < 3 * times, f"only {self.killed} kills came to pass\n{self.report()}"
            kill = random_kill(dice, self.ranks)
            often = kill.moment in EVERY_FILE or dice.random() < 0.5
            every = "checkpoint.every=0" if often else "checkpoint.every=0.05"
            self.attempt(every, *dice.sample(self.varied, k=min(1, len(self.varied))), kill=kill)
        if times >= MANY and not self.finished:
            self.attempt(kill=Kill("in the test", 1, "SIGKILL"))
        if not self.finished:
            self.attempt()

    def report(self) -> str:
        """What to read when something is wrong."""
        printed = self.output.read_text(errors="replace") if self.output.exists() else ""
        return "\n".join(
            [f"{self.root}: bbi train {' '.join(self.overrides)}", *self.history, printed[-3000:]]
        )


def _end(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)


@cache
def _name_of(overrides: tuple[str, ...]) -> str:
    return run_name(compose(list(overrides)))  # a quarter of a second


def _place(rank: int, ranks: int, port: str) -> dict[str, str]:
    """Where a rank finds itself, as a launcher of a cluster tells it."""
    return {
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
