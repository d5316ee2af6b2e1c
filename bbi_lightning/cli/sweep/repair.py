"""`bbi sweep retry`, `extend` and `add`: what changes what is to be run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.sweep.asking import SWEEPS, Dir, Name, as_typed, find, mistakes_in_a_sentence, opened

if TYPE_CHECKING:
    from bbi_lightning.sweeps.study import Studies
    from bbi_lightning.sweeps.trial import Trial

RETRY_HELP = """
Run trials once more: what failed, or what has lost its worker.

[bold]Examples[/bold]

  bbi sweep retry digits_showdown --failed
  bbi sweep retry digits_showdown sgd/3 sgd/r0      # these two
  bbi sweep retry digits_showdown --lost            # their count of losses begins anew

  A run goes on from its newest checkpoint. Trials whose worker vanished are
  taken up by the next worker without this; --lost forgives those that were lost
  so often that they count as failed too.
"""

EXTEND_HELP = """
Let a sweep be larger: more trials in every arm, or more replicates of the best.

[bold]Examples[/bold]

  bbi sweep extend digits_showdown 16                 # sixteen more in every arm
  bbi sweep extend digits_showdown --replicates 10    # ten more fresh seeds

  The points there are stay as they are. Workers that are at it see it within
  seconds; if nobody is, start some: bbi sweep run or submit.
"""

ADD_HELP = """
Add one trial by hand, at a point of your own.

[bold]Examples[/bold]

  bbi sweep add digits_showdown sgd optim.lr=0.3 optim.momentum=0.95

  It runs as a trial of its arm with the search's seed, and is shown as
  sgd/a0. It is never selected for replicates: every arm has the same budget.
"""


def retry(
    name: Name,
    trials: Annotated[
        list[str] | None, typer.Argument(metavar="TRIAL", help="Such as sgd/3.", show_default=False)
    ] = None,
    directory: Dir = SWEEPS,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="All that lost their worker.")] = False,
) -> None:
    """Run trials once more."""
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.sweeps.trial import FAILED, RUNNING
    from bbi_lightning.sweeps.workers import Roster

    with mistakes_in_a_sentence():
        if not (trials or failed or lost):
            raise SweepError(
                "which trials are meant is missing: add --failed, --lost, or names such as sgd/3"
            )
        folder = find(directory, name)
        studies = opened(folder)
        with studies.alone():
            due = _due(studies)
            chosen = {trial.key: trial for trial in (_named(due, word) for word in trials or ())}
            chosen |= {t.key: t for t in due.values() if failed and t.state == FAILED}
            if lost:
                begun = [t for t in due.values() if t.state == RUNNING]
                gone = Roster(folder.workers, studies.spec.lock).vanished([t.owner for t in begun if t.owner])
                chosen |= {t.key: t for t in begun if t.owner is None or t.owner in gone}
                chosen |= {t.key: t for t in due.values() if t.state == FAILED and t.losses}
            for trial in chosen.values():
                if not trial.ended and trial.state != RUNNING:
                    raise SweepError(f"{trial.job.name} waits for its turn: there is nothing to retry")
                if trial.ended and trial.state != FAILED:
                    raise SweepError(f"{trial.job.name} is {trial.state}: only a failed trial can be retried")
            for trial in chosen.values():
                studies.again(trial)
    _say(f"{len(chosen)} trials will run once more", as_typed(name, directory), len(chosen))


def extend(
    name: Name,
    more: Annotated[
        int, typer.Argument(metavar="TRIALS", min=0, help="More trials in every arm.", show_default=False)
    ] = 0,
    replicates: Annotated[int, typer.Option("--replicates", min=0, help="More replicates.")] = 0,
    directory: Dir = SWEEPS,
) -> None:
    """Let a sweep be larger."""
    from bbi_lightning.sweeps import SweepError, parse_spec

    with mistakes_in_a_sentence():
        if not (more or replicates):
            raise SweepError("by how much is missing: give a number of trials, or --replicates")
        folder = find(directory, name)
        studies = opened(folder)
        with studies.alone():
            spec = folder.read_spec()
            grown = parse_spec(
                dataclasses.replace(
                    spec,
                    search=dataclasses.replace(spec.search, trials=spec.search.trials + more),
                    replicates=dataclasses.replace(spec.replicates, count=spec.replicates.count + replicates),
                ).plain()
            )
            folder.check(grown)
            folder.write_spec(grown)
            studies.spec = grown
            studies.plan()
    arms = len(grown.arms)
    said = f"{more * arms} trials and {replicates * arms} replicates more"
    _say(said, as_typed(name, directory), more + replicates)


def add(
    name: Name,
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The arm it belongs to.")],
    point: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="Every key the arm searches.")],
    directory: Dir = SWEEPS,
) -> None:
    """Add one trial by hand."""
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.sweeps.section import did_you_mean
    from bbi_lightning.sweeps.trial import ADDED, Job

    with mistakes_in_a_sentence():
        folder = find(directory, name)
        studies = opened(folder)
        arms = {known.name: known for known in studies.spec.arms}
        if arm not in arms:
            raise SweepError(f"the sweep has no arm {arm}: {did_you_mean(arm, list(arms))}")
        params = _point(point)
        space = arms[arm].space
        for key in params.keys() ^ space.keys():
            remedy = f"give {key}=VALUE" if key in space else did_you_mean(key, list(space))
            raise SweepError(f"arm {arm} searches {', '.join(space)}: {remedy}")
        for key, value in params.items():
            if not space[key].contains(value):
                raise SweepError(f"{key}={value} is outside the space of arm {arm}: {space[key].plain()}")
        with studies.alone():
            index = sum(trial.job.phase == ADDED for trial in studies.trials(arm))
            job = Job(arm, ADDED, index, index, studies.spec.search.seed, params)
            studies.enqueue(job)
    _say(f"{job.name} was added", as_typed(name, directory), 1)


def _due(studies: Studies) -> dict[str, Trial]:
    return {trial.job.name: trial for arm in studies.spec.arms for trial in studies.due(arm.name)}


def _named(due: dict[str, Trial], word: str) -> Trial:
    from bbi_lightning.sweeps import SweepError

    if word not in due:
        example = next(iter(due), "sgd/0")
        raise SweepError(f"there is no trial {word}: write it as ARM/NUMBER, such as {example}")
    return due[word]


def _point(words: list[str]) -> dict[str, Any]:
    import yaml

    from bbi_lightning.sweeps import SweepError

    params = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign:
            raise SweepError(f"{word} is no point: write it as optim.lr=0.1")
        params[key] = yaml.safe_load(text)
    return params


def _say(what: str, name: str, count: int) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"{what}.", highlight=False)
    if count:
        console.print(
            f"Workers that are at it take them up; if none are: bbi sweep run or submit. See {name}'s status",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )
