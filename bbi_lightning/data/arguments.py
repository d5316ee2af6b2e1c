"""Checks of the arguments that several data modules share; each failure is one sentence."""

from __future__ import annotations

from collections.abc import Sequence


def positive_int(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an integer of at least `minimum`.

    Raises:
        ValueError: it is not an integer, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name}={value!r} is not an integer of at least {minimum}: pass one")
    return value


def image_dimensions(value: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width) from any sequence of three positive integers.

    Raises:
        ValueError: another length, or an entry that is not a positive integer.
    """
    entries = list(value)
    if len(entries) != 3 or not all(type(entry) is int and entry > 0 for entry in entries):
        raise ValueError(
            f"data.image_shape={entries!r} is not three positive integers: pass [channels, height, width]"
        )
    return entries[0], entries[1], entries[2]


def held_out_count(val_size: int | float, total: int) -> int:
    """Return the number of validation samples: `val_size` itself, or that fraction of `total`.

    Args:
        val_size: a count (integer, 0 for no validation) or a fraction in (0, 1).
        total: number of samples the validation set is carved from.

    Raises:
        ValueError: negative, a fraction outside (0, 1), or nothing left to train on.
    """
    fraction = isinstance(val_size, float)
    if isinstance(val_size, bool) or not (0 < val_size < 1 if fraction else val_size >= 0):
        raise ValueError(f"data.val_size={val_size!r} is neither a count >= 0 nor a fraction between 0 and 1")
    count = round(val_size * total) if fraction else int(val_size)
    if count >= total:
        raise ValueError(
            f"data.val_size={val_size!r} leaves none of the {total} training samples: pass a smaller one"
        )
    return count
