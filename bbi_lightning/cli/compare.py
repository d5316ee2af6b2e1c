"""`bbi compare`: from sweeps, finished or not, to a verdict, a table, a page, and figures for a paper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bbi_lightning.cli.sweep.asking import Against, Dir, Sweeps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bbi_lightning.comparison.figures.picture import Picture
    from bbi_lightning.comparison.suite import Suite

_PAGE_SUFFIXES = (".html", ".htm")
_WIDE = 160  # columns of what is no terminal

HELP = """Compare the arms of a sweep: verdict, table, and a page with every picture.

\b
The page is one HTML file that needs no network; its CSV files lie beside
it. A sweep that is still running can be compared at any time, and the page
says what is missing.

\b
Examples
  # against SGD; the page is sweeps/digits_showdown/report.html
  bbi compare digits_showdown
\b
  # another baseline, the page elsewhere
  bbi compare digits_showdown --against adamw --out page.html
\b
  # several sweeps: those of one task are joined, different tasks are
  # compared one by one and over all of them
  bbi compare digits_showdown digits_baselines cifar_showdown
\b
  # for a paper: every figure as PDF and PNG, and the table
  bbi compare digits_showdown --figures figures
  bbi compare digits_showdown --table latex > table.tex
\b
  # only the table, on the terminal
  bbi compare /scratch/sweeps/wide --text

\b
How it judges
  The best trial of each arm on validation data, trained again with fresh
  seeds; their test results, seed by seed against the baseline, with 95 %
  bootstrap intervals and an exact paired test that is corrected over the
  arms. It says "better" only where interval and test agree.
  `bbi audit` looks for what could make the comparison wrong.
"""


def compare(
    sweeps: Sweeps,
    against: Against = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The page; CSV files go beside it. Default: report.html in the sweep's folder; for several "
            "sweeps comparison.html here.",
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Only print the table, write nothing.")] = False,
    table: Annotated[
        Literal["markdown", "latex"] | None,
        typer.Option("--table", help="Only print the table, for a paper or a README.", show_default=False),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            metavar="DIR",
            show_default=False,
            help="Also write every figure as PDF and PNG, for a paper.",
        ),
    ] = None,
    directory: Dir = Path("sweeps"),
) -> None:
    """Compare the arms of sweeps."""
    try:
        page = _page(out)
        suite, folders = _suite(sweeps, directory, against)
        if table:
            _print_tables(suite, table)
            return
        _print(suite)
        if figures:
            _save_figures(suite, figures)
        if not text:
            default = folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html")
            _write(suite, page or default)
    except (ValueError, FileNotFoundError) as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None


def _suite(names: list[str], directory: Path, against: str | None) -> tuple[Suite, list[Path]]:
    from bbi_lightning.cli.sweep.asking import find
    from bbi_lightning.comparison.suite import compare_suite, read_suite

    folders = list(dict.fromkeys(find(directory, name).path for name in names))
    return compare_suite(read_suite(folders), against), folders


def _print_tables(suite: Suite, kind: str) -> None:
    from bbi_lightning.comparison.papers import latex_table, markdown_table

    for place, comparison in enumerate(suite.comparisons):
        several = len(suite.comparisons) > 1
        if kind == "markdown":
            if several:
                typer.echo(f"### {comparison.sweep.title}\n")
            typer.echo(markdown_table(comparison))
        else:
            label = f"tab:comparison-{place + 1}" if several else "tab:comparison"
            typer.echo(latex_table(comparison, label))


def _print(suite: Suite) -> None:
    from rich.console import Console

    from bbi_lightning.comparison.terminal import for_terminal

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_WIDE)  # a file has no width
    console.print(for_terminal(suite), highlight=False)


def _save_figures(suite: Suite, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import track

    from bbi_lightning.comparison.figures import save_figures

    console = Console(stderr=True)

    def told(pictures: Iterable[Picture]) -> Iterable[Picture]:
        return track(
            list(pictures), "drawing", console=console, disable=not console.is_terminal, transient=True
        )

    files = save_figures(suite, folder, told=told)
    Console().print(
        f"\nfigures: {len(files)} files in {folder}", highlight=False, soft_wrap=True, markup=False
    )


def _write(suite: Suite, page: Path) -> None:
    from rich.console import Console

    from bbi_lightning.comparison.page.page import write_page

    Console().print(f"\npage: {write_page(suite, page)}", highlight=False, soft_wrap=True, markup=False)


def _page(out: Path | None) -> Path | None:
    if out is None:
        return None
    if out.is_dir():
        return out / "report.html"
    if out.suffix.lower() not in _PAGE_SUFFIXES:
        raise ValueError(f"--out={out} does not end in .html: name the page, as in --out comparison.html")
    return out
