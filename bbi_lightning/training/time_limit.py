"""When this attempt must have left: as the user says, or as SLURM grants, whichever is nearer.

Only differences of the monotonic clock are used, so nothing changes when the computer's clock is set.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import time
from dataclasses import dataclass

from bbi_lightning.training import interrupts

MARGIN = 15.0
"""Seconds kept for leaving: the last rows, the loggers' end, the processes' end."""

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d{1,4}):(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2})")
_ASKING = 10.0  # seconds that SLURM may take to answer


@dataclass(frozen=True)
class TimeLimit:
    """The end of the time that this process was given.

    Args:
        ends_at: on the monotonic clock, in seconds.
        margin: seconds kept for leaving, ≥ 0.
    """

    ends_at: float
    margin: float = MARGIN

    @classmethod
    def known(cls, max_time: float | str | None) -> TimeLimit | None:
        """The nearer of the user's limit and SLURM's; None if there is neither.

        Args:
            max_time: seconds since this attempt began, its imports included, or "HH:MM:SS", or "D-HH:MM:SS";
                None for no limit.

        Raises:
            ValueError: `max_time` is neither.
        """
        now, limits = time.monotonic(), []
        if max_time is not None:
            since = interrupts.listening_since()
            limits.append(cls.lasting(seconds_of(max_time), since=now if since is None else since, now=now))
        granted = _seconds_granted_by_slurm()
        if granted is not None:
            limits.append(cls.lasting(granted, since=now, now=now))
        return min(limits, key=lambda limit: limit.ends_at, default=None)

    @classmethod
    def lasting(cls, seconds: float, *, since: float, now: float) -> TimeLimit:
        """A limit so many seconds after `since`; a short one keeps less margin, half of what is left."""
        ends_at = since + seconds
        return cls(ends_at, min(MARGIN, max(0.0, 0.5 * (ends_at - now))))

    def keeping(self, seconds: float) -> TimeLimit:
        """The same limit, with so many seconds more kept for leaving, but at most half of what is left."""
        half = max(self.margin, self.remaining() / 2)
        return dataclasses.replace(self, margin=min(self.margin + seconds, half))

    def remaining(self) -> float:
        """Seconds left; negative when it is over."""
        return self.ends_at - time.monotonic()

    def is_near(self, save_seconds: float, step_seconds: float) -> bool:
        """Whether the run must save now, because after one more step there might not be the time to.

        Args:
            save_seconds: what a save is expected to cost, ≥ 0; it may take twice as long.
            step_seconds: the same of a step, ≥ 0.
        """
        return self.remaining() <= self.margin + 2 * (save_seconds + step_seconds)


def seconds_of(max_time: float | str) -> float:
    """Seconds in what a user writes.

    Example:
        >>> seconds_of(90), seconds_of("1:30:00"), seconds_of("1-00:00:00")
        (90.0, 5400.0, 86400.0)

    Raises:
        ValueError: it is no duration, or not above zero.
    """
    seconds = _parsed(max_time)
    if seconds is None or not 0 < seconds < float("inf"):
        raise ValueError(f'runtime.max_time={max_time} is no duration: give seconds above 0, or "HH:MM:SS"')
    return seconds


def _parsed(text: float | str) -> float | None:
    clock = _CLOCK.fullmatch(str(text).strip())
    if clock is None:
        try:
            return None if isinstance(text, bool) else float(text)
        except ValueError:
            return None
    days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    if minutes > 59 or seconds > 59 or (clock["days"] is not None and hours > 23):
        return None
    return ((days * 24.0 + hours) * 60 + minutes) * 60 + seconds


def _seconds_granted_by_slurm() -> float | None:
    """Seconds until SLURM ends this job; None outside SLURM, without a limit, or if it does not say."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdigit():
        return None
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    left = int(end) - time.time() if end.isdigit() else 0.0  # only here the computer's clock matters
    if left > 0:  # else it is another job's, kept by a shell
        return left
    answer = _answer("squeue", "--noheader", "--jobs", job, "--format", "%L")
    return None if answer is None else _slurm_duration(answer)


def _slurm_duration(text: str) -> float | None:
    """Seconds in SLURM's way of writing a duration: [[D-]HH:]MM:SS; None for UNLIMITED and the like."""
    lines = text.split()
    if len(lines) != 1:
        return None
    days, _, clock = lines[0].rpartition("-")
    parts = clock.split(":")
    if not 1 < len(parts) <= 3 or not all(part.isdigit() for part in [*parts, days or "0"]):
        return None
    hours, minutes, seconds = (int(part) for part in ["0", *parts][-3:])
    return ((int(days or 0) * 24.0 + hours) * 60 + minutes) * 60 + seconds


def _answer(*command: str) -> str | None:
    """What a command prints; None if it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASKING, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
