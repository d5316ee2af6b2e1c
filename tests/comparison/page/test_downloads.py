"""The files beside the page and inside it: the same numbers, in forms that other programs read."""

import base64
import csv
import io
import json
import re
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison.figures import SECTIONS, Picture, all_pictures, svg
from bbi_lightning.comparison.page.archive import figure_files, standalone, zipped
from bbi_lightning.comparison.page.gallery import Gallery
from bbi_lightning.comparison.page.page import csv_files, render_page, write_page
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.rich_sweep import rich
from tests.comparison.synthetic_sweep import realistic


@pytest.fixture(scope="module")
def page(comparison):
    return render_page(comparison)


@pytest.fixture(scope="module")
def archive(page):
    data = re.search(r'href="data:application/zip;base64,([^"]+)"', page)[1]
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(data)))


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


class TestTables:
    def test_hold_what_the_page_rests_on(self, comparison, tmp_path):
        page = write_page(comparison, tmp_path / "new" / "page.html")
        assert page.read_text().startswith("<!doctype html>")
        tables = {
            name: rows((page.parent / f"{name}.csv").read_text())
            for name in ("summary", "replicates", "trials")
        }
        assert len(tables["trials"]) == 64
        assert len(tables["replicates"]) == 40
        for row, result in zip(tables["summary"], comparison.results, strict=True):
            own = [r for r in tables["replicates"] if r["arm"] == row["arm"] and r["test/acc"]]
            assert float(row["mean"]) == pytest.approx(np.mean([float(r["test/acc"]) for r in own]))
            assert row["conclusion"] == result.conclusion
            chosen = [r for r in tables["trials"] if r["arm"] == row["arm"] and r["chosen"] == "True"]
            assert len(chosen) == 1
            assert json.loads(row["best_params"])["optim.lr"] == float(chosen[0]["optim.lr"])
        diverged = [r for r in tables["trials"] if r["state"] == "diverged"]
        assert diverged
        assert all(r["val/acc"] == "" for r in diverged)

    def test_go_into_the_sweeps_folder_by_default(self, tmp_path):
        folder = realistic(tmp_path / "digits", trials=2, logs=False)
        assert write_page(compare_sweep(read_sweep(folder))) == folder / "report.html"
        assert {p.name for p in folder.glob("*.csv")} == {"summary.csv", "replicates.csv", "trials.csv"}

    def test_inside_the_page_are_the_same_files(self, comparison, page):
        inside = re.findall(r'download="([^"]+)" href="data:text/csv;[^,]*base64,([^"]+)"', page)
        assert {name: base64.b64decode(data).decode() for name, data in inside} == csv_files(comparison)

    def test_two_sweeps_of_one_name_do_not_share_files(self, comparison):
        from bbi_lightning.comparison.suite import Suite

        odd = replace(comparison, sweep=replace(comparison.sweep, name="a/b"))
        names = set(csv_files(Suite((odd, odd, comparison))))
        assert len(names) == 9
        assert not any("/" in name for name in names)


class TestArchive:
    def test_has_every_figure_and_its_numbers(self, comparison, archive):
        pictures = all_pictures(comparison)
        expected = {f"{p.key}.svg" for p in pictures} | {f"{p.key}.csv" for p in pictures if p.data}
        assert set(archive.namelist()) == expected
        assert archive.testzip() is None
        for picture in pictures:
            if picture.data:
                assert len(rows(archive.read(f"{picture.key}.csv").decode())) == len(picture.data)

    def test_a_figure_stands_alone(self, archive):
        for name in archive.namelist():
            if name.endswith(".svg"):
                text = archive.read(name).decode()
                root = ET.fromstring(text)
                assert root.tag == "{http://www.w3.org/2000/svg}svg"
                assert root.get("width").endswith("pt")
                assert "var(" not in text
                assert "'DejaVu Sans'\"" not in text  # a font of last resort is named too
                assert "'DejaVu Sans';" not in text
        assert svg.LIGHT[0] in archive.read("outcomes.svg").decode()

    def test_numbers_are_those_of_the_runs(self, comparison, archive):
        got = rows(archive.read("outcomes.csv").decode())
        for r in comparison.results:
            values = sorted(float(row["value"]) for row in got if row["arm"] == r.arm.name)
            assert values == pytest.approx(sorted(run.final("test/acc") for run in r.finished))

    def test_a_bitmap_is_a_png_file(self):
        data = base64.b64encode(b"\x89PNG not really").decode()
        picture = Picture("big", "curves", "", "", "", draw=lambda style: None)
        vars(picture)["markup"] = f'<img class="on-white" alt="" src="data:image/png;base64,{data}">'
        assert figure_files([picture]) == {"big.png": b"\x89PNG not really"}

    def test_unknown_variables_are_left_for_the_eye(self):
        text = standalone('<svg viewBox="0 0 10 20"><g style="fill: var(--ink); stroke: var(--x)"/></svg>')
        assert f"fill: {svg.INK}" in text
        assert "var(--x)" in text
        assert 'width="10pt" height="20pt"' in text

    def test_depends_on_nothing_but_the_files(self):
        files = {"a.csv": b"1\n" * 1000, "b.svg": b"<svg/>"}
        assert zipped(files) == zipped(dict(files))
        assert zipfile.ZipFile(io.BytesIO(zipped(files))).read("a.csv") == files["a.csv"]


class TestGallery:
    def test_styles_become_classes_that_pictures_share(self):
        gallery = Gallery([])
        one = gallery.compact(
            '<svg viewBox="0 0 1 1">\n <g style="fill: red"/>\n <text x="1.23456">a b</text></svg>'
        )
        two = gallery.compact('<svg><g style="fill: red"/><g style="fill: blue"/></svg>')
        assert one == '<svg viewBox="0 0 1 1"><g class="p0"/><text x="1.23">a b</text></svg>'
        assert two == '<svg><g class="p0"/><g class="p1"/></svg>'
        assert gallery.css == "svg .p0 { fill: red }\nsvg .p1 { fill: blue }\n"

    def test_a_bitmap_is_left_alone(self):
        markup = '<img style="x" alt="a">\n'
        assert Gallery([]).compact(markup) == markup

    def test_no_section_is_missing(self):
        assert set(Gallery([]).sections([])) == set(SECTIONS)
        assert not any(Gallery([]).sections([]).values())


def test_the_runs_of_several_searches_say_which_they_are_of(tmp_path):
    files = csv_files(compare_sweep(read_sweep(rich(tmp_path / "s", trials=12))))
    for name, number in (("trials.csv", "trial"), ("replicates.csv", "replicate")):
        rows = list(csv.DictReader(io.StringIO(files[name])))
        assert {row["study"] for row in rows if row["arm"] == "bbi"} == {"1", "2"}
        for row in rows:
            if row["arm"] == "bbi":
                assert int(row["study"]) == int(row[number]) % 2 + 1
