"""The two ways a figure is drawn: for the page, and for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, PAPER = "#1b1c1f", "#fdfdfe"

# Told apart with every common colour blindness, by lightness where hues fall together, and from the ink; at
# least 3:1 against the page. The same place has the same hue in both.
LIGHT = ("#1a6aa7", "#c85005", "#229369", "#aa367c", "#0d4a46", "#6f5743", "#5632ab", "#ee5184")
DARK = ("#65aaec", "#ff9a4d", "#34d5a3", "#c98eb8", "#acf2a5", "#c37e4a", "#947cf5", "#e15188")

_COMMON: dict[str, Any] = {
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "axes.unicode_minus": True,
    "text.parse_math": False,  # a label may have $ in it, and no tick needs formulas
}


@dataclass(frozen=True)
class Style:
    """How figures are drawn.

    Attributes:
        settings: matplotlib's.
        column, wide, small: widths in inches of a figure, of one across two columns, of one of many panels.
        stretch: heights are written for the page; here they are times this.
        scale: of the areas of markers, against those of the page.
    """

    settings: Mapping[str, Any]
    column: float
    wide: float
    small: float
    stretch: float
    scale: float

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw inside."""
        with mpl.rc_context(dict(self.settings)):
            yield

    @property
    def size(self) -> float:
        """Of the widths of markers and lines, against those of the page."""
        return math.sqrt(self.scale)

    def figure(self, height: float, *, width: str = "column") -> Figure:
        """An empty figure; `height` in inches as on the page, `width` "column", "wide" or "small"."""
        return Figure(figsize=(getattr(self, width), height * self.stretch))


SCREEN = Style(
    settings=_COMMON
    | {
        # wider than what browsers will use: labels laid out for it do not collide
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10,
        "legend.fontsize": 9.5,
        "legend.handlelength": 2.2,
        "legend.columnspacing": 1.4,
        "lines.linewidth": 1.6,
        "svg.fonttype": "none",
    },
    column=5.0,  # one column of the page, and the whole of a phone's: text keeps its size
    wide=5.0,
    small=2.9,
    stretch=1.0,
    scale=1.0,
)

# One column of a two-column paper is 3.3 in wide, both are 6.9 in. The serifs are those of its Times text.
PRINT = Style(
    settings=_COMMON
    | {
        "font.family": ["STIXGeneral", "DejaVu Serif"],  # the second has what the first lacks, as ⁻⁴
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7.5,
        "legend.handlelength": 2.0,
        "legend.columnspacing": 1.0,
        "legend.handletextpad": 0.5,
        "lines.linewidth": 1.1,
        "axes.linewidth": 0.5,
        "axes.labelpad": 2,
        "grid.linewidth": 0.4,
        "xtick.major.width": 0.5,
        "ytick.major.width": 0.5,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.pad": 2,
        "ytick.major.pad": 2,
        "figure.constrained_layout.h_pad": 0.02,
        "figure.constrained_layout.w_pad": 0.02,
        "pdf.fonttype": 42,  # journals refuse the default, type 3
        "ps.fonttype": 42,
        "svg.fonttype": "path",
    },
    column=3.3,
    wide=6.9,
    small=2.2,
    stretch=0.68,
    scale=0.6,
)
