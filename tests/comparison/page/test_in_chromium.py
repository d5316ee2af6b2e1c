"""The page as readers have it: rendered, clicked, typed into, printed; with scripts and without."""

import csv
import io
import json
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from bbi_lightning.comparison.figures import all_pictures, svg
from bbi_lightning.comparison.page.gallery import Gallery
from bbi_lightning.comparison.page.page import csv_files, write_page
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.suite import compare_suite, read_suite
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.page.browser import CHROMIUM, Browser
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install it to test how the page renders"
)

# every text that can be seen, with the contrast of its colour to what lies behind it
CONTRASTS = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const parse = (colour, under) => {
    canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = (e) => {
    const chain = []; for (; e; e = e.parentElement) chain.unshift(e);
    return chain.reduce((under, e) => parse(getComputedStyle(e).backgroundColor, under), [255, 255, 255]);
  };
  const light = (rgb) => rgb.map((c) => c / 255)
    .map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
    const text = walker.currentNode.data.trim();
    if (!text || !box.width || style.visibility === "hidden" || box.right < 0) continue;
    if (e.closest("script, style")) continue;
    const under = behind(e), over = parse(e.closest("svg") ? style.fill : style.color, under);
    const [a, b] = [light(under), light(over)].sort((x, y) => y - x);
    found.push([Math.round(100 * (a + .05) / (b + .05)) / 100, !!e.closest("svg"), text]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""
OUTSIDE = """(() => {
  const wide = document.documentElement.clientWidth;
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > wide + 1 && !e.closest(".scroll > *, .cards thead, svg"))
    .map((e) => e.outerHTML.slice(0, 120));
})()"""
ROWS = """[...document.querySelectorAll(".every-run tbody tr")]
  .map((row) => [...row.cells].map((cell) => cell.textContent))"""
NAMES = """[...document.querySelectorAll(".every-run thead th:not([hidden])")].map((th) => th.textContent)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compare_sweep(read_sweep(realistic(tmp_path_factory.mktemp("sweeps") / "digits")))


@pytest.fixture(scope="module")
def file(comparison, tmp_path_factory):
    return write_page(comparison, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def page(browser):
    page = browser.page()
    page.media()
    yield page
    page.close()


@pytest.fixture
def opened(page, file):
    page.open(file)
    return page


def table(page):
    """The rows of the table of every run that are in the document, as dictionaries."""
    names = page.run(NAMES)
    return [dict(zip(names, row, strict=True)) for row in page.run(ROWS)]


def select(page, label, option):
    """Choose in one of the filters."""
    page.run(
        f"""(() => {{ const label = [...document.querySelectorAll(".filters label")]
        .find((l) => l.textContent.startsWith("{label}")), select = label.querySelector("select");
        select.value = [...select.options].find((o) => o.text === "{option}").value;
        select.dispatchEvent(new Event("change", {{bubbles: true}})); }})()"""
    )


def search(page, text):
    """Type into the search box, and wait until the table has followed."""
    page.run(
        'document.getElementById("run-search").value = ""; document.getElementById("run-search").focus()'
    )
    page.write(text) if text else page.run(
        'document.getElementById("run-search").dispatchEvent(new Event("input"))'
    )
    page.run("new Promise((done) => setTimeout(done, 250))")


def said(page):
    return page.run('document.getElementById("run-count").textContent')


def head(page, name):
    """Makes the button of a column's head reachable as `#now`."""
    page.run(
        f"""(() => {{ document.getElementById("now")?.removeAttribute("id");
        [...document.querySelectorAll(".every-run thead button")]
        .find((b) => b.textContent === "{name}").id = "now";
        }})()"""
    )


class TestLayout:
    @pytest.mark.parametrize("width", [320, 390, 840, 1280])
    def test_nothing_scrolls_sideways(self, opened, width):
        opened.resize(width)
        assert opened.run("document.documentElement.scrollWidth") <= width
        assert opened.run(OUTSIDE) == []

    def test_nor_with_long_names_and_many_arms(self, page, tmp_path):
        arms = tuple(
            replace(arm, name=f"{arm.name}{i}", label=f"{arm.label} with a long name {i}")
            for i in range(2)
            for arm in ARMS
        )
        name = "a_sweep_with_a_rather_long_name_that_goes_on_and_on"
        folder = SyntheticSweep(tmp_path / name, arms=arms, trials=8, replicates=4).write()
        page.open(write_page(compare_sweep(read_sweep(folder), "sgd0")))
        for width in (390, 1280):
            page.resize(width)
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run(OUTSIDE) == []

    def test_nor_with_several_tasks(self, page, tmp_path):
        folders = []
        for seed, name in enumerate(("alpha", "beta")):
            folder = SyntheticSweep(tmp_path / name, trials=4, replicates=4, seed=seed).write()
            spec = json.loads((folder / "sweep.yaml").read_text())
            (folder / "sweep.yaml").write_text(json.dumps(spec | {"base": [f"data={name}"], "title": name}))
            folders.append(folder)
        page.open(write_page(compare_suite(read_suite(folders)), tmp_path / "page.html"))
        page.resize(390)
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.run(OUTSIDE) == []
        select(page, "Task", "beta")
        assert {row["Task"] for row in table(page)} == {"beta"}
        assert page.complaints() == []

    def test_opens_in_silence_and_asks_for_nothing(self, opened, file):
        assert opened.complaints() == []
        outside = [u for u in opened.requests() if not u.startswith(("data:", "blob:"))]
        assert outside == [file.as_uri()]

    @pytest.mark.parametrize("colours", ["light", "dark"])
    def test_text_is_readable(self, opened, colours):
        opened.media(colours=colours)
        contrasts = opened.run(CONTRASTS)
        assert len(contrasts) > 500
        assert [c for c in contrasts if not c[1] and c[0] < 4.5] == []
        assert [c for c in contrasts if c[1] and c[0] < 3.0] == []

    def test_pictures_are_drawn(self, opened):
        heights = opened.run(
            """[...document.querySelectorAll("figure")].filter((f) => f.offsetParent)
            .map((f) => f.querySelector("svg, img").getBoundingClientRect().height)"""
        )
        assert len(heights) >= 10
        assert min(heights) > 80


class TestPictures:
    def test_look_the_same_in_fewer_bytes(self, page, comparison, tmp_path):
        """Before and after their styles have become classes, pixel by pixel."""
        pictures = [
            p for p in all_pictures(comparison) if p.key in ("outcomes", "loss", "telemetry-bbi", "tuning")
        ]
        assert len(pictures) >= 3
        gallery, images = Gallery(pictures), []
        small = [gallery.compact(picture.markup) for picture in pictures]
        assert sum(map(len, small)) < 0.7 * sum(len(picture.markup) for picture in pictures)
        colours = "".join(f"--arm-{i}: {colour};" for i, colour in enumerate(svg.LIGHT))
        for markups in ([picture.markup for picture in pictures], small):
            style = f":root {{ --ink: #000; --paper: #fff; {colours} }} svg {{ width: 900px }} {gallery.css}"
            (tmp_path / "page.html").write_text(f"<!doctype html><style>{style}</style>{''.join(markups)}")
            page.open(tmp_path / "page.html")
            page.screenshot(tmp_path / "page.png")
            images.append(imread(tmp_path / "page.png"))
        assert images[0].shape == images[1].shape
        assert images[0].std() > 0.05  # there is something to see
        assert np.abs(images[0] - images[1]).mean() < 2e-3  # coordinates are rounded to 0.01 pt


class TestColours:
    INK = "getComputedStyle(document.body).color"

    def test_follow_the_system_until_the_reader_chooses(self, page, file):
        page.open(file)
        assert page.run(self.INK) == "rgb(27, 28, 31)"
        page.media(colours="dark")
        assert page.run(self.INK) == "rgb(231, 232, 234)"
        assert page.run('document.querySelector(".colours").textContent') == "Light colours"
        page.click(".colours")
        assert page.run(self.INK) == "rgb(27, 28, 31)"
        page.open(file)
        assert page.run(self.INK) == "rgb(27, 28, 31)"  # the choice was kept
        page.click(".colours")
        page.run('localStorage.removeItem("bbi-colours")')

    def test_paper_is_white_whatever_was_chosen(self, opened):
        opened.media(colours="dark", medium="print")
        assert opened.run(self.INK) == "rgb(27, 28, 31)"
        opened.run('document.documentElement.dataset.colours = "dark"')
        assert opened.run(self.INK) == "rgb(27, 28, 31)"


class TestAxes:
    def shown(self, page):
        return set(
            page.run(
                """[...document.querySelectorAll("#curves figure[data-axis]")]
                .filter((f) => f.offsetParent).map((f) => f.dataset.axis)"""
            )
        )

    @pytest.mark.parametrize("scripts", [True, False])
    def test_are_switched_by_mouse_and_keyboard_with_and_without_scripts(self, page, file, scripts):
        if not scripts:
            page.without_scripts()
        page.open(file)
        assert self.shown(page) == {"step"}
        page.click('#curves input[value="time"]')
        assert self.shown(page) == {"time"}
        page.press("ArrowRight")  # from the last choice to the first
        assert self.shown(page) == {"step"}


class TestEveryRun:
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


class TestAccess:
    def tree(self, page):
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")
        ]

    def test_everything_that_can_be_used_has_a_name(self, opened):
        nodes = self.tree(opened)
        for role in ("button", "link", "radio", "combobox", "searchbox", "table", "region", "image"):
            names = [name for r, name in nodes if r == role]
            assert names, role
            assert all(names), role
        assert ("group", "Horizontal axis") in nodes
        assert [name for r, name in nodes if r == "navigation"] == ["Contents"]
        assert [r for r, _ in nodes].count("main") == 1
        assert "status" in [r for r, _ in nodes]

    def test_the_first_key_skips_to_the_verdict(self, opened):
        opened.run("document.activeElement.blur()")
        opened.press("Tab")
        assert opened.run("document.activeElement.className") == "skip"
        assert opened.run("document.activeElement.getBoundingClientRect().left") >= 0
        opened.press("Enter")
        assert opened.run("location.hash") == "#verdict"

    def test_focus_can_be_seen(self, opened):
        for selector in (".colours", ".contents a", "#run-search", ".every-run thead button", ".save button"):
            opened.run(f"document.querySelector({json.dumps(selector)}).focus({{focusVisible: true}})")
            style = opened.run("getComputedStyle(document.activeElement).outline")
            assert "2px" in style
            assert "solid" in style

    def test_controls_are_large_enough_to_hit(self, opened):
        opened.resize(390)
        small = opened.run(
            """[...document.querySelectorAll("button, select, .axes label, input[type=search]")]
            .filter((e) => e.offsetParent && Math.min(e.offsetHeight, e.offsetWidth) < 24)
            .map((e) => e.outerHTML.slice(0, 100))"""
        )
        assert small == []  # WCAG 2.5.8


class TestWithoutScripts:
    def test_everything_but_the_filters_is_there(self, page, file, comparison):
        page.without_scripts()
        page.open(file)
        shown = """[...document.querySelectorAll("{}")].filter((e) => e.offsetParent).length"""
        assert page.run(shown.format("#explorer *")) == 0
        assert page.run(shown.format(".colours, .save")) == 0
        assert page.run(shown.format(".without-script > summary")) == len(comparison.results)
        page.click(".without-script > summary")
        assert page.run(shown.format(".without-script td")) > 16
        links = page.run(
            '[...document.querySelectorAll("#downloads a")].map((a) => [a.download, a.href.length])'
        )
        assert [name for name, _ in links] == [
            "summary.csv", "replicates.csv", "trials.csv", "digits-figures.zip",
        ]  # fmt: skip
        assert all(length > 500 for _, length in links)

    def test_a_script_that_is_forbidden_hides_nothing(self, page, file, tmp_path):
        text = file.read_text().replace("script-src 'sha256-", "script-src 'sha256-AAAA")
        other = tmp_path / "page.html"
        other.write_text(text)
        page.open(other)
        assert page.run('document.getElementById("explorer").hidden') is True
        assert page.run('[...document.querySelectorAll(".without-script")].every((e) => e.offsetParent)')


class TestSaving:
    def download(self, page, folder, selector):
        page.browser.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True
        )
        page.click(selector)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            page.run("new Promise((done) => setTimeout(done, 100))")
            done = [p for p in folder.iterdir() if p.suffix not in (".crdownload", ".tmp")]
            if done and done[0].stat().st_size:
                return done[0]
        raise TimeoutError(selector)

    def test_a_figure_and_its_numbers_come_out_of_the_archive(self, opened, tmp_path):
        for place in ("a", "b", "c"):
            (tmp_path / place).mkdir()
        archive = self.download(opened, tmp_path / "a", "#figures-archive")
        files = zipfile.ZipFile(archive)
        for place, kind in (("b", "svg"), ("c", "csv")):
            button = f'#figure-outcomes button[aria-label="Save outcomes.{kind}"]'
            saved = self.download(opened, tmp_path / place, button)
            assert saved.name == f"outcomes.{kind}"
            assert saved.read_bytes() == files.read(saved.name)
        assert opened.complaints() == []

    def test_every_file_of_the_archive_has_a_button(self, opened):
        buttons = opened.run(
            '[...document.querySelectorAll(".save button")].map((b) => b.getAttribute("aria-label"))'
        )
        files = opened.run(
            '[...document.querySelectorAll("figure")].map((f) => [f.dataset.key, f.dataset.files])'
        )
        assert buttons == [f"Save {key}.{kind}" for key, kinds in files for kind in kinds.split()]


