"""`bbi sweep retry`, `extend` and `add`: what changes what is to be run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.sweep.asking import (
    SWEEPS,
    Dir,
    Name,
    as_typed,
    counted,
    find,
    mistakes_in_a_sentence,
    opened,
)

if TYPE_CHECKING:
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.study import Studies
    from bbi_lightning.sweeps.trial import Trial

RETRY_HELP = """
Run trials once more: what failed, or what has lost its worker.

[bold]Examples[/bold]

  bbi sweep retry digits_showdown --failed
  bbi sweep retry digits_showdown sgd/3 sgd/r0     # these two
  bbi sweep retry digits_showdown --lost           # losses count from 0 again

  A run goes on from its newest checkpoint. Trials whose worker vanished are
  taken up by the next worker without this; --lost forgives those that were lost
  so often that they count as failed too. One that was cancelled by hand runs
  again only if it is named.
"""

EXTEND_HELP = """
Let a sweep be larger: more trials in every arm, or more replicates of the best.

[bold]Examples[/bold]

  bbi sweep extend digits_showdown 16                 # sixteen more in every arm
  bbi sweep extend digits_showdown --replicates 10    # ten more fresh seeds

  [dim]# every arm searched once more, with points and a seed of its own[/dim]
  bbi sweep extend digits_showdown --studies 1

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
    from bbi_lightning.sweeps.trial_names import find_trials

    with mistakes_in_a_sentence():
        if not (trials or failed or lost):
            raise SweepError(
                "which trials are meant is missing: add --failed, --lost, or names such as sgd/3"
            )
        folder = find(directory, name)
        studies = opened(folder)
        with studies.alone():
            gone = _without_a_worker(studies, folder)
            chosen = {trial.key: trial for trial in find_trials(studies, trials or ())}
            for trial in chosen.values():
                _check_retry(trial, gone)
            chosen |= _failed(studies) if failed else {}
            chosen |= gone if lost else {}
            chosen |= {key: t for key, t in _failed(studies).items() if t.losses} if lost else {}
            for trial in chosen.values():
                studies.again(trial)
    _say(f"{counted(len(chosen), 'trial')} will run once more", as_typed(name, directory), len(chosen))


def _failed(studies: Studies) -> dict[int, Trial]:
    from bbi_lightning.sweeps.trial import FAILED

    due = [trial for arm in studies.spec.arms for trial in studies.due(arm.name)]
    return {trial.key: trial for trial in due if trial.state == FAILED and not trial.is_cancelled}


def _without_a_worker(studies: Studies, folder: SweepFolder) -> dict[int, Trial]:
    """The trials that were begun and that nobody has."""
    from bbi_lightning.sweeps.workers import Roster

    begun = studies.running()
    vanished = Roster(folder.workers, studies.spec.lock).vanished([t.owner for t in begun if t.owner])
    return {trial.key: trial for trial in begun if trial.owner is None or trial.owner in vanished}


def _check_retry(trial: Trial, gone: dict[int, Trial]) -> None:
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.sweeps.trial import FAILED

    if trial.state == FAILED or trial.key in gone:
        return
    if trial.ended:
        raise SweepError(f"{trial.job.name} is {trial.state}: only a failed trial can be retried")
    how = "is under way" if trial.owner else "waits for its turn"
    raise SweepError(f"{trial.job.name} {how}: there is nothing to retry")


def extend(
    name: Name,
    more: Annotated[
        int, typer.Argument(metavar="TRIALS", min=0, help="More trials in every arm.", show_default=False)
    ] = 0,
    replicates: Annotated[int, typer.Option("--replicates", min=0, help="More replicates.")] = 0,
    searches: Annotated[int, typer.Option("--studies", min=0, help="More searches of every arm.")] = 0,
    directory: Dir = SWEEPS,
) -> None:
    """Let a sweep be larger."""
    from bbi_lightning.sweeps import SweepError, parse_spec

    with mistakes_in_a_sentence():
        if not (more or replicates or searches):
            raise SweepError("by how much is missing: give a number of trials, --replicates or --studies")
        folder = find(directory, name)
        studies = opened(folder)
        with studies.alone():
            spec, before = folder.read_spec(), studies.left()
            search = dataclasses.replace(
                spec.search, trials=spec.search.trials + more, studies=spec.search.studies + searches
            )
            count = spec.replicates.count + replicates
            grown = dataclasses.replace(
                spec, search=search, replicates=dataclasses.replace(spec.replicates, count=count)
            )
            grown = parse_spec(grown.plain())
            folder.check(grown)
            folder.write_spec(grown)
            studies.spec = grown
            studies.plan()
            added = studies.left() - before
    _say(f"{counted(added, 'run')} more, {studies.left()} to go", as_typed(name, directory), added)


def add(
    name: Name,
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The arm it belongs to.")],
    point: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="Every key the arm searches.")],
    directory: Dir = SWEEPS,
) -> None:
    """Add one trial by hand."""
    from bbi_lightning.cli.sweep.task import task_named
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.sweeps.conditions import check_point
    from bbi_lightning.sweeps.overrides import trial_overrides
    from bbi_lightning.sweeps.section import did_you_mean
    from bbi_lightning.sweeps.trial import ADDED, Job

    with mistakes_in_a_sentence():
        folder = find(directory, name)
        studies = opened(folder)
        spec, names = studies.spec, [known.name for known in studies.spec.arms]
        if arm not in names:
            raise SweepError(f"the sweep has no arm {arm}: {did_you_mean(arm, names)}")
        params = _point(point)
        check_point(arm, spec.arm(arm).space, params)
        params = {key: params[key] for key in spec.arm(arm).space if key in params}
        try:
            task_named(spec.task).validate(trial_overrides(spec, spec.arm(arm), params, spec.search.seed))
        except ValueError as error:
            raise SweepError(f"arm {arm}: {error}") from None
        with studies.alone():
            index = sum(trial.job.phase == ADDED for trial in studies.due(arm))
            job = Job(arm, ADDED, index, index, spec.search.seed, params)
            studies.enqueue(job)
    _say(f"{job.name} was added", as_typed(name, directory), 1)


def _point(words: list[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from bbi_lightning.sweeps import SweepError

    params = {}
    for word in words:
        key, sign, text = word.partition("=")
        try:  # 1e-3 is a number to it, unlike to YAML
            params[key] = OmegaConf.from_dotlist([f"value={text}"])["value"]
        except (YAMLError, OmegaConfBaseException):
            sign = ""
        if not sign:
            raise SweepError(f"{word} is no part of a point: write it as optim.lr=0.1")
    return params


def _say(what: str, name: str, count: int) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"{what}.", highlight=False)
    if count:
        console.print(
            "Workers that are at it take them up; if there are none: bbi sweep run, or submit.",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"Next: [bold]bbi sweep status {name}[/bold]", highlight=False, soft_wrap=True)
