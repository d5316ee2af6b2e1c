"""Figures of single trajectories and of single steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from drawing.style import BLUE, COLOUR, DARK_ORANGE, GREEN, GREY, ORANGE, SKY, VERMILION, WIDTH, label
from drawing.trajectories import NEVER, follow, lorentz_sq
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from bbi_lightning.optim import BBI, BI, ECD, ECDSep, LogECD, MassECD


def family() -> Figure:
    """Shallow valley V = ½m²θ² from rest, and the speed on the energy shell."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    m, start = 0.2, 2.0
    energy = 0.5 * (m * start) ** 2
    t = np.linspace(0, 40, 401)
    w = 1 + np.geomspace(1e-9, 5e4, 20_000)
    slowness = (1 - 0.5 / w) / ((w - 0.5 * np.log(w)) * np.sqrt(1 - 1 / w)) / (math.sqrt(2) * m)
    log_t = np.concatenate([[0], np.cumsum(np.diff(w) * 0.5 * (slowness[1:] + slowness[:-1]))])
    theory = {
        "BBI": 1 / np.cosh(math.sqrt(2) * m * t),
        "LogECD": np.exp(np.interp(t, log_t, -np.log(w - 0.5 * np.log(w)))),
        "MassECD": np.cosh(math.sqrt(2 * energy) * m * t) ** -2.0,
        "ECDSep": np.cosh(2 * t / start) ** -2.0,
    }
    runs = {
        "BBI": (lambda p: BI(p, lr=0.02), 0.02, 2000),
        "LogECD": (lambda p: LogECD(p, lr=0.02, **NEVER), 0.02, 2000),
        "MassECD": (lambda p: MassECD(p, lr=0.02, **NEVER), 0.02, 2000),
        "ECDSep": (lambda p: ECDSep(p, lr=0.004, nu=0.0), 0.004, 2000),
    }
    for name, (build, dt, steps) in runs.items():
        run = follow(build, lambda p: 0.5 * m**2 * p.square().sum(), [start], steps)
        dots = np.linspace(0, steps, 6 if name == "ECDSep" else 13).astype(int)
        left.plot(t, theory[name], color=COLOUR[name])
        left.plot(dots * dt, run.losses[dots] / energy, "o", ms=4, color=COLOUR[name])
    left.plot(t, np.exp(-2 * m**2 * t), "--", color=GREY)
    left.set_yscale("log")
    left.set(xlim=(0, 55), ylim=(1e-6, 2), xticks=(0, 10, 20, 30, 40))
    for name, y in (("BBI", 1.3e-5), ("LogECD", 3.2e-5), ("MassECD", 5e-3)):
        left.text(41, y, name, color=COLOUR[name])
    left.text(9, 3e-6, "ECDSep", color=DARK_ORANGE)
    left.text(41, 0.025, "gradient\nflow", color=GREY)
    label(left, "Shallow valley $V=m^2\\theta^2/2$", r"time $t$ = steps × $\Delta t$", "$V(t)\\,/\\,V(0)$")

    x = np.geomspace(1e-4, 1, 2001)
    right.loglog(x, np.sqrt(x * (1 - x**2)), color=COLOUR["BBI"])
    right.loglog(x, np.sqrt(x * (1 - 1 / lorentz_sq(1 / x))), "--", color=COLOUR["LogECD"])
    right.loglog(x, 2 * np.sqrt(x * (1 - x)), color=COLOUR["MassECD"])
    right.loglog(x, 2 * np.sqrt(x * (1 - x)), ":", color=COLOUR["ECDSep"], lw=2.6)
    right.loglog(x, 2 * np.sqrt(x**2 * (1 - x**2)), color=COLOUR["ECDSep"])
    right.axhline(1, color=COLOUR["ECDq1"])
    right.set(xlim=(1e-4, 1.15), ylim=(1e-4, 4))
    right.text(1.5e-4, 1.35, "ECDq1", color=COLOUR["ECDq1"])
    right.text(1.3e-4, 0.15, "MassECD,\nECDSep $\\eta=1$", color=COLOUR["MassECD"])
    right.text(1.3e-4, 2.4e-3, "BBI,\nLogECD", color=COLOUR["BBI"])
    right.text(4e-3, 2e-3, "ECDSep $\\eta=2$", color=DARK_ORANGE)
    label(right, "Speed on the energy shell", "$V\\,/\\,E$", r"speed $|\dot{\theta}|$")
    return figure


