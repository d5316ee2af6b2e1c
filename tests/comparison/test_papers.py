"""Tables for papers say the numbers of the comparison and survive the arms' names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bbi_lightning.comparison.papers import latex_table, markdown_table
from bbi_lightning.comparison.results import Comparison, compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """AdamW is far better than SGD, BBI is not told from it and has an awkward name."""
    adamw, sgd, bbi = (next(a for a in ARMS if a.name == name) for name in ("adamw", "sgd", "bbi"))
    arms = (replace(bbi, label="BBI_10% | n^2", test_error=0.06), replace(sgd, test_error=0.06), adamw)
    folder = tmp_path_factory.mktemp("papers") / "digits"
    return compare_sweep(read_sweep(SyntheticSweep(folder, arms=arms, trials=5, logs=False).write()))


def test_the_table_has_the_comparisons_numbers(comparison: Comparison):
    adamw = comparison.result("adamw")
    line = next(line for line in markdown_table(comparison).splitlines() if "AdamW" in line)
    cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
    mean, low, high = (100 * x for x in (adamw.mean.value, adamw.mean.low, adamw.mean.high))
    assert cells[:3] == ["AdamW", "10", f"{mean:.2f} [{low:.2f}, {high:.2f}]"]
    assert cells[-1] == f"{adamw.improvement.value:.2f}"
    assert cells[-3].startswith(f"+{100 * adamw.versus.difference.value:.2f} [+")


def test_only_a_shown_difference_is_bold(comparison: Comparison):
    assert [r.conclusion for r in comparison.results] == ["undecided", "baseline", "better"]
    bold = [line for line in markdown_table(comparison).splitlines() if "**" in line]
    assert len(bold) == 1
    assert "AdamW" in bold[0]
    assert latex_table(comparison).count(r"\textbf{AdamW}") == 1
    assert r"\textbf{SGD}" not in latex_table(comparison)


def test_names_cannot_break_the_table(comparison: Comparison):
    rows = [line for line in markdown_table(comparison).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    latex = latex_table(comparison)
    assert r"BBI\_10\% | n\textasciicircum{}2 &" in latex
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body.strip().splitlines()] == [7, 7, 7]
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert latex.isascii()


def test_the_caption_says_what_a_reader_must_know(comparison: Comparison):
    caption = markdown_table(comparison).splitlines()[-1]
    assert "5 trials an arm" in caption
    assert "validation accuracy" in caption
    assert "against SGD, corrected after Holm" in caption


def test_what_is_missing_is_a_dash(tmp_path: Path):
    folder = SyntheticSweep(tmp_path / "new", trials=4, replicates=0, logs=False).write()
    table = markdown_table(compare_sweep(read_sweep(folder)))
    assert "| BBI | 0 | – | – | – | – | – | – |" in table
