"""What goes on as lines for a file or a pipe: one when something has changed, one for every new alarm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from bbi_lightning.cli.live.choosing import Choice, label
from bbi_lightning.cli.live.columns import STATE_STYLES
from bbi_lightning.cli.live.gathering import Scene
from bbi_lightning.cli.live.screen import grouped
from bbi_lightning.cli.live.words import short_duration

_REMIND = 300.0  # seconds after which it says how things stand though nothing has changed


class PlainLines:
    """Turns scenes into lines; says nothing twice.

    Args:
        choice: which runs it is about.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._said: str = ""
        self._when = 0.0
        self._known: set[tuple[str, str]] = set()

    def of(self, scene: Scene) -> Iterator[str]:
        """The lines that a scene adds."""
        runs = self._choice.of(scene.snapshot.runs)
        counts = Counter(run.state for run in runs)
        stand = ", ".join(f"{counts[state]} {state}" for state in STATE_STYLES if counts[state]) or "no runs"
        now = time.strftime("%H:%M:%S")
        if stand != self._said or time.monotonic() - self._when > _REMIND:
            self._said, self._when = stand, time.monotonic()
            left = [
                f"{s.name} {short_duration(s.eta)} to go" for s in scene.snapshot.sweeps if s.eta is not None
            ]
            yield f"{now}  {'  ·  '.join([stand, *left])}"
        present = {("", alarm.code + alarm.sentence[:20]): f"{alarm.sentence}" for alarm in scene.alarms}
        for alarm, members in grouped(runs):
            for run in members:
                present[run.name, alarm.code] = f"{label(run)}: {alarm.sentence}"
        for key in present.keys() - self._known:
            yield f"{now}  ! {present[key]}"
        self._known = set(present)  # an alarm that comes again is said again
