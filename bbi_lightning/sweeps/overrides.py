"""A trial as the command line that would run it by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bbi_lightning.sweeps.section import shown
from bbi_lightning.sweeps.spaces import Value
from bbi_lightning.sweeps.spec import Arm, SweepSpec


def trial_overrides(spec: SweepSpec, arm: Arm, params: Mapping[str, Value], seed: int) -> list[str]:
    """The Hydra overrides of one run: the common ones, the arm's, the point, the seed."""
    point = [override(key, value) for key, value in params.items()]
    return [*spec.base, *arm.overrides, *point, f"seed={seed}"]


def override(key: str, value: Value) -> str:
    """``key=value`` in Hydra's grammar; texts are quoted, so that 1, null and spaces stay texts."""
    if not isinstance(value, str):
        return f"{key}={shown(value) if isinstance(value, bool) or value is None else repr(value)}"
    # inside quotes only a quote, and backslashes in front of one, need a backslash
    plain = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + end[2].replace("'", "\\'"), value)
    return f"{key}='{plain}'"
