"""What a training loop must know of an optimizer that is not like the others. Imports nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

INSTALL = "pip install 'bbi-lightning[baselines]'"


class TwoWeights(ABC):
    """An optimizer that takes gradients at one set of weights and is judged by another.

    A loop calls `eval` before it validates, tests or keeps the weights, and `train` before the next step.
    Going there and back changes no bit.
    """

    @abstractmethod
    def eval(self) -> None:
        """Put the weights that are the result into the parameters; harmless when they are there."""

    @abstractmethod
    def train(self) -> None:
        """Put the weights at which gradients are taken into the parameters; harmless when they are there."""


class TwoPasses:
    """An optimizer whose step evaluates its closure twice, the second time not at the weights themselves.

    Attributes:
        second_pass: makes the surroundings of the second evaluation, whose loss is not to be logged and whose
            batch must not count twice in running statistics.
    """

    second_pass: Callable[[], AbstractContextManager[Any]] = staticmethod(nullcontext)
