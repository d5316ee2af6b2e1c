"""What the verbs of `bbi runs` have in common: where runs are, which are meant, how a mistake is answered."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:  # the rest is imported when a command runs: --help must be instant
    from bbi_lightning.tracking.registry import IndexedRun, Progress, Registry

CONTEXT = {"help_option_names": ["-h", "--help"]}
USUAL_ROOTS = (Path("runs"), Path("sweeps"))

Roots = Annotated[
    list[Path] | None,
    typer.Option(
        "--dir",
        metavar="ROOT",
        show_default=False,
        help="Where to look, at any depth; may be repeated. Default: runs/ and sweeps/.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        "-w",
        metavar="QUERY",
        show_default=False,
        help="Which runs, such as 'optimizer=bbi and lr>0.1'.",
    ),
]
Word = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's name, a part of it, or its folder.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]

QUERY_HELP = """[bold]Queries[/bold]

  and, or, not, ( )          optimizer=bbi and (lr>0.1 or state=failed)
  = != < <= > >=             text without regard to case; dates as 2026-11-25
  ~ !~                       contains, or a regular expression: name~'s[0-3]$'
  in (…), not in (…)         lr in (0.1, 0.3)
  is null, is not null       'test/acc is null': the run has no such field
  2d, 3h, 10min, 30s         age<2d, duration>3h

  Fields: what a run is (state, sweep, arm, tags, host, commit, dirty, age,
  duration, …), every key of its config (optim.lr, or lr where only one can be
  meant), every result (test/acc). bbi runs ls --fields lists them. State
  "lost" is a running one whose process is gone. Words with blanks or operators
  go into quotes."""


@contextmanager
def mistakes_in_a_sentence() -> Iterator[None]:
    """A mistake of the user's, or a disk that refuses, is one sentence on stderr and exit code 2."""
    from bbi_lightning.tracking.query import QueryError
    from bbi_lightning.tracking.registry import RegistryError
    from bbi_lightning.tracking.run_lock import RunBusyError

    try:
        yield
    except (QueryError, RegistryError, RunBusyError) as error:
        fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        fail(f"{error.filename or 'the disk'}: {error.strerror or error}")


def fail(sentence: str) -> NoReturn:
    """Say what is wrong, and leave with code 2."""
    typer.secho(f"error: {sentence}", err=True, fg="red")
    raise typer.Exit(2) from None


def registry(roots: Sequence[Path] | None, *, rebuild: bool = False) -> Registry:
    """The runs of these roots, else of the usual ones.

    Raises:
        RegistryError: a root is no folder, or there is none.
    """
    from bbi_lightning.tracking.registry import RegistryError, read_runs

    chosen = list(roots or [root for root in USUAL_ROOTS if root.is_dir()])
    if not chosen:
        raise RegistryError(
            "there is neither runs/ nor sweeps/ here: say with --dir ROOT where the runs are, or train one"
        )
    with _progress() as told:
        return read_runs(chosen, rebuild=rebuild, progress=told)


def chosen_runs(known: Registry, words: Sequence[str], where: str | None) -> list[IndexedRun]:
    """The runs that are named, and those that a query holds of; each once.

    Raises:
        RegistryError: nothing is named, or a name is no run's.
        QueryError: the query is wrong.
    """
    from bbi_lightning.tracking.registry import RegistryError

    if not words and where is None:
        raise RegistryError("no run is named: give names of runs, or --where QUERY")
    runs = [known.find(word) for word in words]
    runs += known.where(where) if where is not None else ()
    return list({run.folder.resolve(): run for run in runs}.values())


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on the terminal while many runs are read; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        bars: list[tuple[Any, Any]] = []

        def told(done: int, total: int) -> None:
            if total < 200 or (done % 20 and done != total):
                return
            if not bars:
                bars.append(_bar(stack, total))
            bar, task = bars[0]
            bar.update(task, completed=done)

        yield told


def _bar(stack: ExitStack, total: int) -> tuple[Any, Any]:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("reading runs"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    stack.enter_context(bar)
    return bar, bar.add_task("", total=total)
