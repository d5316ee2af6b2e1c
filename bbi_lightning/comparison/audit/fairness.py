"""Did every arm have the same task, the same budget and the same chances?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from bbi_lightning.comparison.audit.finding import Finding, command
from bbi_lightning.comparison.provenance import Configurations, configurations, oddities
from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.verdict import count, listed, write_count

_LOST_MORE = 0.1  # of an arm's runs, beyond the arm that lost fewest
_TIMES_MORE = 1.5  # wall time of a run
_MANY_DIVERGED = 0.5  # of a search
_OVER = ("finished", "diverged", "pruned", "failed")
_BUDGET_KEYS = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accumulate_grad_batches",
    "data.batch_size",
)


def unfinished(c: Comparison) -> Iterator[Finding]:
    """The sweep is not over: which runs are missing may depend on how they do."""
    missing = c.missing()
    if missing:
        yield Finding(
            "note",
            "unfinished",
            f"{count(missing, 'planned run')} {'is' if missing == 1 else 'are'} not finished: the numbers "
            "may still change.",
            f"Go on with the command it was begun with. Where it stands: {command(c, 'status')}.",
            evidence={"missing": missing},
        )


def trials(c: Comparison) -> Iterator[Finding]:
    """The searches spent different numbers of trials."""
    spent = {r.arm.label: r.count("search", *_OVER) for r in c.results}
    if len(set(spent.values())) > 1:
        yield Finding(
            "warning",
            "unequal-trials",
            f"The searches had different budgets ({listed(spent)} trials): more trials are an advantage.",
            "Let the sweep finish." if c.missing() else "Give every arm as many trials (search.trials).",
            evidence=spent,
        )


def training(c: Comparison) -> Iterator[Finding]:
    """Replicates differ in steps, or the size of the model."""
    for quantity, words, code in (
        ("steps", "optimizer steps", "unequal-steps"),
        ("parameters", "model parameters", "unequal-models"),
    ):
        typical = {r.arm.label: n for r in c.results if math.isfinite(n := r.typical(quantity))}
        if len(set(typical.values())) > 1:
            yield Finding(
                "warning",
                code,
                f"The replicates differ in {words} ({listed(typical)}): the arms did not have the same task.",
                "Fix trainer.max_epochs, data.batch_size and the model in the sweep's base.",
                evidence=typical,
            )


def samples(c: Comparison) -> Iterator[Finding]:
    """As many steps, but of batches of different sizes."""
    config = configurations(c)
    batch = {label: value for label, value in setting(config, "data.batch_size").items() if value.isdigit()}
    gathered = setting(config, "trainer.accumulate_grad_batches")
    seen: dict[str, float] = {}
    for r in c.results:
        each, steps = batch.get(r.arm.label), r.typical("steps")
        micro = gathered.get(r.arm.label, "1")
        if each and math.isfinite(steps) and micro.isdigit():
            seen[r.arm.label] = steps * int(each) * int(micro)
    # the last batch of an epoch may be smaller: equal epochs are equal samples, whatever the product says
    if len(seen) > 1 and max(seen.values()) > 1.05 * min(seen.values()):
        yield Finding(
            "warning",
            "unequal-samples",
            f"The replicates differ in samples seen ({listed(seen)}).",
            "Fix data.batch_size and trainer.accumulate_grad_batches in the sweep's base.",
            evidence=seen,
        )


def stopped_early(c: Comparison) -> Iterator[Finding]:
    """Replicates that count as finished, but not at the step that was planned."""
    planned = setting(configurations(c), "trainer.max_epochs")
    for r in c.results:
        steps = sorted({n for run in r.finished if math.isfinite(n := run.final("steps"))})
        if len(steps) > 1:
            yield Finding(
                "warning",
                "steps-within-arm",
                f"The replicates of {r.arm.label} end after {write_count(steps[0])} to "
                f"{write_count(steps[-1])} steps: some did not finish their learning-rate schedule.",
                "Train all to the same step.",
                arm=r.arm.name,
                evidence={"steps": steps},
            )
        epochs = planned.get(r.arm.label, "")
        ends = [
            int(run.curve("train/loss").epoch[-1]) for run in r.finished if run.curve("train/loss").epoch.size
        ]
        # rows count completed epochs, and the last one of training stands in the epoch it completes
        if epochs.isdigit() and ends and max(ends) + 1 < int(epochs):
            yield Finding(
                "warning",
                "schedule-unfinished",
                f"{r.arm.label} was trained for {max(ends) + 1} of {epochs} epochs: its learning-rate "
                "schedule was not finished.",
                "Set trainer.max_epochs to the length that is trained.",
                arm=r.arm.name,
                evidence={"epochs": max(ends) + 1, "planned": int(epochs)},
            )


def task_of(c: Comparison) -> Iterator[Finding]:
    """The arms' resolved configurations differ in what makes the task, or in the schedule."""
    config = configurations(c)
    odd = [(key, [value for value, _ in cells]) for key, cells, unexpected in config.different if unexpected]
    for level, code, schedule, words, remedy in (
        (
            "warning",
            "arm-changes-task",
            False,
            "The arms differ in more than the optimizer",
            "Put what makes the task into the sweep's base, the same for all arms.",
        ),
        (
            "note",
            "different-schedules",
            True,
            "The arms have different learning-rate schedules",
            "Say so: what is compared is the optimizer with its schedule.",
        ),
    ):
        own = {key: values for key, values in odd if (key.partition(".")[0] == "scheduler") == schedule}
        if own:
            said = "; ".join(f"{key}: {_by_label(config, values)}" for key, values in list(own.items())[:3])
            more = f"; and {count(len(own) - 3, 'other key')}" if len(own) > 3 else ""
            evidence = {key: dict(zip(config.labels, values, strict=True)) for key, values in own.items()}
            yield Finding(level, code, f"{words} ({said}{more}).", remedy, evidence=evidence)  # type: ignore[arg-type]


