"""`bbi runs diff`: two runs held against each other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbi_lightning.cli.runs.asking import Json, Roots, Word, fail, mistakes_in_a_sentence, registry

if TYPE_CHECKING:
    from rich.console import Console

    from bbi_lightning.tracking.registry import IndexedRun
    from bbi_lightning.tracking.run_difference import Changed, CurvePair, Difference

HELP = """
Hold two runs against each other: config, environment, code, where their curves part, what came out.

[bold]Examples[/bold]

  bbi runs diff digits-cnn-bbi-38aa4ac6cd-s0 digits-cnn-sgd-02afe0c9d2-s0
  bbi runs diff 38aa4ac6cd-s0 38aa4ac6cd-s1 --json

Curves are compared step by step: "part at step 21" is the first step that
both have logged with different values. Two runs of one config, seed, code and
machine should not part at all.
"""

_QUIET = ("runtime.root", "runtime.group", "runtime.labels", "runtime.progress")  # say where, not what
_WIDTH = 24  # characters of a curve
_COMMITS = 8


def diff(first: Word, second: Word, as_json: Json = False, roots: Roots = None) -> None:
    """Hold two runs against each other."""
    from bbi_lightning.tracking.run_difference import difference
    from bbi_lightning.tracking.run_folder import RunFolder

    with mistakes_in_a_sentence():
        known = registry(roots)
        runs = known.find(first), known.find(second)
        try:
            found = difference(*(RunFolder(run.folder) for run in runs))
        except ValueError as error:
            fail(str(error))
    if as_json:
        print(json.dumps(_plain(runs, found), indent=2, ensure_ascii=False))
    else:
        _print(runs, found)


def _plain(runs: Sequence[IndexedRun], found: Difference) -> dict[str, Any]:
    from bbi_lightning.cli.runs.listing import plain

    def changes(of: Sequence[Changed]) -> dict[str, list[Any]]:
        return {change.key: [plain(change.first), plain(change.second)] for change in of}

    curves = [dataclasses.asdict(pair) for pair in found.curves]
    for curve in curves:
        for side in ("first", "second"):
            curve[f"{side}_last"] = plain(curve[side][-1]) if curve[side] else None
            del curve[side]
    return {
        "runs": [str(run.folder) for run in runs],
        "config": changes(found.config),
        "environment": changes(found.environment),
        "same_code": found.same_code,
        "results": changes(found.results),
        "curves": curves,
        "problems": list(found.problems),
    }


def _print(runs: Sequence[IndexedRun], found: Difference) -> None:
    from rich.console import Console
    from rich.text import Text

    from bbi_lightning.cli.runs.cells import STYLES
    from bbi_lightning.cli.runs.show import by_interest

    console = Console()
    console = console if console.is_terminal else Console(width=140)
    for letter, run, colour in zip("AB", runs, ("cyan", "magenta"), strict=True):
        text = Text.assemble(
            (f"{letter}  {run.name}", f"bold {colour}"), "  ", (run.state, STYLES.get(run.state, ""))
        )
        console.print(text)
    loud = [change for change in found.config if change.key not in _QUIET]
    _section(console, "config", loud, f"the same ({found.same_leaves} keys)")
    if loud:
        console.print(f"  {found.same_leaves} other keys are the same", style="dim", highlight=False)
    _section(console, "environment", found.environment, "the same machine, versions and code")
    for line in _code(found):
        console.print(f"  {line}", style="dim", highlight=False, markup=False)
    _print_curves(console, found.curves)
    shared = [change for change in found.results if change.first is not None and change.second is not None]
    order = by_interest(change.key for change in shared)
    shared.sort(key=lambda change: order.index(change.key))
    _section(console, "final values", shared, "the same", difference=True)
    for problem in found.problems:
        console.print(problem, style="yellow", highlight=False, markup=False)


def _section(
    console: Console, title: str, changes: Sequence[Changed], same: str, *, difference: bool = False
) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(f"\n[bold]{title}[/bold]", highlight=False)
    if not changes:
        console.print(f"  {same}", style="green", highlight=False)
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("  ", "A", "B", *(("B − A",) if difference else ())):
        table.add_column(heading, justify="right" if difference and heading != "  " else "left")
    for change in changes:
        cells = [Text(f"  {change.key}"), *_two(change)]
        if difference:
            cells.append(Text(_minus(change.key, change.first, change.second)))
        table.add_row(*cells)
    console.print(table, highlight=False)


def _two(change: Changed) -> list[Any]:
    from rich.text import Text

    from bbi_lightning.cli.runs.cells import cell

    first, second = cell(change.key, change.first), cell(change.key, change.second)
    if first == second:  # they differ in digits that are not written
        first, second = _longer(change.first), _longer(change.second)
        if first == second:
            first, second = str(change.first), str(change.second)
    return [Text(first, "cyan"), Text(second, "magenta")]


def _longer(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _minus(name: str, first: Any, second: Any) -> str:
    """B minus A, an accuracy's in points; nothing where one is no number."""
    from bbi_lightning.cli.live.words import short_number

    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in (first, second)):
        return ""
    gap = second - first
    if name.rpartition("/")[2] in ("acc", "accuracy"):
        return f"{100 * gap:+.2f} points".replace("-", "−")
    return ("+" if gap > 0 else "") + short_number(gap).replace("-", "−")


