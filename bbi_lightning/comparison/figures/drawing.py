"""The vocabulary of the pictures: how an arm looks, axes whose numbers can be read, points and intervals."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from bbi_lightning.comparison.figures.style import LIGHT, PAPER, Style
from bbi_lightning.comparison.metric import Metric
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.sweep_data import Arm, Axis

_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FAMILIES = ("bbi", "sgd", "ecdsep", "adamw")  # these keep their colour on the page of every sweep
PADDING = 0.06  # of a searched interval's length, on either side of it


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
        return _MARKERS[(self.slot + self._round) % len(_MARKERS)]

    @property
    def dash(self) -> Any:
        """Of lines."""
        return _DASHES[(self.slot + self._round) % len(_DASHES)]

    @property
    def _round(self) -> int:
        """How often the colours have been used up: the same colour then comes with another marker."""
        return self.slot // len(LIGHT)


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


def draw_row(
    axes: Axes, style: Style, y: float, look: Look, values: NDArray[np.float64], estimate: Estimate
) -> None:
    """Every value as a point, equal ones piled up; below them the estimate with its interval."""
    axes.scatter(
        values, y + 0.15 + _pile(values), s=17 * style.scale, marker=look.marker, **point_style(look)
    )
    low, high, below = estimate.low, estimate.high, y - 0.17
    axes.plot(
        [low, high], [below, below], color=look.colour, linewidth=2.4 * style.size, solid_capstyle="butt"
    )
    axes.plot(
        estimate.value, below, marker=look.marker, markersize=8 * style.size, color=look.colour,
        markeredgecolor=PAPER, markeredgewidth=1.2 * style.size,
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
    """Where a logarithmic axis puts zero: half of the smallest positive value, give or take rounding.

    −inf where there are negative values: the axis is then linear, and nothing has to be moved.
    """
    x = np.asarray(heights, dtype=np.float64)
    x = x[np.isfinite(x)]
    if x.size and x.min() < -1e-12:
        return -math.inf
    positive = x[x > 1e-12]
    return float(positive.min()) / 2 if positive.size else 1e-3


def value_axis(axes: Axes, which: str, lowest: float) -> None:
    """Make the axis of a metric logarithmic, unless `lowest`, its `zero_height`, says that it cannot be."""
    if math.isfinite(lowest):
        log_axis(axes, which)


def short(key: str) -> str:
    """A searched key as it is written beside an axis."""
    return "learning rate" if key in ("lr", "optim.lr") else key.removeprefix("optim.").replace("_", " ")


def padded(axis: Axis) -> tuple[float, float]:
    """A searched interval with a margin on both sides."""
    if axis.log:
        margin = (axis.high / axis.low) ** PADDING
        return axis.low / margin, axis.high * margin
    margin = PADDING * (axis.high - axis.low)
    return axis.low - margin, axis.high + margin


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis ("x" or "y") logarithmic, marked at powers of ten, or at more if it is short."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else math.inf
    box = axes.get_window_extent()
    inches = (box.width if which == "x" else box.height) / axes.figure.dpi
    room = inches * (2.2 if which == "x" else 4.0)  # labels beside and above each other
    dense = 3 * decades <= room
    subs = (1, 1.2, 1.5, 2, 3, 5, 7) if decades < 0.6 else (1, 2, 5) if dense else (1,)
    few = max(2, int(room))
    narrow = decades < 0.25  # the ticks of a linear axis are then the better ones
    axis.set_major_locator(MaxNLocator(few) if narrow else LogLocator(subs=subs, numticks=few))
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


def name_panel(axes: Axes, label: str) -> None:
    """Write an arm's name above its panel, in lines that do not run into the next panel."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    em = FontProperties(size=mpl.rcParams["axes.titlesize"]).get_size_in_points()
    room = 1.25 * 72 * axes.get_position().width * figure.get_figwidth()  # the layout will make it wider
    width = max(8, int(room / (0.64 * em)))
    lines = textwrap.wrap(label, width=width, break_on_hyphens=False, break_long_words=False)
    axes.set_title("\n".join(lines))