class TestPrinting:
    def test_paper_has_every_run_and_no_controls(self, opened):
        opened.run('dispatchEvent(new Event("beforeprint"))')
        assert len(table(opened)) == 104
        opened.media(medium="print")
        shown = """[...document.querySelectorAll("{}")].filter((e) => e.offsetParent).length"""
        assert opened.run(shown.format("main p button, input, select, .colours, #downloads, .contents")) == 0
        assert opened.run(shown.format(".every-run tbody tr")) == 104

    def test_makes_a_document_of_a_few_pages(self, opened):
        data = opened.pdf()
        assert data.startswith(b"%PDF")
        assert 5 <= data.count(b"/Type /Page\n") <= 40


@pytest.mark.slow
def test_a_thousand_runs_stay_responsive(page, tmp_path):
    folder = SyntheticSweep(tmp_path / "large", trials=240, replicates=10).write()
    file = write_page(compare_sweep(read_sweep(folder)), tmp_path / "page.html")
    assert file.stat().st_size < 3_000_000
    page.open(file)
    timing = page.run('performance.getEntriesByType("navigation")[0].loadEventEnd')
    assert timing < 4000
    assert said(page) == "1000 runs, the first 50 are shown."
    # from the change of a filter to the table laid out again
    spent = page.run(
        """(() => { const select = document.querySelector(".filters select"), start = performance.now();
        select.value = "0"; select.dispatchEvent(new Event("change", {bubbles: true}));
        document.body.offsetHeight; return performance.now() - start; })()"""
    )
    assert said(page) == "250 of 1000 runs match, the first 50 are shown."
    assert spent < 500
    head(page, "val/acc, %")
    spent = page.run(
        """(() => { const start = performance.now(); document.getElementById("now").click();
        document.body.offsetHeight; return performance.now() - start; })()"""
    )
    assert spent < 500
