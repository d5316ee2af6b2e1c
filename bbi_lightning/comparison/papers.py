"""A comparison's table for a paper or a README: Markdown, and LaTeX that needs `booktabs` alone."""

from __future__ import annotations

from collections.abc import Iterable

from bbi_lightning.comparison.results import ArmResult, Comparison
from bbi_lightning.comparison.statistics import Estimate
from bbi_lightning.comparison.verdict import count, write_p

_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "\u202f": r"\,",
}
_SHOWN = ("better", "worse")


def markdown_table(c: Comparison) -> str:
    """One row an arm: mean, median, interquartile mean, difference to the baseline, with 95 % intervals.

    An arm whose difference to the baseline is shown (see `results`) is bold.
    """
    cells = [[_marked(r, cell, "**", "**") for cell in _cells(c, r)] for r in c.results]
    headings = _headings(c)
    rows = [headings, ["---", *["---:"] * (len(headings) - 1)], *cells]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", _caption(c), ""])


def latex_table(c: Comparison, label: str = "tab:comparison") -> str:
    r"""The same as a `table` environment; the document needs `\usepackage{booktabs}`."""
    headings = _headings(c)
    body = [
        _latex_row((_latex(cell) for cell in _cells(c, r)), bold=r.conclusion in _SHOWN) for r in c.results
    ]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex(_caption(c))}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"    \toprule",
        _latex_row(map(_latex, headings)),
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _headings(c: Comparison) -> list[str]:
    unit = f" ({c.test.unit})" if c.test.unit else ""
    points = " (points)" if c.test.is_share else ""
    return [
        "Optimizer",
        "n",
        f"Mean{unit}",
        f"Median{unit}",
        f"IQM{unit}",
        f"Minus {c.baseline.label}{points}",
        "p",
        "P(better)",
    ]


def _cells(c: Comparison, r: ArmResult) -> list[str]:
    return [
        r.arm.label,
        str(len(r.finished)),
        _with_interval(c, r.mean),
        _with_interval(c, r.median),
        _with_interval(c, r.iqm),
        _with_interval(c, r.versus.difference if r.versus else None, signed=True),
        write_p(r.p_value).removeprefix("p = ").removeprefix("p "),
        f"{r.improvement.value:.2f}" if r.improvement else "–",
    ]


def _with_interval(c: Comparison, estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "–"
    number = c.test.number(estimate.value, signed=signed)
    if not estimate.has_interval:
        return number
    low, high = (c.test.number(end, signed=signed) for end in (estimate.low, estimate.high))
    return f"{number} [{low}, {high}]"


def _caption(c: Comparison) -> str:
    trials = {c.sweep.plan(r.arm.name).trials * c.sweep.plan(r.arm.name).studies for r in c.results}
    budget = count(trials.pop(), "trial") if len(trials) == 1 else "an unequal number of trials"
    return (
        f"{c.test.label.capitalize()} of the replicates, {budget} an arm, the best chosen by "
        f"{c.validation.label}. In brackets: 95 % intervals. p: paired sign-flip test against "
        f"{c.baseline.label}, corrected after Holm; P(better): probability that a run is better than one of "
        f"{c.baseline.label}. "
        "Bold: interval and test agree on a difference, and no replicate of the better side diverged."
    )


def _marked(r: ArmResult, cell: str, before: str, after: str) -> str:
    return before + cell + after if r.conclusion in _SHOWN else cell


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Iterable[str], *, bold: bool = False) -> str:
    return "    " + " & ".join(rf"\textbf{{{cell}}}" if bold else cell for cell in cells) + r" \\"
