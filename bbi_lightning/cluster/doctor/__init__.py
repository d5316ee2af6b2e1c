"""Will a sweep run well here? Facts are gathered first, and judged by functions that only look at them."""

from bbi_lightning.cluster.doctor.checks import examine
from bbi_lightning.cluster.doctor.facts import Facts, SweepNeeds, gather
from bbi_lightning.cluster.doctor.finding import Finding

__all__ = ["Facts", "Finding", "SweepNeeds", "examine", "gather"]
