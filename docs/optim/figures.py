"""Draws every figure of these pages from runs of the real optimizers: python docs/optim/figures.py [name …].

Takes about two minutes. The pictures are the same, bit for bit, every time on one machine and version of
matplotlib. Each is named as its function.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from drawing import measures, paths
from drawing.style import STYLE
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "figures"
FIGURES: dict[str, Callable[[], Figure]] = {
    drawn.__name__: drawn
    for drawn in (
        paths.family,
        paths.step_size,
        paths.bi_energy,
        paths.bbi_bounces,
        paths.mass_ecd_path,
        measures.ecdsep_residence,
        measures.ecd_q1_measure,
        measures.log_ecd_measure,
    )
}


def main() -> None:
    """Draw the named figures, or all."""
    torch.set_num_threads(1)
    mpl.use("Agg")
    warnings.filterwarnings("ignore", message="F - floor")  # steps chosen too large, on purpose
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        with mpl.rc_context(STYLE):
            figure = FIGURES[name]()
            figure.savefig(FOLDER / f"{name}.svg", dpi=80, metadata={"Date": None, "Creator": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
