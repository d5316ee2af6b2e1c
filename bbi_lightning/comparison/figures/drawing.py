"""The vocabulary of the pictures: how an arm looks, axes whose numbers can be read, points and intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from bbi_lightning.comparison.figures.svg import LIGHT, PAPER
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.sweep_data import Arm, Axis

_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FAMILIES = ("bbi", "sgd", "ecdsep", "adamw")  # these keep their colour on the page of every sweep


@dataclass(frozen=True)
class Look:
    """How an arm is drawn. `slot` is its place in the palettes of `svg`."""

    slot: int

    @property
    def colour(self) -> str:
        """Of lines and points."""
        return LIGHT[self.slot % len(LIGHT)]

    @property
    def marker(self) -> str:
        """Of points."""
        return _MARKERS[self.slot % len(_MARKERS)]

    @property
    def dash(self) -> Any:
        """Of lines."""
        return _DASHES[self.slot % len(_DASHES)]


def looks(arms: Sequence[Arm]) -> dict[str, Look]:
    """One look for each arm's name; the well-known optimizers have theirs reserved."""
    names = [arm.name for arm in arms]
    slots = {name: _FAMILIES.index(name) for name in names if name in _FAMILIES}
    free = (slot for slot in range(len(_FAMILIES) + len(names)) if slot not in slots.values())
    return {name: Look(slots[name] if name in slots else next(free)) for name in names}


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Give each row of a picture its name; the first is on top, at height n − 1, the last at height 0."""
    axes.set_yticks(range(len(labels) - 1, -1, -1), labels)
    axes.set_ylim(-0.5, len(labels) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def draw_row(axes: Axes, y: float, look: Look, values: NDArray[np.float64], estimate: Estimate) -> None:
    """Every value as a point, equal ones piled up; below them the estimate with its interval."""
    axes.scatter(values, y + 0.15 + _pile(values), s=17, marker=look.marker, **point_style(look))
    low, high, below = estimate.low, estimate.high, y - 0.17
    axes.plot([low, high], [below, below], color=look.colour, linewidth=2.4, solid_capstyle="butt")
    axes.plot(
        estimate.value, below, marker=look.marker, markersize=8, color=look.colour,
        markeredgecolor=PAPER, markeredgewidth=1.2,
    )  # fmt: skip


def point_style(look: Look) -> dict[str, Any]:
    """Keywords of a scatter of single runs."""
    return {"color": look.colour, "alpha": 0.75, "linewidths": 0}


def _pile(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets that put values which would lie on each other above each other."""
    width = float(np.ptp(values)) if values.size else 0.0
    places = np.round((values - values.min()) / width * 120).tolist() if width > 0 else [0.0] * values.size
    seen: Counter[float] = Counter()
    offsets = []
    for place in places:
        offsets.append(seen[place])
        seen[place] += 1
    most = max(seen.values(), default=1)
    return np.array(offsets) * min(0.09, 0.36 / most) - 0.02


def height_label(metric: Metric) -> str:
    """What an axis of `height` is called."""
    if not metric.is_share:
        return metric.label
    return metric.label.replace("accuracy", "error") + " (%)"


def height(values: ArrayLike, metric: Metric | None) -> NDArray[np.float64]:
    """Values as they are drawn: an accuracy as its error rate in per cent."""
    x = np.asarray(values, dtype=np.float64)
    return 100 * (1 - x) if metric is not None and metric.is_share else x


def zero_height(heights: ArrayLike) -> float:
    """Where a logarithmic axis puts zero: half of the smallest positive value, give or take rounding."""
    x = np.asarray(heights, dtype=np.float64)
    positive = x[np.isfinite(x) & (x > 1e-12)]
    return float(positive.min()) / 2 if positive.size else 1e-3


def padded(axis: Axis) -> tuple[float, float]:
    """A searched interval with a margin on both sides."""
    if axis.log:
        margin = (axis.high / axis.low) ** 0.06
        return axis.low / margin, axis.high * margin
    margin = 0.06 * (axis.high - axis.low)
    return axis.low - margin, axis.high + margin


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis ("x" or "y") logarithmic, marked at 1, 2, 5 if it is short, else at powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else math.inf
    box = axes.get_window_extent()
    inches = (box.width if which == "x" else box.height) / axes.figure.dpi
    room = inches * (2.2 if which == "x" else 4.0)  # labels beside and above each other
    dense = 3 * decades <= room
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if dense else (1,), numticks=max(2, int(room))))
    if dense:
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: _power(x)))


def _power(x: float) -> str:
    """0.02 as "0.02", 2e-7 as "2·10⁻⁷"."""
    if x <= 0 or 10**-3.5 < x < 10**4.5:
        return f"{x:g}" if x > 0 else ""
    mantissa, exponent = f"{x:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}·{power}"


def legend(axes: Axes) -> None:
    """The labelled lines of the axes, above them and never over the data."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    handles = [_sample(line) for line in lines]
    labels = [str(line.get_label()) for line in lines]
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), borderaxespad=0.2)


def _sample(line: Line2D) -> Line2D:
    """A line of the same colour and dashes for a legend (`get_linestyle` calls every dash pattern "--")."""
    sample = Line2D([], [])
    sample.update_from(line)
    sample.set(linewidth=2, marker="none")
    return sample
