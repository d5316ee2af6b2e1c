"""What should make someone look at a run, told from its newest rows; a sentence each.

Thresholds come from what healthy runs show. With mini-batches a BBI step changes the energy by 10 to 50 per
cent (the batch changes V), ECDSep's by up to 1; V/E of 1e-9 is where a fitted network ends. So neither is an
alarm by itself: an error above the energy itself is, and a V/E at which nothing moves any more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bbi_lightning.tracking.durations import in_words
from bbi_lightning.tracking.live.telemetry import Telemetry

Level = Literal["error", "warning"]

LARGE_ENERGY_ERROR = 1.0  # |H - E| / E of a step: more than the whole energy
TINY_RATIO = 1e-6  # V/E
AT_REST = 0.999  # V/E from which on next to no energy is left for motion
STILL = 0.01  # relative spread of the recent losses below which nothing moves
RISEN = 2.0  # times the first loss
SLOW_DATA = 0.5  # share of the time
PATIENCE = 60.0  # seconds without a row that are always allowed
_GAPS = 6.0  # times the usual gap between rows
_ENOUGH = 4  # rows that a judgement needs


@dataclass(frozen=True)
class Alarm:
    """Something to look at.

    Attributes:
        level: "error": the run is lost or its numbers are; "warning": it may be.
        code: a word for scripts.
        sentence: what it is and what helps.
    """

    level: Level
    code: str
    sentence: str


def training_alarms(telemetry: Telemetry) -> Iterator[Alarm]:
    """The alarms that follow from the rows of a run under way."""
    yield from _not_finite(telemetry)
    yield from _stalled(telemetry)
    yield from _energy(telemetry)
    yield from _rising(telemetry)
    wait = telemetry.number("speed/data_wait")
    if wait is not None and wait > SLOW_DATA:
        yield Alarm("warning", "data", f"waits for data {wait:.0%} of the time: give it more workers")


def allowed_silence(usual_gap: float | None) -> float:
    """Seconds without a row that are nothing unusual, given the usual seconds between two rows."""
    return max(PATIENCE, _GAPS * usual_gap) if usual_gap is not None else 5 * PATIENCE


def silence_alarm(seconds: float, usual_gap: float | None) -> Alarm | None:
    """A run that goes on and writes nothing; None if the silence is nothing unusual.

    Args:
        seconds: since its log or its record last changed.
        usual_gap: seconds between two of its rows, None if that is not known yet.
    """
    if seconds <= allowed_silence(usual_gap):
        return None
    usual = f", usually every {usual_gap:.2g} s" if usual_gap else ""
    said = f"no row for {in_words(seconds)}{usual}: it hangs, or validates for long"
    return Alarm("warning", "silent", said)


def failure_alarm(exception: str | None) -> Alarm:
    """A run that failed: the last line of its traceback."""
    lines = (exception or "").strip().splitlines()
    last = lines[-1] if lines else "no traceback was kept"
    code = "ranks" if "RanksDivergedError" in last or "RanksDivergedError" in (exception or "") else "failed"
    return Alarm("error", code, ("the ranks diverged: " if code == "ranks" else "failed: ") + last)


def lost_alarm(host: str | None) -> Alarm:
    """A run whose process is gone without a word."""
    where = f" on {host}" if host else ""
    return Alarm("error", "lost", f"its process{where} is gone: start it again, it goes on")


def _not_finite(telemetry: Telemetry) -> Iterator[Alarm]:
    recent = telemetry.recent_losses
    if recent and not math.isfinite(recent[-1][1]):
        since = next((step for step, loss in recent if not math.isfinite(loss)), recent[-1][0])
        yield Alarm("error", "nan", f"the loss is {recent[-1][1]} since step {since:,}: lower optim.lr")
    elif (skipped := _growth(telemetry, "energy/skipped")) > 0:
        yield Alarm("warning", "skipped", f"{skipped:.0f} steps skipped of late, their loss was not finite")


def _stalled(telemetry: Telemetry) -> Iterator[Alarm]:
    rows = telemetry.energies
    if not rows:
        return
    potential, ratio = (_value(rows[-1], key) for key in ("potential", "potential_over_energy"))
    idle = _growth(telemetry, "energy/at_floor") > 0.5 * _steps(rows)
    if idle or (potential is not None and potential <= 0):
        yield Alarm("error", "stall", "stands still at V ≤ 0: the loss has reached optim.floor, lower it")
        return
    ratios = [value for row in rows if (value := _value(row, "potential_over_energy")) is not None]
    if len(ratios) >= _ENOUGH and min(ratios[-_ENOUGH:]) >= AT_REST:
        yield Alarm(
            "error", "stall", "is at rest: V takes all the energy, lower optim.lr or raise extra_energy"
        )
    elif ratio is not None and ratio < TINY_RATIO and _is_still(telemetry):
        yield Alarm("warning", "stall", f"hardly moves: V/E is {ratio:.1g} and the loss stays as it is")


def _energy(telemetry: Telemetry) -> Iterator[Alarm]:
    error = telemetry.energy_error
    if error is not None and len(telemetry.energies) >= _ENOUGH and error >= LARGE_ENERGY_ERROR:
        yield Alarm(
            "warning", "energy", f"a step changes the energy by {error:.2g} times itself: lower optim.lr"
        )


def _rising(telemetry: Telemetry) -> Iterator[Alarm]:
    losses = [loss for _, loss in telemetry.recent_losses]
    first = telemetry.first_loss
    if first is None or first <= 0 or len(losses) < _ENOUGH or not all(map(math.isfinite, losses)):
        return
    if min(losses[-_ENOUGH:]) > RISEN * first:
        yield Alarm(
            "warning", "rising", f"the loss is {losses[-1]:.3g}, it began at {first:.3g}: lower optim.lr"
        )


def _is_still(telemetry: Telemetry) -> bool:
    losses = [loss for _, loss in telemetry.recent_losses]
    if len(losses) < _ENOUGH or not all(map(math.isfinite, losses)):
        return False
    return max(losses) - min(losses) <= STILL * abs(max(losses))


def _growth(telemetry: Telemetry, key: str) -> float:
    """By how much a counter grew over the newest rows with energies."""
    counts = [value for row in telemetry.energies if isinstance(value := row.get(key), (int, float))]
    return counts[-1] - counts[0] if len(counts) > 1 else 0.0


def _steps(rows: list[dict[str, Any]]) -> float:
    return max(1.0, rows[-1]["step"] - rows[0]["step"])


def _value(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(f"energy/{key}")
    return float(value) if isinstance(value, (int, float)) else None