def long_label(axes: Axes, text: str) -> None:
    """Write below the horizontal axis what may be longer than the figure is wide, in lines that fit."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    em = FontProperties(size=mpl.rcParams["axes.labelsize"]).get_size_in_points()
    lines = textwrap.wrap(text, width=max(20, int(72 * figure.get_figwidth() / (0.58 * em))))
    axes.set_xlabel("\n".join(lines))
    figure.set_figheight(figure.get_figheight() + (len(lines) - 1) * 1.2 * em / 72)


def counted_axis(axes: Axes, which: str = "x") -> None:
    """Write large counts on an axis as 20k and 1.5M."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda x, _: write_large(x)))


def write_large(x: float) -> str:
    """20000 as "20k", 1500000 as "1.5M", numbers below 10,000 as they are."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= max(size, 1e4):
            return f"{x / size:.6g}{letter}".replace("-", "−")
    return f"{x:g}".replace("-", "−")


def write_value(x: float, digits: int = 2) -> str:
    """A positive number in a sentence: 0.15, 1.1·10⁻⁵, 40k."""
    if not math.isfinite(x):
        return "–"
    rounded = float(f"{x:.{digits}g}")
    if rounded >= 1e4:
        return write_large(rounded)
    if rounded >= 1e-3 or rounded <= 0:
        return f"{rounded:g}".replace("-", "−")
    mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if float(mantissa) == 1 else f"{float(mantissa):g}·{power}"


def legend(axes: Axes) -> None:
    """The labelled lines of the axes, above them and never over the data."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    handles = [_sample(line) for line in lines]
    labels = [str(line.get_label()) for line in lines]
    figure = axes.get_figure(root=True)
    assert figure is not None
    columns = _columns(labels, 72 * figure.get_figwidth())
    em = FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    more = math.ceil(len(labels) / columns) - 1
    figure.set_figheight(figure.get_figheight() + more * 1.55 * em / 72)  # else the axes would pay for it
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, borderaxespad=0.2)


def _columns(labels: Sequence[str], room: float) -> int:
    """How many columns of a legend fit into so many points."""
    em = FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    extra = em * sum(
        mpl.rcParams[f"legend.{part}"] for part in ("handlelength", "handletextpad", "columnspacing")
    )
    widths = [extra + _letter() * em * len(label) for label in labels]
    fits = [n for n in range(1, min(6, len(labels)) + 1) if sum(max(widths[i::n]) for i in range(n)) <= room]
    return max(fits, default=1)


def _letter() -> float:
    """The width of an average letter, in em."""
    return 0.46 if "STIXGeneral" in mpl.rcParams["font.family"] else 0.56


def panels(style: Style, n: int, height: float = 1.7) -> tuple[Figure, list[Axes]]:
    """A figure with n small panels that share both axes, as many beside each other as look well."""
    columns = n if n <= 3 else min(3, math.ceil(n / 2))
    rows = math.ceil(n / columns)
    figure = style.figure(0.4 + height * rows, width="wide")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for axes in grid[n:]:
        axes.remove()
    for above in range(max(0, n - columns), (rows - 1) * columns):  # its neighbour below is gone
        grid[above].tick_params(labelbottom=True)
    return figure, grid[:n]


def _sample(line: Line2D) -> Line2D:
    """A line of the same colour and dashes for a legend (`get_linestyle` calls every dash pattern "--")."""
    sample = Line2D([], [])
    sample.update_from(line)
    sample.set(linewidth=1.25 * mpl.rcParams["lines.linewidth"], marker="none")
    return sample


def zero_note(metric: Metric | None) -> str:
    """What a caption says of a logarithmic axis of errors."""
    return "Zero error is drawn at the lower edge." if metric is not None and metric.is_share else ""


def band_alpha(crowd: int) -> float:
    """How opaque a band is among so many: many bands on each other must not become a wall."""
    return min(0.14, 0.8 / max(1, crowd))


def banded_line(
    axes: Axes,
    look: Look,
    x: NDArray[Any],
    middle: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    label: str,
    *,
    points: bool = False,
    crowd: int = 1,
) -> None:
    """A line with a band around it.

    `points` also marks places on it, so that it can be told in grey. `crowd`: how many there are in all.
    """
    axes.fill_between(x, low, high, color=look.colour, alpha=band_alpha(crowd), linewidth=0)
    marks: dict[str, Any] = {}
    if points:
        size = 2.5 * mpl.rcParams["lines.linewidth"]
        marks = {"marker": look.marker, "markersize": size, "markevery": max(1, x.size // 16)}
    axes.plot(x, middle, color=look.colour, linestyle=look.dash, label=label, **marks)
