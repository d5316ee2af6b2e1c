"""Cost of one optimizer step, as a ratio to SGD with momentum on torch's fused kernel.

    python benchmarks/optimizer_step.py            # three real parameter lists, one thread
    python benchmarks/optimizer_step.py --rounds 7 --models resnet18

Forward and backward are left out: gradients are fixed random numbers. The published loop is BBI as in the
authors' research code, tensor by tensor, written out below from its description.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from timing import interleave, show
from torch import Tensor

from bbi_lightning.models.resnet import CIFARResNet18
from bbi_lightning.optim import BBI, ECDq1, ECDSep, LogECD, MassECD

LOSS = torch.tensor(1.0)


def parameters(model: str) -> list[Tensor]:
    """Return the parameter list of a real network, with random gradients in place."""
    import torchvision.models as tv

    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "resnet18": lambda: CIFARResNet18(image_shape=(3, 32, 32), num_classes=10),
        "resnet50": lambda: tv.resnet50(weights=None),
        "vit_b_16": lambda: tv.vit_b_16(weights=None),
    }
    generator = torch.Generator().manual_seed(0)
    found = list(builders[model]().parameters())
    for p in found:
        p.grad = torch.randn(p.shape, generator=generator) * 1e-3
    return found


class PublishedLoop:
    """BBI as published: every tensor rescaled, kicked and moved by its own operations."""

    def __init__(self, params: list[Tensor], lr: float, energy: float) -> None:
        self.params, self.lr, self.energy = params, lr, energy
        self.momenta = [-p.grad / p.grad.norm() for p in params if p.grad is not None]

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        v = loss.item()
        v_over_e, e_over_v = v / self.energy, self.energy / v
        norm_sq = torch.tensor(0.0)
        for m in self.momenta:
            norm_sq += torch.dot(m.view(-1), m.view(-1))
        rescale = math.sqrt(v * (e_over_v**2 - 1.0) / float(norm_sq))
        for p, m in zip(self.params, self.momenta, strict=True):
            assert p.grad is not None
            m.mul_(rescale)
            m.add_(-0.5 * self.lr * (v_over_e + e_over_v) * p.grad)
            p.add_(self.lr * v_over_e * m)


def alternatives(model: str, slow: bool, compile_too: bool) -> dict[str, Callable[[], object]]:
    """Return one step of each optimizer, each on parameters of its own."""
    lr = 1e-6

    def ecd(kind: type, **kwargs: object) -> Callable[[], object]:
        optimizer = kind(parameters(model), lr=lr, **kwargs)
        return lambda: optimizer.step(loss=LOSS)

    def plain(kind: type, **kwargs: object) -> Callable[[], object]:
        return kind(parameters(model), lr=lr, **kwargs).step

    published = PublishedLoop(parameters(model), lr, energy=2.0)
    rows = {
        "SGD momentum, fused": plain(torch.optim.SGD, momentum=0.9, fused=True),
        "SGD momentum, default": plain(torch.optim.SGD, momentum=0.9),
        "AdamW, fused": plain(torch.optim.AdamW, fused=True),
        "AdamW, default": plain(torch.optim.AdamW),
        "BBI": ecd(BBI, extra_energy=1.0),
        "MassECD": ecd(MassECD, extra_energy=1.0),
        "LogECD": ecd(LogECD, extra_energy=1.0),
        "ECDSep, nu=0": ecd(ECDSep, extra_energy=1.0, nu=0.0),
        "ECDq1, nu=0": ecd(ECDq1, nu=0.0),
        "BBI, published loop": lambda: published.step(LOSS),
    }
    if slow:
        rows["ECDSep, nu=1e-5"] = ecd(ECDSep, extra_energy=1.0, nu=1e-5)
        rows["normal draws alone"] = draws_alone(parameters(model))
    if compile_too:
        rows["BBI's arithmetic, torch.compile"] = compiled(parameters(model))
    return rows


def compiled(params: list[Tensor]) -> Callable[[], object]:
    """Return the same kick, drift and norm, as torch.compile makes them from plain operations."""

    def update(momenta: list[Tensor], kick: Tensor, drift: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for p, m in zip(params, momenta, strict=True):
            assert p.grad is not None
            m.add_(p.grad * kick)
            p.add_(m * drift)
            total = total + (m * m).sum().double()
        return total

    momenta = [torch.randn_like(p) for p in params]
    kick, drift = torch.tensor(-1e-6), torch.tensor(1e-6)
    step = torch.no_grad()(torch.compile(update))
    return lambda: step(momenta, kick, drift).item()


def draws_alone(params: list[Tensor]) -> Callable[[], object]:
    """Return what ν > 0 cannot avoid: one normal number per parameter."""
    buffers = [torch.empty_like(p) for p in params]
    return lambda: [b.normal_() for b in buffers]


def measure(model: str, rounds: int, slow: bool, compile_too: bool) -> dict[str, str]:
    """Time all optimizers on one model; the ratio of each, formatted."""
    torch.set_num_threads(1)
    timings = interleave(alternatives(model, slow, compile_too), rounds)
    baseline = timings["SGD momentum, fused"]
    return {name: show(timing.ratio_to(baseline)) for name, timing in timings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25, help="rounds of the interleaved run (default 25)")
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50", "vit_b_16"])
    parser.add_argument("--no-slow", action="store_true", help="leave out the chaos element")
    parser.add_argument("--compile", action="store_true", help="add a compiled step (a minute a model)")
    args = parser.parse_args()
    table: dict[str, list[str]] = {}
    for model in args.models:
        # a process each, as a training has: what a large temporary costs depends on the allocator's past
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            ratios = fresh.submit(measure, model, args.rounds, not args.no_slow, args.compile).result()
        for name, ratio in ratios.items():
            table.setdefault(name, []).append(ratio)
    print(f"| optimizer | {' | '.join(args.models)} |\n|---|{'---|' * len(args.models)}")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
