"""Schedule-free AdamW and SGD: Meta's `schedulefree`, whose two sets of weights are exchanged exactly.

    y = (1 - β) z + β x        gradients are taken here: the parameters while training
    z ← z - γ ∇f(y)            the plain iterate (for AdamW: with its preconditioner)
    x ← (1 - c) x + c z        its weighted mean: the result

The library moves the parameters from y to x and back by arithmetic, which rounds; here y is kept meanwhile,
so validating or saving leaves no trace in a run. `state_dict` holds y beside z: with the parameters at x
saved (`eval()` first) everything is there, and `load_state_dict` puts y back.

Reference: A. Defazio, X. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky, "The Road Less Scheduled",
NeurIPS 2024, arXiv:2405.15682, eqs. (3)-(5).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bbi_lightning.baselines.kinds import INSTALL, TwoWeights

try:
    import schedulefree
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"schedulefree is missing: {INSTALL}", name=error.name) from None


class _ExactExchange(torch.optim.Optimizer):
    """Keeps y while the parameters hold x. A parameter without a gradient so far is at both."""

    def _begin(self) -> None:
        for group in self.param_groups:
            group["train_mode"] = True  # so that a plain loop may step at once

    @torch.no_grad()
    def eval(self) -> None:
        """See `TwoWeights`."""
        for group in self.param_groups:
            for parameter in group["params"] if group["train_mode"] else ():
                state = self.state.get(parameter, {})
                if "z" in state:
                    state["y"] = parameter.clone()
        super().eval()  # type: ignore[misc]  # the library's, the next in line

    @torch.no_grad()
    def train(self) -> None:
        """See `TwoWeights`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "y" in state:
                    parameter.copy_(state.pop("y"))
            group["train_mode"] = True

    def state_dict(self) -> dict[str, Any]:
        """The library's, and y in `state[i]["y"]`."""
        packed: dict[str, Any] = super().state_dict()
        for group, packed_group in zip(self.param_groups, packed["param_groups"], strict=True):
            for parameter, index in zip(group["params"], packed_group["params"], strict=True):
                state = packed["state"].get(index, {})
                if "z" in state:
                    packed["state"][index] = {"y": parameter.detach(), **state}
        return packed

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where it was saved; where that was in training, the parameters become y."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for parameter in group["params"] if group["train_mode"] else ():
                state = self.state.get(parameter, {})
                if "y" in state:
                    parameter.copy_(state.pop("y"))


class ScheduleFreeAdamW(_ExactExchange, schedulefree.AdamWScheduleFree, TwoWeights):
    """AdamW whose result is a running mean of its weights, in place of a decaying learning rate.

    Args:
        params: parameters, or groups of them.
        lr: γ > 0; larger than AdamW's with a schedule, by 1 to 10 times.
        betas: β of the mean, in (0, 1), and Adam's β₂.
        eps: added to the root of the second moment.
        weight_decay: decoupled, ≥ 0, at y.
        warmup_steps: steps of a linearly rising rate.

    Use with a constant schedule. Batch normalisation's statistics belong to y: recompute them at x before
    judging it (`BaselinePasses` does).

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = ScheduleFreeAdamW([w], lr=0.1)
        >>> w.square().sum().backward()
        >>> optimizer.step()
        >>> optimizer.eval()  # now w is the result
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        _check(lr, betas[0], weight_decay, "betas")
        super().__init__(  # type: ignore[call-arg]  # the library's, the next in line
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, warmup_steps=warmup_steps
        )
        self._begin()


class ScheduleFreeSGD(_ExactExchange, schedulefree.SGDScheduleFree, TwoWeights):
    """SGD whose result is a running mean of its weights, in place of a decaying learning rate.

    Args:
        params: parameters, or groups of them.
        lr: γ > 0; larger than SGD's with a schedule, by 10 to 50 times.
        momentum: β of the mean, in (0, 1); it stands for momentum.
        weight_decay: L2 term at y, ≥ 0.
        warmup_steps: steps of a linearly rising rate.

    Use with a constant schedule; for batch normalisation see `ScheduleFreeAdamW`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        _check(lr, momentum, weight_decay, "momentum")
        super().__init__(  # type: ignore[call-arg]  # the library's, the next in line
            params, lr=lr, momentum=momentum, weight_decay=weight_decay, warmup_steps=warmup_steps
        )
        self._begin()


def _check(lr: float, beta: float, weight_decay: float, name: str) -> None:
    if not lr > 0:
        raise ValueError(f"lr={lr} is not a learning rate: give a number above 0")
    if not 0 < beta < 1:
        raise ValueError(f"{name}={beta} is no weight of a mean: give a number between 0 and 1")
    if weight_decay < 0:
        raise ValueError(f"weight_decay={weight_decay} is negative: give 0 or more")
