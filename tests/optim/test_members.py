from __future__ import annotations

import bbi_lightning.optim as optim
from bbi_lightning.optim import ECD
from bbi_lightning.optim.bouncing import BouncingECD

from .members import MEMBERS


def test_every_exported_optimizer_has_exactly_one_row():
    exported = {getattr(optim, name) for name in optim.__all__}
    rows = [member.cls for member in MEMBERS]
    assert {cls for cls in exported if issubclass(cls, ECD)} == set(rows)
    assert len(rows) == len(set(rows))


def test_every_subclass_in_the_package_is_exported():
    def subclasses(cls: type) -> set[type]:
        return {cls}.union(*(subclasses(c) for c in cls.__subclasses__()))

    members = subclasses(ECD) - {BouncingECD}  # which names no law
    ours = {cls.__name__ for cls in members if cls.__module__.startswith("bbi_lightning.")}
    assert ours <= set(optim.__all__)
