"""Figures of the time spent at each loss, against the invariant measures."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from drawing.residence import reside, reside_projected_by_tensor, residence
from drawing.style import (
    BLUE,
    COLOUR,
    DARK_ORANGE,
    GREY,
    ORANGE,
    PALE_ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH,
    label,
)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbi_lightning.optim import BBI, ECDq1, ECDSep, LogECD


def draw_residence(axes: Axes, losses: np.ndarray, gap: float, theory: np.ndarray, colour: str) -> None:
    """Draw the measured share of time in four of the theory's bins of V/E as an area, theory as a line."""
    edges = np.geomspace(gap, 1, len(theory) + 1)
    decades = math.log10(edges[1] / edges[0])
    shares, coarse = np.histogram(losses[2000:] + gap, edges[::4])
    axes.stairs(shares / shares.sum() / (4 * decades), coarse, fill=True, alpha=0.45, color=colour)
    axes.plot(np.sqrt(edges[1:] * edges[:-1]), theory / decades, color=colour)
    axes.set_xscale("log")


def ecdsep_residence() -> Figure:
    """How long ECDSep stays at which loss, against its measure."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 3.2))
    n, gap = 20, 0.01
    edges = np.geomspace(gap, 1, 201)
    for eta, colour, x, y in (
        (1.0, PALE_ORANGE, 0.16, 1.35),
        (1.5, ORANGE, 0.036, 2.4),
        (2.0, DARK_ORANGE, 0.0225, 4.0),
    ):
        build = partial(ECDSep, lr=0.02, eta=eta, nu=0.05, floor=-gap, extra_energy=0.5)
        losses = reside(build, n, 0.5 - gap, 150_000)
        draw_residence(axes, losses, gap, residence("ECDSep", edges, n, gap, eta), colour)
        axes.text(x, y, rf"$\eta={eta:g}$", color=DARK_ORANGE)
    axes.axvline(gap, color=GREY, ls=":")
    axes.text(gap * 1.04, 4.65, "minimum of $F$", color=GREY)
    axes.set(xlim=(0.0085, 1), ylim=(0, 5))
    label(axes, "", "$V\\,/\\,E$", "share of time per decade")
    return figure


def ecd_q1_measure() -> Figure:
    """The measure with the global projection and with one per tensor; and where it settles."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    n, eta, dt, nu, steps = 4, 3.0, 0.02, 0.05, 200_000
    r = np.linspace(0, 100, 1_000_001)
    density = r ** (n - 1) * (r**2 / 2 + 1) ** (-eta * n / 2)
    cumulated = np.cumsum(density) / density.sum()
    ours = reside(partial(ECDq1, lr=dt, eta=eta, nu=nu, floor=-1.0), n, 1.0, steps, tensors=2)
    split = reside_projected_by_tensor(n, eta, dt, nu, steps)
    shares = np.linspace(0, 1, 41)[1:-1]
    left.plot(r**2 / 2, cumulated, color="black", lw=1.2, label="theory")
    left.plot(np.quantile(ours, shares), shares, "o", ms=4.5, color=PURPLE, label="u·g over all tensors")
    left.plot(np.quantile(split, shares), shares, "x", ms=5, color=GREY, label="tensor by tensor")
    left.set(xlim=(0, 3), ylim=(0, 1))
    left.legend(loc="lower right")
    label(left, "Time spent below $F$", "loss $F$", "share of time")

    for gap, colour in ((1.0, SKY), (0.1, PURPLE), (0.01, "#5B2C4D")):
        losses = reside(partial(ECDq1, lr=0.02, eta=2.0, nu=0.02, floor=-gap), 100, 3.0, 1500)
        right.semilogy(np.arange(0, 1500, 2), losses[::2], color=colour, lw=1.4)
        right.axhline(gap, color=colour, ls=":", lw=1.4)
        right.text(1490, 1.6 * gap, rf"$\delta={gap:g}$", color=colour, ha="right")
    right.set(xlim=(0, 1500), ylim=(1e-3, 10))
    label(right, r"It settles at $\delta/(\eta-1)$, here $\eta=2$", "step", "loss $F$")
    return figure


def log_ecd_measure() -> Figure:
    """Where BBI and LogECD spend their time in few and in many dimensions."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    often = {"patience": None, "bounce_every": 170, "n_bounces": 10**9}
    for axes, n, gap in zip(panels, (4, 100), (0.003, 0.0003), strict=True):
        edges = np.geomspace(gap, 1, 129)
        for member in (BBI, LogECD):
            name = member.__name__
            build = partial(member, lr=0.02, floor=-gap, extra_energy=0.5, **often)
            losses = reside(build, n, 0.5 - gap, 250_000)
            draw_residence(axes, losses, gap, residence(name, edges, n, gap), COLOUR[name])
        axes.axvline(gap, color=GREY, ls=":")
        axes.set_xlim(gap * 0.8, 1)
        label(axes, f"{n} dimensions", "$V\\,/\\,E$", "share of time per decade")
    panels[1].text(5e-3, 1.1, "BBI", color=BLUE)
    panels[1].text(0.062, 1.9, "LogECD", color=VERMILION, ha="right")
    panels[1].text(3.3e-4, 2.2, "minimum\nof $F$", color=GREY, va="top")
    return figure
