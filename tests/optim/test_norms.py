"""Sums over many elements: float32 sums that are right where a single one is not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from bbi_lightning.optim import BBI, dynamics

from .members import member_of


def exact_squared_norm(x: torch.Tensor) -> float:
    return sum(block.double().square().sum().item() for block in x.reshape(-1).split(1 << 22))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (300, 1000), (1 << 18,), ((1 << 18) + 1,)], ids=str)
def test_squared_norm_and_inner_product(dtype: torch.dtype, shape: tuple[int, ...]):
    x, y = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    size = exact_squared_norm(x)
    exact = (x.double() * y.double()).sum().item()
    for norm, product, tolerance in (
        (dynamics.squared_norm, dynamics.inner, 1e-5),
        (dynamics.squared_norm_on_device, dynamics.inner_on_device, 4e-5),  # meant for accelerators
    ):
        assert float(norm([x])) == pytest.approx(size, rel=tolerance)
        assert float(product([x], [y])) == pytest.approx(exact, abs=tolerance * (1 + size))


def test_memory_formats_in_sums():
    x = torch.randn(4, 5, 6, 7, dtype=torch.float64)
    y = x.to(memory_format=torch.channels_last)
    gaps = torch.stack([x, x], dim=-1)[..., 0]
    for other in (y, gaps, x.transpose(0, 1).contiguous().transpose(0, 1)):
        assert dynamics.squared_norm([other]) == pytest.approx(x.square().sum().item(), rel=1e-14)
        assert dynamics.inner([x], [other]) == pytest.approx(x.square().sum().item(), rel=1e-14)


def test_ten_million_elements_in_one_tensor_and_in_many():
    x = torch.randn(10_000_000)
    exact = exact_squared_norm(x)
    assert dynamics.squared_norm([x]) == pytest.approx(exact, rel=1e-6)
    assert dynamics.squared_norm(x.split(1000)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [[100_000_000], [60_000_000, 39_000_000, 999_999, 1]], ids=["one", "several"]
)
def test_momentum_squared_is_right_to_1e_5_at_a_hundred_million_elements(sizes: list[int]):
    params = [Parameter(torch.zeros(n)) for n in sizes]
    optimizer = member_of(BBI).build(params, extra_energy=1.0)
    for p in params:
        p.grad = torch.randn(p.shape)
    for loss in (1.0, 0.5):
        optimizer.step(loss=loss)
        stored = sum(exact_squared_norm(optimizer.state[p]["momentum"]) for p in params)
        measured = stored * optimizer._motion.state.scale**2
        assert optimizer.diagnostics()["momentum_sq"] == pytest.approx(measured, rel=1e-5)
