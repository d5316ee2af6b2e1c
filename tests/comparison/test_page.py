"""The page: self-contained, true to the numbers, well-formed, and rendered by a real browser."""

import base64
import csv
import html
import io
import json
import math
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from bbi_lightning.comparison.figures import pictures as figures
from bbi_lightning.comparison.figures import svg
from bbi_lightning.comparison.figures.drawing import _pile, height, looks, zero_height
from bbi_lightning.comparison.page.page import render, write_report
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.tables import for_terminal
from bbi_lightning.comparison.verdict import verdict, warnings
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BROWSER = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
)  # fmt: skip
VOID = {"meta", "link", "img", "br", "path", "use", "rect", "line", "circle"}


def compared(folder, against=None):
    return compare_sweep(read_sweep(folder), against)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compared(realistic(tmp_path_factory.mktemp("sweeps") / "digits"))


@pytest.fixture(scope="module")
def page(comparison):
    return render(comparison)


class Outline(HTMLParser):
    """Checks nesting, and collects ids, headings, tables, links and what the page would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.headings, self.loads, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href", "data", "action") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def text_of(page):
    text = re.sub(r"<(style|svg|head)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


class TestPage:
    def test_says_the_verdict_with_its_intervals_and_every_warning(self, comparison, page):
        text = text_of(page)
        v = verdict(comparison)
        for sentence in (v.headline, v.status, *v.sentences, *warnings(comparison)):
            assert sentence in text

    def test_names_who_was_compared_under_what_budget(self, comparison, page):
        text = text_of(page)
        for words in (
            "lr: 0.05 to 0.8, log", "momentum: 0.8 to 0.99", "16 of 16", "12 finished, 3 diverged, 1 failed",
            "3f2a9c1", "AMD EPYC 7B13, 2 threads", "torch 2.15.0", "data=digits model=cnn",
            "maximizing val/acc; equal values by minimizing val/loss",
        ):  # fmt: skip
            assert words in text
        for result in comparison.results:
            assert comparison.validation.text(result.best.final("val/acc")) in text

    def test_lists_failures_and_divergence_by_arm(self, page):
        text = text_of(page)
        assert "3 trials diverged: 1 (lr 0.655); 9 (lr 0.561); 14 (lr 0.721)" in text
        assert "trial 3 failed: RuntimeError: DataLoader worker was killed" in text
        assert "1 replicate diverged: 4" in text
        assert "1 replicate not finished: 9" in text

    def test_shows_every_replicate(self, comparison, page):
        for result in comparison.results:
            for run in result.finished:
                assert f">{comparison.test.number(run.final('test/acc'))}</td>" in page

    def test_loads_nothing(self, page, outline):
        for target in outline.loads:
            assert target.startswith(("#", "data:"))
        assert not re.search(r"url\((?!#)", page)
        assert "@import" not in page
        assert "default-src 'none'" in page
        assert not [tag for tag, _ in outline.tags if tag in ("script", "iframe", "object", "embed")]

    def test_is_well_formed_with_unique_ids_that_all_links_reach(self, outline):
        assert outline.open == []
        own = [i for i in outline.ids if not re.fullmatch(r"[mpCh][0-9a-f]{8,}|[A-Z]\w*_\d+_[0-9a-f]+", i)]
        assert len(own) == len(set(own))
        for target in outline.loads:
            assert not target.startswith("#") or target[1:] in outline.ids

    def test_has_headings_in_order_landmarks_and_texts_for_pictures(self, outline):
        assert outline.headings[0] == 1
        assert outline.headings.count(1) == 1
        assert all(b <= a + 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
        tags = [tag for tag, _ in outline.tags]
        assert all(tags.count(landmark) == 1 for landmark in ("header", "main", "footer"))
        assert dict(outline.tags)["html"]["lang"] == "en"
        pictures = [attributes for tag, attributes in outline.tags if tag == "svg"]
        assert len(pictures) == 10
        assert all(p["role"] == "img" and len(p["aria-label"]) > 40 for p in pictures)
        assert all(a.get("scope") for tag, a in outline.tags if tag == "th")
        sections = [a for tag, a in outline.tags if tag == "section"]
        assert all(a["aria-labelledby"] in outline.ids for a in sections)

    def test_is_small_and_the_same_at_every_call(self, comparison, page):
        assert render(comparison) == page
        assert len(page.encode()) < 600_000

    def test_texts_of_the_runs_cannot_become_markup(self, tmp_path):
        evil = '<script>alert("1")</script>&amp;'
        arms = (replace(ARMS[0], label=evil), ARMS[2])
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=3).write()
        page = render(compared(folder))
        assert "<script" not in page
        assert html.escape(evil, quote=False) in page or html.escape(evil) in page
        assert Outline(page).open == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"replicates": 0},
            {"trials": 1, "replicates": 1},
            {"logs": False},
            {"arms": ARMS[1:3]},  # energy, but no bounces
            {"arms": (replace(ARMS[0], cliff=0.0), replace(ARMS[2], cliff=0.0))},
            {"replicates": 3, "planned_replicates": 0},
        ],
    )
    def test_a_sweep_with_little_in_it_has_a_page_too(self, tmp_path, changes):
        folder = SyntheticSweep(tmp_path / "s", **({"trials": 4} | changes)).write()
        c = compared(folder)
        outline = Outline(render(c))
        assert outline.open == []
        Console(file=io.StringIO()).print(for_terminal(c))

    def test_a_loss_as_the_objective(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=4).write()
        spec = json.loads((folder / "sweep.yaml").read_text())
        spec["objective"] = {"metric": "val/loss", "direction": "minimize", "tie_breaker": None}
        (folder / "sweep.yaml").write_text(json.dumps(spec))
        text = text_of(render(compared(folder)))
        assert "Test loss of the replicates" in text
        assert "points" not in text.replace("Below the points", "").replace("percentage points", "")


class TestFiles:
    def test_csv_files_hold_what_the_page_rests_on(self, comparison, tmp_path):
        page = write_report(comparison, tmp_path / "new" / "page.html")
        assert page.read_text().startswith("<!doctype html>")
        tables = {
            name: list(csv.DictReader(io.StringIO((page.parent / f"{name}.csv").read_text())))
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

    def test_goes_into_the_sweeps_folder_by_default(self, tmp_path):
        folder = realistic(tmp_path / "digits", trials=2, logs=False)
        assert write_report(compared(folder)) == folder / "report.html"
        assert {p.name for p in folder.glob("*.csv")} == {"summary.csv", "replicates.csv", "trials.csv"}

    def test_downloads_inside_the_page_are_the_same_files(self, comparison, page, tmp_path):
        write_report(comparison, tmp_path / "page.html")
        for name, data in re.findall(r'download="([^"]+)" href="data:text/csv;[^,]*base64,([^"]+)"', page):
            assert base64.b64decode(data) == (tmp_path / name).read_bytes()

    def test_the_terminal_shows_the_same_at_80_columns(self, comparison):
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(for_terminal(comparison))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= 80
        assert " ".join(text.split()).count(verdict(comparison).headline) == 1
        for result in comparison.results:
            assert comparison.test.number(result.mean.value) in text
            assert comparison.test.interval(result.mean) in text


class TestPictures:
    def test_an_arm_looks_the_same_on_every_page(self):
        names = [type("A", (), {"name": n}) for n in ("adamw", "mine", "bbi", "other", "sgd")]
        some, few = looks(names), looks(names[2:3])
        assert some["bbi"] == few["bbi"]
        assert len({look.slot for look in some.values()}) == 5

    @pytest.mark.parametrize(
        ("colours", "paper"),
        [(svg.LIGHT, (1, 1, 1)), (svg.DARK, tuple(int(h, 16) / 255 for h in ("15", "17", "1b")))],
    )
    def test_colours_stand_out_from_the_page(self, colours, paper):
        def luminance(rgb):
            linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
            return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

        assert len(set(colours)) == len(svg.LIGHT)
        for colour in colours:
            rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            low, high = sorted([luminance(rgb), luminance(paper)])
            assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 1.4.11, graphics

    def test_colours_are_left_to_the_page(self, comparison):
        markup = figures.outcomes(comparison).markup
        assert "var(--arm-0)" in markup
        assert "var(--ink)" in markup
        assert not any(colour in markup for colour in (*svg.LIGHT, svg.INK, svg.PAPER))

    def test_every_run_is_in_the_pictures(self, comparison):
        outcomes = figures.outcomes(comparison).markup
        finished = sum(len(r.finished) for r in comparison.results)
        assert len(re.findall(r"<use ", outcomes)) >= finished
        for result, picture in zip(comparison.results, figures.sensitivities(comparison), strict=True):
            trials = result.count("search", "finished", "diverged")
            assert len(re.findall(r"<use ", picture.markup)) >= trials - 1
            assert f"{result.count('search', 'diverged')} diverged" in picture.description

    def test_accuracies_are_drawn_as_error_rates_and_zero_error_stays_visible(self, comparison):
        assert height([0.99, 1.0], comparison.test) == pytest.approx([1.0, 0.0])
        assert height([0.5], None) == pytest.approx([0.5])
        assert zero_height([0.0, 0.4, math.nan]) == 0.2
        assert zero_height([0.0]) > 0

    def test_a_saturated_metric_does_not_stretch_the_axes(self, tmp_path):
        """All trials at 100 %: the error is zero but for rounding, which must not become 14 decades."""
        arms = tuple(replace(arm, test_error=0.0, cliff=math.inf) for arm in ARMS[:2])
        c = compared(SyntheticSweep(tmp_path / "s", arms=arms).write())
        for picture in (figures.tuning(c), figures.validation_curve(c), *figures.sensitivities(c)):
            assert "10⁻¹" not in picture.markup

    def test_equal_values_are_piled_up_even_if_rounding_split_them(self):
        values = np.array([0.2777777, 0.2777779, 0.5555555, 0.2777778])
        assert len(set(_pile(values)[[0, 1, 3]])) == 3
        assert _pile(values)[2] == _pile(values)[0]
        assert _pile(np.array([1.0, 1.0])).tolist() != [0, 0]

    def test_a_picture_with_very_many_points_becomes_a_bitmap(self, monkeypatch, comparison):
        monkeypatch.setattr(svg, "_MAX_SVG", 2000)
        markup = figures.training_loss(comparison).markup
        assert markup.startswith('<img class="on-white" alt="')
        assert "data:image/png;base64," in markup

    def test_energy_is_shown_for_the_middle_replicate(self, comparison):
        picture = figures.telemetry(comparison)
        result = comparison.result("bbi")
        ranked = sorted(run.final("test/acc") for run in result.finished)
        run = next(run for run in result.finished if f"seed {run.seed};" in picture.caption)
        assert run.final("test/acc") == ranked[4]
        assert "the 4 bounces" in picture.caption


def test_a_thousand_runs_make_a_page_in_seconds(tmp_path):
    folder = SyntheticSweep(tmp_path / "large", trials=240, replicates=10).write()
    start = time.process_time()
    page = write_report(compared(folder))
    assert time.process_time() - start < 10
    assert page.stat().st_size < 3_000_000


def browse(folder, document, *options):
    """What Chromium prints, and the lines of its console."""
    file = folder / "document.html"
    file.write_text(document)
    result = subprocess.run(
        [CHROMIUM, *BROWSER, f"--user-data-dir={folder / 'profile'}", *options, file.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install it to test how the page renders")
class TestInABrowser:
    # the page stands in a frame of a phone's width: a window cannot be so narrow
    FRAME = """<!doctype html><body><iframe id="f" style="width:{width}px;height:40000px;border:0"
      srcdoc="{page}"></iframe><script>addEventListener("load", () => {{
      const root = f.contentDocument.documentElement, box = e => e.getBoundingClientRect();
      const all = [...f.contentDocument.querySelectorAll("main *")];
      const out = all.filter(e => box(e).right > {width} + 1 && !e.closest(".scroll, thead, svg"));
      document.title = JSON.stringify({{inner: f.contentWindow.innerWidth, scroll: root.scrollWidth,
        out: out.map(e => e.tagName), ink: getComputedStyle(root).getPropertyValue("--ink"),
        drawn: all.filter(e => e.tagName == "svg" && box(e).height > 80).length}})
      }})</script>"""

    def measure(self, folder, page, width, *options):
        document = self.FRAME.format(width=width, page=html.escape(page))
        dom, console = browse(folder, document, "--window-size=1400,900", "--dump-dom", *options)
        return json.loads(html.unescape(re.search("<title>([^<]*)", dom)[1])), console

    @pytest.mark.parametrize("width", [320, 390, 840, 1280])
    def test_nothing_scrolls_sideways(self, tmp_path, page, width):
        seen, console = self.measure(tmp_path, page, width)
        assert seen["inner"] == width
        assert seen["scroll"] <= width
        assert seen["out"] == []
        assert seen["drawn"] == 10
        assert console == []

    def test_nor_with_long_names_and_many_arms(self, tmp_path):
        arms = tuple(
            replace(arm, name=f"{arm.name}{i}", label=f"{arm.label} with a long name {i}")
            for i in range(2)
            for arm in ARMS
        )
        folder = SyntheticSweep(
            tmp_path / "a_sweep_with_a_rather_long_name_too", arms=arms, trials=40
        ).write()
        seen, _ = self.measure(tmp_path, render(compared(folder, "sgd0")), 390)
        assert seen["scroll"] <= 390
        assert seen["out"] == []

    def test_dark_where_the_reader_wants_it(self, tmp_path, page):
        light, _ = self.measure(tmp_path, page, 800)
        dark, _ = self.measure(tmp_path, page, 800, "--blink-settings=preferredColorScheme=0")
        assert light["ink"].strip() == "#1b1c1f"
        assert dark["ink"].strip() == "#e7e8ea"

    def test_opens_without_a_word_on_the_console(self, tmp_path, page):
        dom, console = browse(tmp_path, page, "--dump-dom")
        assert "How to read this page" in dom
        assert console == []
