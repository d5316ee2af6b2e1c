"""Checks of the arguments that several models share; each failure is one sentence."""

from __future__ import annotations

from collections.abc import Sequence


def check_task(image_shape: Sequence[int], num_classes: int) -> None:
    """Check what every model is told about its data.

    Raises:
        ValueError: `image_shape` is not three positive integers, or there are fewer than two classes.
    """
    if len(image_shape) != 3 or any(type(size) is not int or size < 1 for size in image_shape):
        raise ValueError(
            f"image_shape={tuple(image_shape)} is not three positive integers: pass (channels, height, width)"
        )
    if type(num_classes) is not int or num_classes < 2:
        raise ValueError(f"num_classes={num_classes!r} is not an integer of at least 2: pass one")


def check_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return `sizes` as a tuple of at least one positive integer.

    Raises:
        ValueError: it is empty, or an entry is not a positive integer.
    """
    if len(sizes) == 0 or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"{name}={list(sizes)} is not a list of positive integers: pass at least one")
    return tuple(sizes)


def check_dropout(dropout: float) -> None:
    """Check a dropout probability.

    Raises:
        ValueError: it is outside [0, 1).
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r} is not a probability in [0, 1): pass one")


def check_smallest_side(image_shape: Sequence[int], smallest: int, model: str) -> None:
    """Check that images survive all reductions of a model.

    Raises:
        ValueError: height or width is below `smallest` pixels.
    """
    if min(image_shape[1:]) < smallest:
        raise ValueError(
            f"image_shape={tuple(image_shape)} is too small for {model}: "
            f"it halves the image until less than a pixel is left, so use at least {smallest}x{smallest}"
        )
