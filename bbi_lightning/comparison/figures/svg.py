"""Matplotlib figures as markup for a page: inline SVG that takes the page's colours, light or dark.

A figure is drawn in the light palette; in the markup its colours become CSS variables (`--ink`, `--paper`,
`--arm-0` …) which the page sets for each colour scheme. A figure too big for SVG becomes a PNG on white.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, PAPER = "#1b1c1f", "#fdfdfe"

# After Okabe & Ito and Tol: told apart with every common colour blindness, at least 3:1 against the page.
LIGHT = ("#0072b2", "#c8500a", "#008a64", "#aa3377", "#8a6d00", "#5b5f66", "#4a3aa7", "#a3153a")
DARK = ("#56b4e9", "#ff9a4d", "#34c99a", "#ee8fc4", "#e3cf4a", "#b4b9c1", "#a99cf5", "#ff8095")

_MAX_SVG = 600_000  # characters
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
_STYLE = {
    "font.family": "DejaVu Sans",  # wider than what browsers will use: labels laid out for it do not collide
    "font.size": 9.5,
    "axes.titlesize": 10,
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
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "axes.unicode_minus": True,
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Matplotlib's settings for all figures of a page; draw inside."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. A column of the page is 5 wide, so text keeps its size on a phone."""
    return Figure(figsize=(width, height))


def to_markup(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` (or `<img>`) element.

    Args:
        figure: drawn under `drawing_style`.
        name: unique on the page; keeps the ids of two figures apart and the output the same at every call.
        description: what it shows, for those who do not see it.
    """
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    markup = _for_page(buffer.getvalue(), description)
    return markup if len(markup) <= _MAX_SVG else _as_png(figure, description)


def _for_page(svg: str, description: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # matplotlib numbers its groups anew in every figure
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{html.escape(description)}"'
    )
    svg = re.sub(r"<svg[^>]*>", lambda _: f"{opening} {view[0]}>", svg, count=1)
    svg = re.sub(r"font: ([^\"']*)'DejaVu Sans'", rf"font: \1{_FONT}", svg)
    for colour, variable in _variables().items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def _variables() -> dict[str, str]:
    return {INK: "--ink", PAPER: "--paper"} | {colour: f"--arm-{i}" for i, colour in enumerate(LIGHT)}


def _as_png(figure: Figure, description: str) -> str:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=170, facecolor="white", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="on-white" alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
