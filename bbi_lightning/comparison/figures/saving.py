"""The pictures as files for a paper: vectors with their fonts inside, in a journal's column widths."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bbi_lightning.comparison.figures.picture import Picture
from bbi_lightning.comparison.figures.pictures import all_pictures
from bbi_lightning.comparison.figures.style import PRINT
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.suite import Suite

_DPI = 400  # of bitmaps

_CANVAS: dict[str, Callable[[Figure], object]] = {
    "pdf": FigureCanvasPdf,
    "png": FigureCanvasAgg,
    "svg": FigureCanvasSVG,
}
_METADATA: dict[str, dict[str, str | None]] = {  # no dates: the same runs give the same files
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def save_figures(
    comparison: Comparison | Suite,
    folder: str | Path,
    formats: Sequence[str] = ("pdf", "png"),
    *,
    told: Callable[[Iterable[Picture]], Iterable[Picture]] = iter,
) -> tuple[Path, ...]:
    """Write every picture, one file each and format, and `figures.txt` with their captions.

    Args:
        comparison: what to draw.
        folder: where to; it is made.
        formats: of "pdf" (TrueType fonts embedded), "png" (400 dots an inch) and "svg" (letters as outlines).
        told: is given the pictures on their way, for a progress bar.

    Returns:
        The files, `figures.txt` last.

    Raises:
        ValueError: an unknown format.
    """
    for name in formats:
        if name not in _CANVAS:
            raise ValueError(f"format {name!r} cannot be written: use {', '.join(_CANVAS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files, captions = [], []
    for picture in told(all_pictures(comparison)):
        with mpl.rc_context({**PRINT.settings, "svg.hashsalt": picture.key}):
            figure = picture.draw(PRINT)
            FigureCanvasAgg(figure)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not for every format
            for name in formats:
                file = folder / f"{picture.key}.{name}"
                _CANVAS[name](figure)
                figure.savefig(file, format=name, dpi=_DPI, metadata=_METADATA[name])
                files.append(file)
            width, height = figure.get_size_inches()
        captions.append(_caption(picture, width, height))
    (folder / "figures.txt").write_text("\n".join(captions), encoding="utf-8")
    return (*files, folder / "figures.txt")


def _caption(picture: Picture, width: float, height: float) -> str:
    title = picture.title + (f" ({picture.task})" if picture.task else "")
    text = textwrap.fill(f"{title}. {picture.caption or picture.reading}".strip(), width=100)
    what = textwrap.fill(picture.description, width=100)
    return f"{picture.key}  {width:.2g} x {height:.2g} in\n{text}\n[{what}]\n"