def step_size() -> Figure:
    """The factor by which one step shrinks the distance to a minimum, late, in one dimension."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 3.3))
    a = np.linspace(0, 1.6, 400)
    axes.axhspan(-0.4, 0, color="#EDEDED")
    builders: dict[str, Callable[[list[Tensor], float], ECD]] = {
        "BBI": lambda p, a: BI(p, lr=math.sqrt(2) * a),
        "MassECD": lambda p, a: MassECD(p, lr=a, **NEVER),
        "LogECD": lambda p, a: LogECD(p, lr=math.sqrt(2) * a, **NEVER),
        "ECDSep": lambda p, a: ECDSep(p, lr=a, nu=0.0),
    }
    measured = {
        "BBI": np.arange(0.06, 0.6, 0.12),
        "MassECD": np.arange(0.12, 0.6, 0.12),
        "LogECD": np.arange(0.06, 1.4, 0.12),
        "ECDSep": np.arange(0.06, 1.6, 0.12),
    }
    axes.plot(a, 1 - a - a**2, color=BLUE)
    axes.plot(a, 1 - a, color=VERMILION)
    axes.plot(a, 1 / (1 + 2 * a), color=ORANGE)
    for name, values in measured.items():
        runs = [
            follow(partial(builders[name], a=v), lambda p: 0.5 * p.square().sum(), [1.0], 25) for v in values
        ]
        ratios = [run.positions[-1, 0] / run.positions[-2, 0] for run in runs]
        axes.plot(values, ratios, "s" if name == "MassECD" else "o", ms=5, color=COLOUR[name])
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlim=(0, 1.6), ylim=(-0.4, 1))
    axes.text(1.13, 0.34, "ECDSep", color=DARK_ORANGE)
    axes.text(0.87, 0.17, "LogECD", color=VERMILION)
    axes.text(0.05, 0.42, "BBI and\nMassECD", color=BLUE)
    axes.text(0.03, -0.26, "beyond the minimum", color=GREY)
    axes.text(0.63, 0.03, "0.618", color=BLUE)
    label(axes, "", "step $a$ in units of the late decay time", r"$\theta_{k+1}\,/\,\theta_k$")
    return figure


def bi_energy() -> Figure:
    """One well after the other: where gradient descent stops, and what energy does meanwhile."""
    lowest = np.roots([1, 0, -1, -0.12]).max()

    def height(x: Any) -> Any:
        return 0.25 * (x**2 - 1) ** 2 - 0.12 * x - 0.25 * (lowest**2 - 1) ** 2 + 0.12 * lowest

    start, dt = [-1.72], 0.01
    run = follow(lambda p: BI(p, lr=dt), lambda p: height(p).sum(), start, 1200)
    stopped = follow(lambda p: torch.optim.SGD(p, lr=0.05), lambda p: height(p).sum(), start, 400)
    energy, t = run.losses[0], np.arange(len(run.losses)) * dt
    speed = np.abs(np.diff(run.positions[:, 0])) / dt

    figure = plt.figure(figsize=(WIDTH, 3.6))
    panels = figure.subplot_mosaic([["well", "energy"], ["well", "speed"]], height_ratios=[1.2, 1])
    well, exchange, below = panels["well"], panels["energy"], panels["speed"]
    grid = np.linspace(-1.8, 1.75, 200)
    well.plot(grid, height(grid), color="black", lw=1.2)
    well.axhline(energy, color=GREY, ls=":", lw=1.2)
    well.plot(run.positions[::40, 0], run.losses[::40], "o", ms=5.5, color=BLUE, label="BI at equal times")
    well.plot(
        *stopped.positions[-1],
        stopped.losses[-1],
        "X",
        ms=11,
        color=VERMILION,
        label="gradient descent stops",
    )
    well.text(1.7, energy + 0.02, "$E$", ha="right", va="bottom")
    well.legend(loc="upper center", bbox_to_anchor=(0.53, 0.72))
    well.set_ylim(-0.04, 1.25 * energy)
    label(well, "Two wells", r"parameter $\theta$", "potential $V$ (unit of the loss)")

    shown = slice(None, None, 10)
    exchange.fill_between(t[shown], 0, run.losses[shown], color=SKY, lw=0)
    exchange.fill_between(t[shown], run.losses[shown], energy, color="#F3D9A6", lw=0)
    exchange.text(7.2, 0.55 * energy, "kinetic, $E-V$", ha="center")
    exchange.text(0.5, 0.06 * energy, "potential $V$")
    label(exchange, "Energy is exchanged, never lost", "", "energy")
    below.plot(t[shown], np.sqrt(run.losses[shown]), color=GREY, ls="--")
    below.plot(t[:-1][shown] + dt / 2, speed[shown], color=BLUE)
    below.text(1.1, 0.93, r"limit $\sqrt{V}$", color=GREY)
    below.text(5.1, 0.42, "BI", color=BLUE)
    label(below, "", "time $t$", r"speed $|\dot{\theta}|$")
    below.sharex(exchange)
    exchange.tick_params(labelbottom=False)
    exchange.set(xlim=(0, 12), ylim=(0, 1.05 * energy))
    below.set(ylim=(0, 1.2))
    return figure


def bbi_bounces() -> Figure:
    """A path over many local minima, its bounces, and the loss along it."""

    def eggs(p: Tensor) -> Tensor:
        return (p.square() + 2 * (1 - torch.cos(2 * math.pi * p))).sum()

    start, steps = [2.7, -1.6], 1500
    rules = {"patience": 100, "bounce_every": 40, "n_bounces": 20}
    runs = [follow(partial(BBI, lr=0.05, seed=s, **rules), eggs, start, steps) for s in range(6)]
    stuck = follow(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), eggs, start, steps)
    shown = runs[2]
    end = int(np.argmax(shown.losses < 1e-3))

    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.5))
    x, y = np.meshgrid(np.linspace(-3.7, 3.7, 150), np.linspace(-3.7, 3.7, 150))
    f = x**2 + y**2 + 2 * (2 - np.cos(2 * np.pi * x) - np.cos(2 * np.pi * y))
    left.pcolormesh(x, y, f, cmap="Greys", vmin=-3, vmax=32, rasterized=True, shading="gouraud")
    left.plot(*shown.positions[: end + 1].T.round(5), color=BLUE, lw=1.4)
    hits = shown.bounces[shown.bounces <= end]
    left.plot(*shown.positions[hits].T.round(5), "o", ms=6, mfc="white", mec=BLUE, mew=1.4, label="bounce")
    left.plot(*stuck.positions[-1], "X", ms=11, color=VERMILION, mec="white", label="SGD ends")
    left.plot(*start, "s", ms=7, color="black", label="start")
    left.plot(*shown.positions[end].round(5), "*", ms=16, color=ORANGE, mec="black", label="BBI ends")
    left.set_aspect("equal")
    left.legend(
        loc="upper center", ncols=2, facecolor="white", framealpha=0.9, frameon=True, columnspacing=1.0
    )
    label(left, "", r"$\theta_1$", r"$\theta_2$")
    index = np.arange(0, steps + 1, 8)
    logs = [np.log10(np.maximum(run.losses[index], 1e-6)).round(3) for run in (*runs, shown)]
    for log in logs[:-1]:
        right.semilogy(index, 10**log, color=SKY, lw=0.9, label="_")
    right.semilogy(index, 10 ** logs[-1], color=BLUE, label="BBI, path shown")
    right.plot([], [], color=SKY, lw=0.9, label="BBI, five other seeds")
    right.semilogy(index[::4], stuck.losses[index[::4]].round(3), color=VERMILION, lw=2.2, label="SGD")
    right.set(ylim=(1e-4, 2e4), xlim=(0, steps), yticks=10.0 ** np.arange(-4, 3))
    right.legend(loc="upper left", labelspacing=0.25, borderaxespad=0)
    label(right, "", "step", "loss $F$")
    return figure


def mass_ecd_path() -> Figure:
    """MassECD and ECDSep on one path; and which step sizes they stand."""

    def valley(p: Tensor) -> Tensor:
        x, y = p
        return 0.5 * x**2 + 2 * (y - 0.3 * torch.sin(3 * x)) ** 2

    start, dt = [2.0, -1.2], 0.004
    energy = valley(torch.tensor(start)).item() + 0.5
    mass = follow(partial(MassECD, lr=dt / energy, floor=-0.5, **NEVER), valley, start, 2600)
    separable = follow(partial(ECDSep, lr=dt, nu=0.0, floor=-0.5), valley, start, 2600)
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    x, y = np.meshgrid(np.linspace(-3.2, 3.2, 200), np.linspace(-2.2, 2.2, 200))
    f = 0.5 * x**2 + 2 * (y - 0.3 * np.sin(3 * x)) ** 2
    left.contour(x, y, f, levels=[0.1, 0.4, 1, 2, 4, 7], colors="#C4C4C4", linewidths=0.8)
    left.plot(*mass.positions[::5].T, color=GREEN, lw=2.2, label="MassECD")
    left.plot(*separable.positions[::70].T, "o", ms=5, mec="white", color=ORANGE, label="ECDSep")
    left.plot(*start, "s", ms=7, color="black", label="start")
    left.legend(loc="upper left")
    label(left, "Small steps: one path", r"$\theta_1$", r"$\theta_2$")

    sizes = np.geomspace(0.05, 4, 25)
    energy -= 0.5
    for member, colour, marker in ((MassECD, GREEN, "s"), (ECDSep, ORANGE, "o")):
        unit, rules = (energy, NEVER) if member is MassECD else (1.0, {"nu": 0.0})
        ends = [follow(partial(member, lr=h / unit, **rules), valley, start, 40).losses[-1] for h in sizes]
        right.loglog(sizes, np.clip(np.array(ends) / energy, 1e-30, 1e4), marker + "-", ms=4, color=colour)
    right.set(ylim=(1e-12, 1e3))
    right.text(0.62, 3, "MassECD", color=GREEN, ha="right")
    right.text(0.66, 3e-9, "ECDSep", color=DARK_ORANGE)
    label(
        right,
        "Large steps: ECDSep stays stable",
        r"$\Delta t\cdot E$ (MassECD), $\Delta t$ (ECDSep)",
        "$V\\,/\\,E$ after 40 steps",
    )
    return figure
