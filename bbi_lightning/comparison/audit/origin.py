"""Where the runs come from: their code, software, machines, and whether they can be read at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bbi_lightning.comparison.audit.finding import Finding
from bbi_lightning.comparison.results import Comparison
from bbi_lightning.comparison.sweep_data import Run
from bbi_lightning.comparison.verdict import code_version, count, hardware, listed

_SHOWN = 5


def unreadable(c: Comparison) -> Iterator[Finding]:
    """Run folders that cannot be read, or that do not belong."""
    logs = (run.log_damage for r in c.results for run in r.replicates)
    problems = [*c.sweep.problems, *(damage for damage in logs if damage)]
    for sentence in problems[:_SHOWN]:
        yield Finding("warning", "unreadable", sentence)
    if len(problems) > _SHOWN:
        yield Finding(
            "warning", "unreadable", f"{len(problems) - _SHOWN} more run folders could not be used."
        )


def code(c: Comparison) -> Iterator[Finding]:
    """Several versions of the code, or one that is in no commit."""
    versions = Counter(version for run in _own(c) if (version := code_version(run.record)))
    if len(versions) > 1:
        by_arm = [
            {code_version(run.record) for run in c.sweep.runs if run.arm == arm.name} for arm in c.sweep.arms
        ]
        apart = len({frozenset(own) for own in by_arm if own}) > 1
        shown = dict(versions.most_common(3))
        more = f" and {len(versions) - 3} more versions" if len(versions) > 3 else ""
        yield Finding(
            "warning",
            "mixed-code",
            f"The runs were made by different code ({listed(shown)} runs{more}): that may be the difference"
            f"{', for not all arms have the same' if apart else ''}.",
            "Run the sweep again from one commit; `bbi runs diff` shows what changed between two runs.",
            evidence=dict(versions),
        )
    elif any(version.endswith("modified") for version in versions):
        yield Finding(
            "note",
            "uncommitted-code",
            "The code had changes that are in no commit.",
            "Commit them before you publish this.",
            evidence=dict(versions),
        )


def software(c: Comparison) -> Iterator[Finding]:
    """Arms ran with different versions of the libraries."""
    by_arm: dict[str, set[str]] = {}
    for run in _own(c):
        if run.record.attempts:
            versions = run.record.attempts[-1].versions
            by_arm.setdefault(c.sweep.arm(run.arm).label, set()).add(
                ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
            )
    kinds = {kind for own in by_arm.values() for kind in own}
    if len(kinds) > 1:
        differing = sorted(
            {
                word
                for kind in kinds
                for word in kind.split(", ")
                if any(word not in k.split(", ") for k in kinds)
            }
        )
        yield Finding(
            "warning",
            "mixed-software",
            f"The runs had different software ({', '.join(differing[:6])}).",
            "Run them in one environment (constraints.txt).",
            evidence={label: sorted(own) for label, own in by_arm.items()},
        )


def machines(c: Comparison) -> Iterator[Finding]:
    """Replicates ran on different hardware."""
    by_arm = {r.arm.label: sorted({hardware(run.record) for run in r.replicates}) for r in c.results}
    kinds = {tuple(kinds) for kinds in by_arm.values() if kinds}
    if len(kinds) > 1 or any(len(kind) > 1 for kind in kinds):
        where = "; ".join(f"{label} on {' and '.join(kinds)}" for label, kinds in by_arm.items() if kinds)
        yield Finding(
            "note",
            "mixed-hardware",
            f"The replicates ran on different hardware ({where}): do not compare their times.",
            "Run the replicates on one kind of machine (cluster.constraint).",
            evidence=by_arm,
        )


def imported(c: Comparison) -> Iterator[Finding]:
    """Runs that were not made here."""
    origins = Counter(run.imported for run in c.sweep.runs if run.imported)
    if not origins:
        return
    arms = sorted({c.sweep.arm(run.arm).label for run in c.sweep.runs if run.imported})
    mixed = any(not run.imported for run in c.sweep.runs)
    yield Finding(
        "warning" if mixed else "note",
        "imported",
        f"{count(sum(origins.values()), 'run')} of {', '.join(arms)} were imported ({listed(origins)})"
        f"{' and stand beside runs made here' if mixed else ''}: nobody has checked that data, budget and "
        "evaluation are the same.",
        "Check them, or train these arms here.",
        evidence={str(origin): n for origin, n in origins.items()},
    )


def _own(c: Comparison) -> list[Run]:
    return [run for run in c.sweep.runs if not run.imported]


CHECKS = (unreadable, code, software, machines, imported)