def _by_label(config: Configurations, values: list[str]) -> str:
    return ", ".join(f"{label} {value}" for label, value in zip(config.labels, values, strict=True))


def odd_runs(c: Comparison) -> Iterator[Finding]:
    """Some runs of an arm were not trained as its others, beyond what is searched."""
    for r in c.results:
        odd = oddities(r.arm, (*r.trials, *r.replicates))
        if odd:
            what = next(iter(odd.values()))
            yield Finding(
                "warning",
                "odd-runs",
                f"{count(len(odd), 'run')} of {r.arm.label} {'was' if len(odd) == 1 else 'were'} not trained "
                f"as the others ({what}).",
                "Train them again as planned, or compare them as an arm of their own.",
                arm=r.arm.name,
                evidence={folder.name: words for folder, words in odd.items()},
            )


def searched_budget(c: Comparison) -> Iterator[Finding]:
    """A searched key changes the budget of a run."""
    for key in _BUDGET_KEYS:
        arms = [arm.label for arm in c.sweep.arms if any(axis.key == key for axis in arm.space)]
        if arms:
            yield Finding(
                "warning",
                "search-changes-budget",
                f"{', '.join(arms)} {'searches' if len(arms) == 1 else 'search'} {key}: what is best may be "
                "what trained longest.",
                "Fix it in the sweep's base.",
                evidence={"key": key},
            )


def wall_time(c: Comparison) -> Iterator[Finding]:
    """One arm's run takes much longer: at equal time it would have had fewer steps."""
    seconds = {r.arm.label: s for r in c.results if math.isfinite(s := r.typical("wall_s")) and s > 0}
    if len(seconds) < 2 or max(seconds.values()) < 5:  # of a toy, the start is most of the time
        return
    slowest, fastest = (f(seconds, key=lambda label: seconds[label]) for f in (max, min))
    times = seconds[slowest] / seconds[fastest]
    if times > _TIMES_MORE:
        yield Finding(
            "note",
            "unequal-time",
            f"A run of {slowest} takes {times:.1f} times as long as one of {fastest}: equal steps are not "
            "equal time.",
            "Look at the curves against wall time too.",
            evidence=seconds,
        )


def losses(c: Comparison) -> Iterator[Finding]:
    """Runs that diverged or failed, and whether that hit one arm more than the others."""
    for phase in ("replicate", "search"):
        for state in ("diverged", "failed"):
            lost = {r.arm.label: n for r in c.results if (n := r.count(phase, state))}
            if lost and (phase, state) != ("search", "diverged"):
                yield _loss(c, phase, state, lost)
    for r in c.results:
        diverged = r.count("search", "diverged")
        if len(r.trials) > 3 and diverged > _MANY_DIVERGED * len(r.trials):
            yield Finding(
                "note",
                "space-mostly-diverges",
                f"{diverged} of {count(len(r.trials), 'trial')} of {r.arm.label} diverged: its search had "
                "few that count.",
                "Move its space to where it trains, and search again under another name.",
                arm=r.arm.name,
                evidence={"diverged": diverged, "trials": len(r.trials)},
            )


def _loss(c: Comparison, phase: str, state: str, lost: Mapping[str, int]) -> Finding:
    def share(r: ArmResult) -> float:
        runs = r.replicates if phase == "replicate" else r.trials
        return r.count(phase, state) / max(1, len(runs))

    shares = [share(r) for r in c.results]
    uneven = max(shares) - min(shares) > _LOST_MORE and len(lost) < len(c.results)
    if state == "diverged":
        consequence = "means and intervals are of the others"
        remedy = "Report the share that diverged, or search where training is stable."
    elif phase == "replicate":
        consequence = "their seeds are missing from the comparison"
        remedy = f"Train them again: {command(c, 'retry', '--failed')}."
    else:
        consequence = "these arms searched less"
        remedy = f"Run them again: {command(c, 'retry', '--failed')}."
    return Finding(
        "warning",
        f"{'replicates' if phase == 'replicate' else 'trials'}-{state}",
        f"{'Replicates' if phase == 'replicate' else 'Search trials'} {state} ({listed(lost)}): {consequence}"
        f"{', and that did not hit all arms alike' if uneven else ''}.",
        remedy,
        arm=next((r.arm.name for r in c.results if r.arm.label in lost), "") if len(lost) == 1 else "",
        evidence=dict(lost),
    )


def setting(config: Configurations, key: str) -> dict[str, str]:
    """A key's value by the arms' labels, as text; empty when no run has it."""
    for name, value in config.common:
        if name == key:
            return dict.fromkeys(config.labels, value)
    for name, cells, _ in config.different:
        if name == key:
            return {label: value for label, (value, _) in zip(config.labels, cells, strict=True)}
    return {}


CHECKS = (
    unfinished,
    trials,
    training,
    samples,
    stopped_early,
    task_of,
    odd_runs,
    searched_budget,
    wall_time,
    losses,
)
