"""Matplotlib figures as markup for a page: inline SVG that takes the page's colours, light or dark.

A figure is drawn in the light palette; in the markup its colours become CSS variables (`--ink`, `--paper`,
`--arm-0` …) which the page sets for each colour scheme. A figure too big for SVG becomes a PNG on white.
"""

from __future__ import annotations

import base64
import html
import io
import re

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bbi_lightning.comparison.figures.style import DARK, INK, LIGHT, PAPER, SCREEN

__all__ = ["DARK", "INK", "LIGHT", "PAPER", "to_markup"]

_MAX_SVG = 600_000  # characters
_COORDINATE = re.compile(r"-?\d+\.\d+")  # matplotlib writes six digits of a 72nd of an inch
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"


def to_markup(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` (or `<img>`) element.

    Args:
        figure: drawn under `SCREEN.active()`.
        name: unique on the page; keeps the ids of two figures apart and the output the same at every call.
        description: what it shows, for those who do not see it.
    """
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with mpl.rc_context({**SCREEN.settings, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    markup = _for_page(buffer.getvalue(), description)
    return markup if len(markup) <= _MAX_SVG else _as_png(figure, description)


def _for_page(svg: str, description: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # matplotlib numbers its groups anew in every figure
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda d: _COORDINATE.sub(_rounded, d[0]), svg)
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


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _variables() -> dict[str, str]:
    return {INK: "--ink", PAPER: "--paper"} | {colour: f"--arm-{i}" for i, colour in enumerate(LIGHT)}


def _as_png(figure: Figure, description: str) -> str:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with mpl.rc_context(dict(SCREEN.settings)):
        figure.savefig(buffer, format="png", dpi=170, facecolor="white", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="on-white" alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