def _code(found: Difference) -> list[str]:
    """What is between two commits, if the repository here knows both."""
    if found.same_code is None:
        return ["the code of one is not known: it ran outside a git repository"]
    if found.same_code:
        return []
    changed = {change.key: change for change in found.environment}
    lines = []
    commits = changed.get("commit")
    if commits is not None and commits.first and commits.second:
        lines += _commits_between(str(commits.first), str(commits.second))
    if "uncommitted changes" in changed:
        lines.append("uncommitted changes are known by their digest only, their text was not kept")
    return lines


def _commits_between(first: str, second: str) -> list[str]:
    from bbi_lightning.tracking.environment import ask_git

    lines = []
    for old, new, letter in ((first, second, "B"), (second, first, "A")):
        told = ask_git(Path.cwd(), "log", "--oneline", "--no-color", f"{old}..{new}", "--")
        if told is None:
            return [
                f"git diff {first[:10]} {second[:10]} shows what changed, in the repository they come from"
            ]
        subjects = told.decode(errors="replace").splitlines()
        if subjects:
            lines.append(f"only in {letter}, {len(subjects)} commits:")
            lines += [f"  {subject}" for subject in subjects[:_COMMITS]]
            lines += [f"  … and {len(subjects) - _COMMITS} more"] if len(subjects) > _COMMITS else []
    return [*lines, f"git diff {first[:10]} {second[:10]} shows the changes"]


def _print_curves(console: Console, curves: Sequence[CurvePair]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from bbi_lightning.cli.runs.show import by_interest, course

    curves = [pair for pair in curves if len(pair.first) > 1 or len(pair.second) > 1]
    if not curves:
        return
    order = by_interest(pair.metric for pair in curves)
    both = sorted((c for c in curves if c.first and c.second), key=lambda pair: order.index(pair.metric))
    console.print("\n[bold]curves[/bold]", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("  ", "A", "B", "they"):
        table.add_column(heading, no_wrap=True)
    for pair in both:
        table.add_row(
            f"  {pair.metric}",
            course(pair.first, _WIDTH, "cyan"),
            course(pair.second, _WIDTH, "magenta"),
            _parting(pair),
        )
    if both:
        console.print(table, highlight=False)
    for letter, only in (
        ("A", [c for c in curves if not c.second]),
        ("B", [c for c in curves if not c.first]),
    ):
        if only:
            names = ", ".join(pair.metric for pair in only)
            console.print(Padding(Text(f"only in {letter}: {names}", "dim"), (0, 0, 0, 2)))


def _parting(pair: CurvePair) -> Any:
    from rich.text import Text

    if not pair.shared:
        return Text("share no step", "yellow")
    if pair.parts_at is None:
        return Text(f"are the same at all {pair.shared:,} steps that both have", "green")
    return Text(f"part at step {pair.parts_at:,}")
