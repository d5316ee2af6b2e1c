"""What the terminal shows fits it, and is what the comparison says."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bbi_lightning.comparison.audit import Finding
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.suite import Suite, compare_suite, read_suite, sentences_over_tasks
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.terminal import ForTerminal, for_terminal
from bbi_lightning.comparison.verdict import verdict
from tests.comparison.rich_sweep import rich
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic

WIDTHS = [80, 90, 100, 110, 120, 140, 160, 180, 200]


def shown(what, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(what, highlight=False)
    return console.file.getvalue()


def task(folder: Path, data: str, **changes) -> Path:
    """The same four arms on another task."""
    SyntheticSweep(folder, **changes).write()
    spec = json.loads((folder / "sweep.yaml").read_text())
    spec["base"][0] = f"data={data}"
    (folder / "sweep.yaml").write_text(json.dumps(spec))
    return folder


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compare_sweep(read_sweep(realistic(tmp_path_factory.mktemp("sweep") / "digits")))


@pytest.fixture(scope="module")
def searched_twice(tmp_path_factory):
    return compare_sweep(read_sweep(rich(tmp_path_factory.mktemp("sweep") / "rich")))


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Suite:
    root = tmp_path_factory.mktemp("suite")
    harder = tuple(replace(arm, test_error=3 * arm.test_error) for arm in ARMS)
    folders = [
        task(root / "digits", "digits"),
        task(root / "cifar", "cifar10", arms=harder, seed=3),
        task(root / "mnist", "mnist", seed=5, replicates=4),
    ]
    return compare_suite(read_suite(folders))


class TestOneTask:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_fits_and_says_everything(self, comparison, width):
        text = shown(for_terminal(comparison), width)
        assert max(map(len, text.splitlines())) <= width
        flat = " ".join(text.split())
        assert verdict(comparison).headline in flat
        assert verdict(comparison).status in flat
        for r in comparison.results:
            assert comparison.test.number(r.mean.value) in text
            assert comparison.test.interval(r.mean) in text
            if r.versus:
                assert comparison.test.interval(r.versus.difference, signed=True) in text

    def test_says_more_where_there_is_room(self, comparison):
        columns = [
            {
                title
                for title in ("P(better)", "best at", "trials", "effect", "median", "IQM")
                if title in head
            }
            for width in WIDTHS
            for head in [
                next(
                    line
                    for line in shown(comparison_(comparison), width).splitlines()
                    if "conclusion" in line
                )
            ]
        ]
        assert columns[0] == set()
        assert {"P(better)", "best at", "trials", "effect"} <= columns[-1]
        assert sorted(map(len, columns)) == list(map(len, columns))

    def test_the_improvement_is_that_of_the_comparison(self, comparison):
        text = shown(for_terminal(comparison), 160)
        for r in comparison.contestants:
            e = r.improvement
            assert f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})" in text

    def test_lost_replicates_show_in_n(self, comparison):
        line = next(
            line for line in shown(for_terminal(comparison), 120).splitlines() if line.startswith("ECDSep")
        )
        assert " 9/10 " in line

    def test_doubts_carry_their_remedies_and_are_not_endless(self, comparison):
        doubts = [Finding("warning", "x", f"Doubt {i}.", "Do `this`.") for i in range(40)]
        text = shown(ForTerminal(comparison, [Finding("error", "y", "Wrong."), *doubts]), 80)
        assert "! Wrong." in text
        assert "! Doubt 10. Do `this`." in text
        assert "Doubt 11." not in text
        assert "and 29 more: bbi audit lists them" in text
        assert "!" not in shown(ForTerminal(comparison, []), 80)

    def test_markup_in_names_is_text(self, tmp_path):
        arms = (replace(ARMS[0], label="BBI [red]x[/red]"), ARMS[2])
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=3, replicates=3).write()
        assert "BBI [red]x[/red]" in shown(for_terminal(compare_sweep(read_sweep(folder))), 120)

    def test_a_long_label_does_not_widen_it(self, tmp_path):
        arms = (
            replace(ARMS[0], label="Born-Infeld with a very long explanation of what is meant " * 2),
            ARMS[2],
        )
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=3, replicates=3).write()
        text = shown(for_terminal(compare_sweep(read_sweep(folder))), 80)
        assert max(map(len, text.splitlines())) <= 80

    @pytest.mark.parametrize(
        "changes", [{"replicates": 0}, {"replicates": 1}, {"trials": 1, "replicates": 2}]
    )
    def test_a_sweep_with_little_in_it(self, tmp_path, changes):
        folder = SyntheticSweep(tmp_path / "s", **changes).write()
        text = shown(for_terminal(compare_sweep(read_sweep(folder))), 80)
        assert "conclusion" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_a_loss_is_written_as_a_number(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=4, replicates=4).write()
        spec = json.loads((folder / "sweep.yaml").read_text())
        spec["objective"] = {"metric": "val/loss", "direction": "minimize"}
        (folder / "sweep.yaml").write_text(json.dumps(spec))
        for file in folder.glob("runs/*/run.json"):
            record = json.loads(file.read_text())
            record["summary"]["test/loss"] = record["summary"].get("val/loss", 0.1)
            file.write_text(json.dumps(record))
        text = shown(for_terminal(compare_sweep(read_sweep(folder))), 100)
        assert "test loss" in text
        assert "points" not in next(line for line in text.splitlines() if "conclusion" in line)

    def test_imported_runs_are_marked(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=3, replicates=3).write()
        for file in folder.glob("runs/*adamw*/run.json"):
            record = json.loads(file.read_text())
            record["labels"]["imported"] = {"from": "W&B export", "when": "2026-01-01", "by": "x"}
            file.write_text(json.dumps(record))
        text = shown(for_terminal(compare_sweep(read_sweep(folder))), 100)
        assert "AdamW †" in text
        assert "BBI †" not in text
        assert "† imported from" in text


def comparison_(c):
    return ForTerminal(c, [])


class TestSeveralSearches:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_fits(self, searched_twice, width):
        text = shown(for_terminal(searched_twice), width)
        assert max(map(len, text.splitlines())) <= width
        assert "2 searches of 24 trials an arm" in " ".join(text.split())

    def test_each_search_has_a_row_with_its_own_mean(self, searched_twice):
        c = searched_twice
        lines = [
            line.split() for line in shown(comparison_(c), 80).splitlines() if line.startswith("  search")
        ]
        assert len(lines) == 4
        expected = [
            [run.final("test/acc") for run in r.finished if run.study == study]
            for r in c.results
            for study in (0, 1)
        ]
        for line, values in zip(lines, expected, strict=True):
            assert line[2] == (c.test.number(float(np.mean(values))) if values else "–")
            assert line[3:4] == ([str(len(values))] if values else [])

    def test_one_search_has_no_rows_of_its_own(self, comparison):
        assert "search 1" not in shown(for_terminal(comparison), 120)


class TestSeveralTasks:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_fits_and_says_what_holds_over_all(self, suite, width):
        text = shown(for_terminal(suite), width)
        assert max(map(len, text.splitlines())) <= width
        assert "3 tasks: digits, cifar, mnist" in text
        percent = suite.comparisons[0].test
        for arm in suite.over_tasks:
            assert percent.number(arm.iqm.value) in text
            if arm.difference:
                assert percent.interval(arm.difference, signed=True) in text
        assert all(c.sweep.name in text for c in suite.comparisons)

    def test_concludes_as_the_suites_sentences_do(self, suite):
        table = shown(for_terminal(suite), 160).split("▲ better")[0]
        for sentence in sentences_over_tasks(suite):
            arm, conclusion = re.fullmatch(r"(\S+) minus .* Over all tasks: (.*)\.", sentence).groups()
            (line,) = [line for line in table.splitlines() if line.startswith(arm)]
            assert line.rstrip().endswith(conclusion.replace("is shown", "shown"))

    def test_marks_are_each_tasks_own_verdict(self, suite):
        table = shown(for_terminal(suite), 110).split("▲ better")[0]
        for arm in suite.over_tasks:
            (line,) = [line for line in table.splitlines() if line.startswith(arm.arm.label)]
            for c in suite.comparisons:
                mark = {"better": " ▲", "worse": " ▼", "undecided": " ·"}.get(
                    c.result(arm.arm.name).conclusion, ""
                )
                assert c.test.text(c.result(arm.arm.name).mean.value) + mark in line

    def test_many_tasks_are_counted_where_they_do_not_fit(self, tmp_path):
        folders = [
            task(
                tmp_path / f"a_rather_long_name_{i}",
                f"d{i}",
                trials=2,
                replicates=6,
                logs=False,
                arms=ARMS[1:],
                seed=i,
            )
            for i in range(8)
        ]
        text = shown(for_terminal(compare_suite(read_suite(folders))), 80)
        assert max(map(len, text.splitlines())) <= 80
        (line,) = [line for line in text.split("▲ better")[0].splitlines() if line.startswith("AdamW")]
        assert sum(int(n) for n in re.findall(r"(\d+)[▲·▼]", line)) == 8

    def test_one_task_has_no_table_over_tasks(self, comparison):
        assert "over all" not in shown(for_terminal(Suite((comparison,))), 120)

    def test_tasks_without_results_are_said_to_have_none(self, tmp_path):
        folders = [task(tmp_path / "a", "a", replicates=0), task(tmp_path / "b", "b")]
        assert "No arm has finished replicates in every task yet" in shown(
            for_terminal(compare_suite(read_suite(folders))), 100
        )


def test_labels_are_no_markup(tmp_path: Path):
    arms = [replace(arm, label=f"{arm.label} [red]") for arm in ARMS]
    folders = [task(tmp_path / f"{data} [blue]", data, arms=tuple(arms)) for data in ("digits", "letters")]
    text = shown(for_terminal(compare_suite(read_suite(folders))), 200).replace(
        "ECDSep, SGD and", ""
    )  # a title
    assert text.count("SGD [red]") == text.count("SGD") > 4
    assert "letters [blue]" in text
    assert text.count("minus SGD [red]") == 3
