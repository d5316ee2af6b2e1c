"""`bbi sweep best`, `export` and `logs`: what came out."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.sweep.asking import SWEEPS, Dir, Json, Name, find, mistakes_in_a_sentence, opened

if TYPE_CHECKING:
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.trial import Trial

BEST_HELP = """
Show the best trials of every arm, by the sweep's own objective, with the command that runs each by hand.

[bold]Examples[/bold]

  bbi sweep best digits_showdown
  bbi sweep best digits_showdown -n 1 --json | jq -r '.[].command'

  The objective is a validation metric after the last epoch. Whether one arm is
  better than another is another question: bbi compare.
"""

EXPORT_HELP = """
Write every trial as a row of a table: its point, its state, its result, its run.

[bold]Examples[/bold]

  bbi sweep export digits_showdown > trials.csv
  bbi sweep export digits_showdown --output trials.parquet      # needs pyarrow
"""

LOGS_HELP = """
Print what a trial's processes printed.

[bold]Examples[/bold]

  bbi sweep logs digits_showdown sgd/3
  bbi sweep logs digits_showdown sgd/3 -f       # and what comes, until Ctrl-C
"""


def best(
    name: Name,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of each arm.")] = 3,
    directory: Dir = SWEEPS,
    as_json: Json = False,
) -> None:
    """Show the best trials of every arm."""
    from rich.console import Console

    from bbi_lightning.sweeps.ledger import merit
    from bbi_lightning.sweeps.live import best_table
    from bbi_lightning.sweeps.overrides import trial_overrides
    from bbi_lightning.sweeps.trial import FINISHED, REPLICATE

    with mistakes_in_a_sentence():
        studies = opened(find(directory, name))
    spec = studies.spec
    ranked: list[Trial] = []
    for arm in spec.arms:
        finished = [t for t in studies.due(arm.name) if t.state == FINISHED and t.job.phase != REPLICATE]
        ranked += sorted(finished, key=lambda trial: merit(trial, spec.objective), reverse=True)[:count]
    if as_json:
        rows = []
        for trial in ranked:
            words = trial_overrides(spec, spec.arm(trial.job.arm), trial.job.params, trial.job.seed)
            rows.append(_row(trial) | {"command": " ".join(["bbi", "train", *words])})
        print(json.dumps(rows, indent=2))
        return
    console = Console()
    console.print(best_table(spec, ranked))
    if not ranked:
        console.print("  No trial has finished yet.", style="dim")


def export(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv or .parquet file; else CSV to the screen.")
    ] = None,
    directory: Dir = SWEEPS,
) -> None:
    """Write every trial as a row of a table."""
    from bbi_lightning.sweeps import SweepError

    with mistakes_in_a_sentence():
        if output is not None and output.suffix not in (".csv", ".parquet"):
            raise SweepError(f"--output={output} is neither .csv nor .parquet: give one of them")
        studies = opened(find(directory, name))
        rows = [_row(trial) for arm in studies.spec.arms for trial in studies.trials(arm.name)]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if output is not None and output.suffix == ".parquet":
            _write_parquet(output, [{key: row.get(key) for key in columns} for row in rows])
        elif output is not None:
            with output.open("w", newline="") as file:
                _write_csv(file, columns, rows)
    if output is None:
        _write_csv(sys.stdout, columns, rows)
    else:
        typer.echo(f"{len(rows)} trials are in {output}")


def logs(
    name: Name,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="Such as sgd/3.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    directory: Dir = SWEEPS,
) -> None:
    """Print what a trial's processes printed."""
    with mistakes_in_a_sentence():
        file = _log_of(find(directory, name), trial)
    try:
        with file.open(errors="replace") as stream:
            while True:
                for line in stream:
                    typer.echo(line, nl=False)
                if not follow:
                    return
                time.sleep(0.5)
    except KeyboardInterrupt:
        return


def _log_of(folder: SweepFolder, word: str) -> Path:
    from bbi_lightning.sweeps import SweepError
    from bbi_lightning.sweeps.child import LOG
    from bbi_lightning.sweeps.trial_names import find_trials

    (found,) = find_trials(opened(folder), [word])
    run = found.run
    if run is None:
        raise SweepError(f"{word} is {found.state}: it has not been started, so there is no output")
    if not (folder.runs / run / LOG).is_file():
        raise SweepError(f"{word} has printed nothing: its run is {folder.runs / run}")
    return folder.runs / run / LOG


def _row(trial: Trial) -> dict[str, Any]:
    outcome = trial.outcome
    return {
        "trial": trial.job.name,
        "arm": trial.job.arm,
        "study": trial.job.study,
        "phase": trial.job.phase,
        "index": trial.job.index,
        "seed": trial.job.seed,
        "state": trial.state,
        "value": outcome.value if outcome else None,
        "tie_breaker": outcome.tie_breaker if outcome else None,
        "seconds": outcome.seconds if outcome else None,
        "run": trial.run,
        "host": trial.worker.get("host"),
        "error": outcome.error.strip().splitlines()[-1] if outcome and outcome.error else None,
        **trial.job.params,
    }


def _write_csv(stream: Any, columns: list[str], rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    from bbi_lightning.sweeps import SweepError

    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SweepError(
            f"--output={file} needs pyarrow: pip install 'bbi-lightning[parquet]', or write .csv"
        ) from None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
