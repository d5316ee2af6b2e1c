"""One look for all figures: colours, fonts, widths."""

from __future__ import annotations

from matplotlib.axes import Axes

WIDTH = 7.0

# Okabe and Ito's colours, one per optimizer in every figure.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, GREY = "#B0609A", "#56B4E9", "#5A5A5A"
PALE_ORANGE, DARK_ORANGE = "#F5C56B", "#8A5A00"
COLOUR = {"BBI": BLUE, "LogECD": VERMILION, "MassECD": GREEN, "ECDSep": ORANGE, "ECDq1": PURPLE}
STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "mathtext.fontset": "cm",
    "svg.hashsalt": "bbi_lightning",
    "figure.constrained_layout.use": True,
}


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Name a panel and its axes."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
