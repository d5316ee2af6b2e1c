"""The table of every run: its data, and how it is searched, filtered, sorted and shown."""

import csv
import io
import json

import pytest

from bbi_lightning.comparison.page.every_run import every_run
from bbi_lightning.comparison.page.page import csv_files, render_page, write_page
from bbi_lightning.comparison.provenance import oddities
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.page.explorer import NAMES, head, said, search, select, table
from tests.comparison.page.outline import columns_of, inside
from tests.comparison.synthetic_sweep import SyntheticSweep


def compared(folder):
    return compare_sweep(read_sweep(folder))


@pytest.fixture(scope="module")
def page(comparison):
    return render_page(comparison)


class TestData:
    def test_has_every_run_with_its_numbers(self, comparison, page):
        content = inside(page)
        columns = {column["name"]: column for column in content["columns"]}
        assert all(len(c["values"]) == len(comparison.sweep.runs) for c in content["columns"])
        names = [columns["Run"]["words"][place] for place in columns["Run"]["values"]]
        by_name = dict(zip(names, range(len(names)), strict=True))
        for r in comparison.results:
            for run in (*r.trials, *r.replicates):
                row = by_name[run.name]
                assert columns["Arm"]["words"][columns["Arm"]["values"][row]] == r.arm.label
                assert columns["State"]["words"][columns["State"]["values"][row]] == run.state
                assert columns["lr"]["values"][row] == pytest.approx(run.params["optim.lr"], rel=5e-3)
                value = columns["test/acc, %"]["values"][row]
                if run.state == "finished":
                    assert f"{value:.2f}" == comparison.test.number(run.final("test/acc"))
                else:
                    assert value is None
        assert sorted(names[row] for row in content["chosen"]) == sorted(
            r.best.name for r in comparison.results
        )
        assert content["marked"] == []

    def test_a_choice_is_a_word_and_a_missing_parameter_is_empty(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=3, replicates=1).write()
        for file in (folder / "runs").glob("*adamw*/run.json"):
            record = json.loads(file.read_text())
            record["labels"]["params"]["optim.amsgrad"] = "yes"
            file.write_text(json.dumps(record))
        columns = columns_of(compared(folder))
        assert set(columns["amsgrad"]["words"]) == {"", "yes"}
        assert None in columns["momentum"]["values"]

    def test_code_and_hardware_are_columns_only_where_they_differ(self, comparison, tmp_path):
        assert not {"Code", "Hardware"} & set(columns_of(comparison))
        folder = SyntheticSweep(tmp_path / "s", trials=2, commits={"sgd": "ab" * 20}).write()
        assert "Code" in columns_of(compared(folder))

    def test_runs_trained_otherwise_than_their_arm_are_marked(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=4, replicates=2).write()
        odd = next((folder / "runs").glob("*sgd*s1001"))
        record = json.loads((odd / "run.json").read_text())
        record["overrides"] += ["+data.batch_size=128", "runtime.threads=7"]
        (odd / "run.json").write_text(json.dumps(record))
        c = compared(folder)
        assert {path.name for r in c.results for path in oddities(r.arm, c.sweep.runs)} >= {odd.name}
        names = columns_of(c)["Run"]
        marked = json.loads(every_run([c]))["marked"]
        assert [names["words"][names["values"][row]] for row in marked] == [odd.name]
        assert "data.batch_size 128, others –" in columns_of(c)["Notes"]["words"]


