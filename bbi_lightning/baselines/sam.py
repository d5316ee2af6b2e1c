"""Sharpness-aware minimisation: `pytorch_optimizer.SAM` over SGD, with an ordinary closure.

    ε = ρ g / |g|,  g = ∇f(w)          one pass over the batch
    w ← SGD step with ∇f(w + ε)        a second pass over the same batch

A step costs two gradients: at equal epochs SAM gets twice the computation of the others.

Reference: P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, "Sharpness-Aware Minimization for Efficiently
Improving Generalization", ICLR 2021, arXiv:2010.01412, eq. (2) and algorithm 1. `adaptive`: J. Kwon, J. Kim,
H. Park, I. Choi, ICML 2021, arXiv:2102.11600. Over several ranks ε follows the mean gradient of all of them
(in the paper each device has its own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bbi_lightning.baselines.kinds import INSTALL, TwoPasses

try:
    import pytorch_optimizer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"pytorch-optimizer is missing: {INSTALL}", name=error.name) from None


class SAM(TwoPasses, pytorch_optimizer.SAM):
    """SGD with momentum on the gradient at the worst point nearby.

    Args:
        params: parameters, or groups of them.
        lr: of SGD, > 0.
        rho: ρ ≥ 0, how far away "nearby" is; 0 is SGD at twice its price.
        adaptive: measure distance relative to each weight's size (ASAM; ρ is then 10 to 40 times larger).
        momentum, nesterov, weight_decay: as in `torch.optim.SGD`.

    `step` needs a closure that clears the gradients, computes the loss, calls `backward` and returns the
    loss; it is called twice, and the first loss, that of the weights themselves, is returned. So gradients
    may not be accumulated over several closures, and a GradScaler, which knows no closures, cannot be used.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = SAM([w], lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = w.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> float(optimizer.step(closure))
        2.0
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr={lr} is not a learning rate: give a number above 0")
        if not rho >= 0:
            raise ValueError(f"rho={rho} is no distance: give 0 or more")
        sgd: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
        }
        super().__init__(params, torch.optim.SGD, rho=rho, adaptive=adaptive, **sgd)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do both passes and move the weights; returns the first pass's loss.

        Raises:
            ValueError: no closure.
        """
        if closure is None:
            raise ValueError("SAM evaluates the loss twice a step: call step(closure)")
        with torch.enable_grad():
            loss = closure()

        def once_more() -> Any:
            with self.second_pass():
                return closure()

        super().step(once_more)
        return loss
