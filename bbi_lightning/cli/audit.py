"""`bbi audit`: what could make a comparison wrong, and whether a text says what the numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbi_lightning.cli.sweep.asking import SWEEPS, Against, Dir, Json, Sweeps

if TYPE_CHECKING:
    from bbi_lightning.comparison.audit import Finding
    from bbi_lightning.comparison.results import Comparison
    from bbi_lightning.comparison.suite import Suite

    Audited = list[tuple[Comparison, list[Finding]]]

HELP = """
Look for what could make a comparison wrong, before somebody else finds it.

[bold]Examples[/bold]

  bbi audit digits_showdown
  bbi audit digits_showdown --against adamw

  [dim]# does the sweep show this? > means better, in whatever metric[/dim]
  bbi audit digits_showdown --claim "bbi > sgd" --claim "adamw = sgd"
  bbi audit digits_showdown --claim "bbi > sgd by 0.3"

  [dim]# every sentence of a text that compares two arms, and its numbers[/dim]
  bbi audit digits_showdown --text README.md

  [dim]# in a script; a finding that is known can be left out by its code[/dim]
  bbi audit digits_showdown --json | jq '.[].findings[].code'
  bbi audit digits_showdown --ignore uncommitted-code

[bold]What is looked at[/bold]

  Budgets and task of the arms, the choice of the best, use of the test set,
  seeds and pairs, lost runs, code and machines, energy conservation. Each
  finding comes with a remedy. docs/jobs/audit.md explains every code.

[bold]Exit code[/bold]

  0 nothing, or notes only; 1 errors or warnings; 2 a mistake in the command
"""

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_MARKS = {"error": "✗", "warning": "!", "note": "·"}
_MEANINGS = {
    "error": "the comparison is wrong, or what is said about it",
    "warning": "makes the result doubtful",
    "note": "worth knowing",
}


def audit(
    sweeps: Sweeps,
    against: Against = None,
    claims: Annotated[
        list[str] | None,
        typer.Option(
            "--claim", "-c", metavar="CLAIM", show_default=False, help='Such as "bbi > sgd"; repeatable.'
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--text", "-t", metavar="FILE", show_default=False, help="A Markdown or text file; repeatable."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore", metavar="CODE", show_default=False, help="A finding to leave out; repeatable."
        ),
    ] = None,
    as_json: Json = False,
    directory: Dir = SWEEPS,
) -> None:
    """Look for what could make a comparison wrong."""
    try:
        audited = _audited(sweeps, directory, against, claims or [], texts or [], ignore or [])
    except (ValueError, FileNotFoundError) as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps([_plain(c, findings) for c, findings in audited], indent=2))
    else:
        _print(audited)
    if any(finding.level != "note" for _, findings in audited for finding in findings):
        raise typer.Exit(1)


def _audited(
    names: list[str],
    directory: Path,
    against: str | None,
    claims: list[str],
    texts: list[Path],
    ignore: list[str],
) -> Audited:
    from bbi_lightning.cli.sweep.asking import find
    from bbi_lightning.comparison.audit import LEVELS
    from bbi_lightning.comparison.audit import audit as findings_of
    from bbi_lightning.comparison.suite import compare_suite, read_suite

    written = {file: _read(file) for file in texts}
    _refuse_unknown(ignore)
    folders = list(dict.fromkeys(find(directory, name).path for name in names))
    suite = compare_suite(read_suite(folders), against)
    said = _claims(suite, claims)
    audited = []
    for c, own in zip(suite.comparisons, said, strict=True):
        found = [*findings_of(c), *own, *_of_texts(c, written)]
        kept = [finding for finding in found if finding.code not in ignore]
        audited.append((c, sorted(kept, key=lambda finding: LEVELS.index(finding.level))))
    return audited


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"--text={file} is not there: give a Markdown or text file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--text={file} cannot be read ({error}): give a Markdown or text file") from None


def _refuse_unknown(codes: list[str]) -> None:
    from bbi_lightning.comparison.audit.codes import CODES
    from bbi_lightning.sweeps.section import did_you_mean

    for code in codes:
        if code not in CODES:
            raise ValueError(f"--ignore={code} is no finding's code: {did_you_mean(code, list(CODES))}")


def _claims(suite: Suite, claims: list[str]) -> list[list[Finding]]:
    """What the claims come to, for every task; one that lacks an arm of a claim is left out."""
    from bbi_lightning.comparison.audit import check_claim, parse_claim

    found: list[list[Finding]] = [[] for _ in suite.comparisons]
    for text in claims:
        placed, refusal = 0, None
        for c, own in zip(suite.comparisons, found, strict=True):
            try:
                claim = parse_claim(c, text)
            except ValueError as error:
                refusal = refusal or error
                continue
            placed += 1
            own.append(check_claim(c, claim))
        if refusal and not placed:
            raise refusal
    return found


def _of_texts(c: Comparison, written: dict[Path, str]) -> list[Finding]:
    from bbi_lightning.comparison.audit import check_text

    return [finding for file, text in written.items() for finding in check_text(c, text, file.name)]


def _plain(c: Comparison, findings: list[Finding]) -> dict[str, object]:
    return {
        "sweep": c.sweep.name,
        "baseline": c.baseline.name,
        "findings": [finding.plain() for finding in findings],
    }


def _print(audited: Audited) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    for place, (c, findings) in enumerate(audited):
        if place:
            console.print()
        console.print(Text(c.sweep.title, style="bold"))
        console.print(Text(_summary(c, findings), style="" if findings else "green"))
        for level, meaning in _MEANINGS.items():
            group = [finding for finding in findings if finding.level == level]
            if not group:
                continue
            heading = Text(f"\n{level}{'s' if len(group) > 1 else ''} ", style=_STYLES[level])
            console.print(heading + Text(f"· {meaning}", style="dim"))
            for finding in group:
                line = Text(f"{_MARKS[level]} ", style=_STYLES[level])
                line += Text(finding.sentence, style="default") + Text(f"  [{finding.code}]", style="dim")
                console.print(Padding(line, (0, 0, 0, 2)))
                if finding.remedy:
                    console.print(Padding(Text(f"→ {finding.remedy}", style="dim"), (0, 0, 0, 4)))


def _summary(c: Comparison, findings: list[Finding]) -> str:
    runs = f"{len(c.sweep.runs)} runs of {len(c.sweep.arms)} arms, against {c.baseline.label}"
    if not findings:
        return f"{runs}: nothing was found that should make you doubt it."
    counted = [
        f"{n} {level}{'' if n == 1 else 's'}"
        for level in _MEANINGS
        if (n := sum(finding.level == level for finding in findings))
    ]
    return f"{runs}: {', '.join(counted)}."