class TestOnThePage:
    def test_shows_the_numbers_of_the_files(self, opened, comparison):
        opened.run('[...document.querySelectorAll(".more button")].at(-1)?.click()')
        rows = {row["Run"]: row for row in table(opened)}
        files = csv_files(comparison)
        known = [
            row
            for name in ("trials.csv", "replicates.csv")
            for row in csv.DictReader(io.StringIO(files[name]))
        ]
        assert len(rows) == len(known) == 104
        for row in known:
            shown = rows[row["run"]]
            assert shown["State"] == row["state"]
            value = row.get("val/acc")
            assert shown["val/acc, %"] == (f"{100 * float(value):.2f}" if value else "")
            if row.get("optim.lr"):
                assert float(shown["lr"]) == pytest.approx(float(row["optim.lr"]), rel=5e-3)

    def test_is_shown_in_parts(self, opened):
        assert said(opened) == "104 runs, the first 50 are shown."
        assert len(table(opened)) == 50
        opened.click(".more button")
        assert len(table(opened)) == 104
        assert said(opened) == "104 runs."
        assert opened.run('document.querySelectorAll(".more button").length') == 0

    def test_filters_by_arm_phase_and_state(self, opened):
        select(opened, "Arm", "SGD")
        rows = table(opened)
        assert {row["Arm"] for row in rows} == {"SGD"}
        assert said(opened) == "26 of 104 runs match."
        select(opened, "Phase", "search")
        assert said(opened) == "16 of 104 runs match."
        select(opened, "State", "failed")
        (row,) = table(opened)
        assert (row["No."], row["State"]) == ("3", "failed")
        select(opened, "Arm", "ECDSep")
        assert said(opened) == "No run matches, of 104."
        select(opened, "Arm", "all")
        assert {row["Arm"] for row in table(opened)} == {"BBI", "SGD"}

    def test_leaves_out_the_parameters_of_other_arms(self, opened):
        assert "momentum" in opened.run(NAMES)
        select(opened, "Arm", "BBI")
        assert "momentum" not in opened.run(NAMES)
        assert "lr" in opened.run(NAMES)

    def test_searches_words_and_limits(self, opened):
        search(opened, "bbi diverged")
        rows = table(opened)
        assert len(rows) == 3
        assert {(row["Arm"], row["State"]) for row in rows} == {("BBI", "diverged")}
        search(opened, "lr<0.001")
        assert rows != (found := table(opened))
        assert found
        assert all(float(row["lr"]) < 0.001 for row in found)
        search(opened, "momentum>=0.9 val/acc<98")
        found = table(opened)
        assert found
        assert all(float(r["momentum"]) >= 0.9 and float(r["val/acc, %"]) < 98 for r in found)
        search(opened, "no such run")
        assert said(opened) == "No run matches, of 104."
        search(opened, "")
        assert said(opened).startswith("104 runs")

    def test_sorts_by_any_column_what_is_missing_last(self, opened):
        opened.run('[...document.querySelectorAll(".more button")].at(-1).click()')
        for name, descending in (("val/acc, %", False), ("val/acc, %", True)):
            head(opened, name)
            opened.click("#now")
            opened.run('[...document.querySelectorAll(".more button")].at(-1)?.click()')
            values = [float(v) if (v := row[name]) else None for row in table(opened)]
            present = [v for v in values if v is not None]
            assert values[: len(present)] == sorted(present, reverse=descending)
            assert 0 < len(present) < len(values)
            sort = 'document.getElementById("now").closest("th").getAttribute("aria-sort")'
            assert opened.run(sort) == ("descending" if descending else "ascending")
        head(opened, "Arm")
        opened.run('document.getElementById("now").focus()')
        opened.press("Enter")
        arms = [row["Arm"] for row in table(opened)]
        assert arms == sorted(arms, key=str.lower)
        others = """[...document.querySelectorAll(".every-run th")]
            .filter((t) => t.getAttribute("aria-sort") !== "none").length"""
        assert opened.run(others) == 1
        assert opened.run("document.activeElement.id") == "now"  # the reader's place is kept

    def test_the_chosen_are_set_off(self, opened, comparison):
        opened.run('[...document.querySelectorAll(".more button")].at(-1).click()')
        chosen = opened.run('[...document.querySelectorAll(".every-run .chosen")].map((r) => r.cells.length)')
        assert len(chosen) == len(comparison.results)
        assert sum("chosen" in row["Notes"] for row in table(opened)) == len(comparison.results)


@pytest.mark.slow
def test_a_thousand_runs_stay_responsive(tab, tmp_path):
    folder = SyntheticSweep(tmp_path / "large", trials=240, replicates=10).write()
    file = write_page(compare_sweep(read_sweep(folder)), tmp_path / "page.html")
    assert file.stat().st_size < 3_000_000
    tab.open(file)
    timing = tab.run('performance.getEntriesByType("navigation")[0].loadEventEnd')
    assert timing < 4000
    assert said(tab) == "1000 runs, the first 50 are shown."
    # from the change of a filter to the table laid out again
    spent = tab.run(
        """(() => { const select = document.querySelector(".filters select"), start = performance.now();
        select.value = "0"; select.dispatchEvent(new Event("change", {bubbles: true}));
        document.body.offsetHeight; return performance.now() - start; })()"""
    )
    assert said(tab) == "250 of 1000 runs match, the first 50 are shown."
    assert spent < 500
    head(tab, "val/acc, %")
    spent = tab.run(
        """(() => { const start = performance.now(); document.getElementById("now").click();
        document.body.offsetHeight; return performance.now() - start; })()"""
    )
    assert spent < 500
