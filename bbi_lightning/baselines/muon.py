"""Muon for the hidden matrices and AdamW for the rest, as one optimizer: both are torch's own.

Muon's step is momentum SGD whose update is replaced by the nearest orthogonal matrix, found by five
Newton-Schulz iterations in bfloat16. It is meant for hidden layers: biases, gains, the output layer and
embeddings go to AdamW. A convolution's weight (out, in, height, width) is taken as the matrix
(out, in·height·width).

Reference: K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein, "Muon: An optimizer for
hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon/. `adjust_lr`:
"original" is Jordan's max(1, rows/columns)^½, "match_rms_adamw" is 0.2 max(rows, columns)^½ of J. Liu et al.,
arXiv:2502.16982, eq. (4).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


class Muon(Optimizer):
    """Muon with AdamW for what is no hidden matrix.

    Of plain parameters, in the order in which the model registers them, Muon gets those with two or more
    dimensions and more than one row, except the last of them, the output layer. Groups say it themselves,
    ``{"params": […], "muon": True}``: use them for embeddings.

    Args:
        params: parameters, or groups with a key "muon".
        lr: of Muon, > 0.
        momentum: of Muon, in [0, 1).
        nesterov: of Muon.
        weight_decay: of Muon, decoupled, ≥ 0.
        adjust_lr: how the rate depends on a matrix's shape, see the module.
        rest_lr: of AdamW, > 0.
        rest_betas, rest_weight_decay: of AdamW.

    A scheduler changes both rates by the same factor.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [(group["muon"], len(group["params"])) for group in Muon(net.parameters(), lr=0.02).param_groups]
        [(True, 1), (False, 3)]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        adjust_lr: Literal["original", "match_rms_adamw"] = "original",
        rest_lr: float = 1e-3,
        rest_betas: tuple[float, float] = (0.9, 0.95),
        rest_weight_decay: float = 0.0,
    ) -> None:
        for name, rate in (("lr", lr), ("rest_lr", rest_lr)):
            if not rate > 0:
                raise ValueError(f"{name}={rate} is not a learning rate: give a number above 0")
        matrices: dict[str, Any] = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "adjust_lr_fn": adjust_lr,
        }  # fmt: skip
        self._matrices = torch.optim.Muon([nn.Parameter(torch.zeros(1, 1))], **matrices)
        self._rest = AdamW(
            [nn.Parameter(torch.zeros(()))],
            lr=rest_lr,
            betas=rest_betas,
            weight_decay=rest_weight_decay,
        )
        groups = [{**(matrices if g["muon"] else self._rest.defaults), **g} for g in _groups(list(params))]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                self._step_matrices(group)
        others = [group for group in self.param_groups if not group["muon"]]
        if others:
            self._rest.param_groups, self._rest.state = others, self.state
            self._rest.step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """torch's Muon wants matrices: it gets views of weights, gradients and momenta."""
        inner = self._matrices
        views, inner.state = [], type(self.state)(dict)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            view = nn.Parameter(_matrix(parameter))
            view.grad = parameter.grad.reshape(view.shape)
            inner.state[view]["momentum_buffer"] = _matrix(state["momentum_buffer"])
            views.append(view)
        settings = {name: group[name] for name in inner.defaults if name in group}
        inner.param_groups = [{**inner.defaults, **settings, "params": views}]
        inner.step()


def _groups(params: list[Any]) -> list[dict[str, Any]]:
    """The groups to begin with, those that are empty left out."""
    if params and isinstance(params[0], dict):
        for group in params:
            if not isinstance(group.get("muon"), bool):
                raise ValueError("params: a group does not say who moves it: add 'muon': True or False")
            if group["muon"]:
                for parameter in group["params"]:
                    if parameter.ndim < 2:
                        raise ValueError(
                            f"params: Muon is for matrices, and one has shape {tuple(parameter.shape)}: "
                            "put it into a group with 'muon': False"
                        )
        return params
    hidden = [p for p in [p for p in params if p.ndim >= 2][:-1] if p.shape[0] > 1]
    if not hidden and len(params) > 1:
        warnings.warn("Muon finds no hidden matrix here: AdamW trains all parameters", stacklevel=4)
    chosen = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in params if id(parameter) not in chosen]
    return [g for g in ({"params": hidden, "muon": True}, {"params": rest, "muon": False}) if g["params"]]


def _matrix(tensor: Tensor) -> Tensor:
    """The same memory, as rows of one output each."""
    try:
        return tensor.detach().view(tensor.shape[0], -1)
    except RuntimeError:
        raise ValueError(
            f"a weight of shape {tuple(tensor.shape)} is not contiguous: Muon wants it row by row in memory, "
            "call .contiguous() (channels_last will not do)"
        ) from None
