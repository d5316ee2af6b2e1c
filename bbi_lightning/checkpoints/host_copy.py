"""A training state copied to the host's memory, so that training can go on while it is written.

The buffers are used again for the next state. From a GPU the copies are queued in the stream of the training
itself, behind the step and before the next one: the caller does not wait for them, `wait` does.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_Place = tuple[Hashable, ...]


class HostCopy:
    """Buffers for one state. `take` fills them, and what it returns lives in them until the next `take`.

    Example:
        >>> state = {"weights": torch.ones(3), "step": 7}
        >>> copy = HostCopy().take(state)
        >>> _ = state["weights"].zero_()
        >>> copy
        {'weights': tensor([1., 1., 1.]), 'step': 7}
    """

    def __init__(self) -> None:
        self._buffers: dict[_Place, Tensor] = {}
        self._used: dict[_Place, Tensor] = {}
        self._same: dict[Hashable, Tensor] = {}
        self._alive: list[Tensor] = []
        self._devices: set[torch.device] = set()
        self._events: list[torch.cuda.Event] = []

    def take(self, state: Mapping[Any, Any]) -> dict[Any, Any]:
        """A copy of a nested state: its containers, plain values, and of tensors the elements they have.

        Two tensors that are the same view of the same memory stay one, as torch.save would have it.

        Raises:
            TypeError: something in it could not be loaded with `weights_only=True`; names it and the remedy.
        """
        self._used, self._same, self._devices = {}, {}, set()
        copied: dict[Any, Any] = {key: self._copied(value, (key,)) for key, value in state.items()}
        self._buffers, self._used, self._same, self._alive = self._used, {}, {}, []
        self._events = [_event_on(device) for device in self._devices]
        return copied

    def wait(self) -> None:
        """Return when the copies are complete. May be called in another thread."""
        for event in self._events:
            event.synchronize()

    def _copied(self, value: Any, place: _Place) -> Any:
        kind = type(value)
        if kind in (Tensor, Parameter):
            return self._copied_tensor(value.detach(), place)
        if kind in _PLAIN:
            return value
        if kind is OrderedDict:
            copied = OrderedDict((key, self._copied(item, (*place, key))) for key, item in value.items())
            if value.__dict__:  # a module's state_dict keeps the versions of its layout there
                copied.__dict__.update(self._copied(value.__dict__, (*place, "__dict__")))
            return copied
        if isinstance(value, Mapping):
            return {key: self._copied(item, (*place, key)) for key, item in value.items()}
        if kind in (list, tuple):
            return kind(self._copied(item, (*place, index)) for index, item in enumerate(value))
        if kind is set:
            return {self._copied(item, place) for item in value}
        raise TypeError(
            f"{'/'.join(map(str, place))} in the checkpoint is a {kind.__module__}.{kind.__qualname__}, "
            "which cannot be loaded without running code: keep tensors, numbers, text, lists, dicts"
        )

    def _copied_tensor(self, tensor: Tensor, place: _Place) -> Tensor:
        if tensor.layout is not torch.strided:
            return tensor.cpu().clone()
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and view in self._same:
            return self._same[view]
        buffer = self._buffer_for(tensor, place)
        buffer.copy_(tensor, non_blocking=True)
        if tensor.device.type == "cuda":
            self._devices.add(tensor.device)
        self._used[place] = self._same[view] = buffer
        self._alive.append(tensor)  # so that no other tensor can come to lie at its address meanwhile
        return buffer

    def _buffer_for(self, tensor: Tensor, place: _Place) -> Tensor:
        old = self._buffers.get(place)
        if old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype:
            fresh_strides = torch.empty_like(tensor, device="meta").stride()
            if old.stride() == fresh_strides:
                return old
        buffer = torch.empty_like(tensor, device="cpu")  # dense, in the tensor's own order of dimensions
        if tensor.device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # the system limits what may be pinned: then it is slower
                return buffer.pin_memory()
        return buffer


def _event_on(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event
