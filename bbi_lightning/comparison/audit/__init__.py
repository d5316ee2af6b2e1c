"""What could make a comparison wrong, found in its numbers before somebody else does.

fairness    the same task, budget and chances for every arm; lost runs
evidence    enough replicates, rightly paired, and no single run that decides
selection   the winner of each search chosen on validation data, from a search that was any good
origin      code, software, machines; runs from elsewhere
physics     what is peculiar to energy-conserving optimizers
claims      what somebody says about the arms, held against the numbers; prose finds it in a text
"""

from __future__ import annotations

from bbi_lightning.comparison.audit import evidence, fairness, origin, physics, selection
from bbi_lightning.comparison.audit.claims import Claim, check_claim, parse_claim
from bbi_lightning.comparison.audit.finding import LEVELS, Finding, Level
from bbi_lightning.comparison.audit.prose import check_text
from bbi_lightning.comparison.results import Comparison

__all__ = [
    "LEVELS",
    "Claim",
    "Finding",
    "Level",
    "audit",
    "check_claim",
    "check_text",
    "parse_claim",
    "serious",
]

CHECKS = (
    *origin.CHECKS[:1],  # what cannot be read comes first: everything else is about the rest
    *fairness.CHECKS,
    *evidence.CHECKS,
    *selection.CHECKS,
    *origin.CHECKS[1:],
    *physics.CHECKS,
)


def audit(comparison: Comparison) -> tuple[Finding, ...]:
    """Everything found, gravest first; empty when nothing is. Reads the replicates' metric logs."""
    found = [finding for check in CHECKS for finding in check(comparison)]
    return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def serious(comparison: Comparison) -> tuple[Finding, ...]:
    """The findings that should make a reader doubt the result: errors and warnings, without the notes."""
    return tuple(finding for finding in audit(comparison) if finding.level != "note")
