"""`bbi compare`: from a sweep, finished or not, to a verdict, a table and a page."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

_PAGE_SUFFIXES = (".html", ".htm")


def compare(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's name, or its folder.", show_default=False)
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            "-a",
            metavar="ARM",
            show_default=False,
            help="The arm that the others are compared to. Default: sgd, or the first.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The page; CSV files go beside it. Default: report.html in the sweep's folder.",
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Only print the table, write nothing.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Folder of all sweeps.")] = Path("sweeps"),
) -> None:
    """Compare the arms of a sweep: verdict, table, and a page with every picture.

    The page is one HTML file that needs no network. Beside it lie summary.csv,
    replicates.csv and trials.csv. A sweep that is still running can be compared
    at any time; the page says what is missing.

    \b
    Examples:
      bbi compare digits_showdown                   against SGD
      bbi compare digits_showdown --against adamw   another baseline
      bbi compare digits_showdown --out page.html   the page elsewhere
      bbi compare /scratch/sweeps/wide --text       only the table

    \b
    How it judges: the best trial of each arm on validation data, trained again
    with fresh seeds; their test results, seed by seed against the baseline,
    with 95 % bootstrap intervals and an exact paired test that is corrected
    over the arms. It says "better" only where interval and test agree.
    """  # fmt: skip
    try:
        _compare(_find(sweep, directory), against, _page(out), text)
    except (ValueError, FileNotFoundError) as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None


def _compare(folder: Path, against: str | None, page: Path | None, text: bool) -> None:
    from rich.console import Console

    from bbi_lightning.comparison.results import compare_sweep
    from bbi_lightning.comparison.sweep_data import read_sweep
    from bbi_lightning.comparison.tables import for_terminal

    comparison = compare_sweep(read_sweep(folder), against)
    console = Console()
    console.print(for_terminal(comparison), highlight=False)
    if text:
        return
    from bbi_lightning.comparison.page.page import write_report

    console.print(f"\npage: {write_report(comparison, page)}", highlight=False, soft_wrap=True, markup=False)


def _find(sweep: str, directory: Path) -> Path:
    """The sweep's folder, given by its name or path."""
    for path in (Path(sweep), directory / sweep):
        if (path / "sweep.yaml").is_file():
            return path
    known = sorted(file.parent.name for file in directory.glob("*/sweep.yaml"))
    close = difflib.get_close_matches(sweep, known, n=1)
    if close:
        remedy = f"did you mean {close[0]}?"
    elif known:
        remedy = f"use one of {', '.join(known)}"
    else:
        remedy = "start one with `bbi sweep run sweep=digits_showdown`, or give its folder"
    raise FileNotFoundError(f"there is no sweep {sweep} here or in {directory}: {remedy}")


def _page(out: Path | None) -> Path | None:
    if out is None:
        return None
    if out.is_dir():
        return out / "report.html"
    if out.suffix.lower() not in _PAGE_SUFFIXES:
        raise ValueError(f"--out={out} does not end in .html: name the page, as in --out comparison.html")
    return out
