"""The page as readers have it: rendered, clicked, typed into, printed; with scripts and without."""

import json
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from bbi_lightning.comparison.figures import all_pictures, svg
from bbi_lightning.comparison.page.gallery import Gallery
from bbi_lightning.comparison.page.page import write_page
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.suite import compare_suite, read_suite
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.page.explorer import select, table
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep

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


class TestLayout:
    @pytest.mark.parametrize("width", [320, 390, 840, 1280])
    def test_nothing_scrolls_sideways(self, opened, width):
        opened.resize(width)
        assert opened.run("document.documentElement.scrollWidth") <= width
        assert opened.run(OUTSIDE) == []

    def test_nor_with_long_names_and_many_arms(self, tab, tmp_path):
        arms = tuple(
            replace(arm, name=f"{arm.name}{i}", label=f"{arm.label} with a long name {i}")
            for i in range(2)
            for arm in ARMS
        )
        name = "a_sweep_with_a_rather_long_name_that_goes_on_and_on"
        folder = SyntheticSweep(tmp_path / name, arms=arms, trials=8, replicates=4).write()
        tab.open(write_page(compare_sweep(read_sweep(folder), "sgd0")))
        for width in (390, 1280):
            tab.resize(width)
            assert tab.run("document.documentElement.scrollWidth") <= width
            assert tab.run(OUTSIDE) == []

    def test_nor_with_several_tasks(self, tab, tmp_path):
        folders = []
        for seed, name in enumerate(("alpha", "beta")):
            folder = SyntheticSweep(tmp_path / name, trials=4, replicates=4, seed=seed).write()
            spec = json.loads((folder / "sweep.yaml").read_text())
            (folder / "sweep.yaml").write_text(json.dumps(spec | {"base": [f"data={name}"], "title": name}))
            folders.append(folder)
        tab.open(write_page(compare_suite(read_suite(folders)), tmp_path / "page.html"))
        tab.resize(390)
        assert tab.run("document.documentElement.scrollWidth") <= 390
        assert tab.run(OUTSIDE) == []
        select(tab, "Task", "beta")
        assert {row["Task"] for row in table(tab)} == {"beta"}
        assert tab.complaints() == []

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
    def test_look_the_same_in_fewer_bytes(self, tab, comparison, tmp_path):
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
            tab.open(tmp_path / "page.html")
            tab.screenshot(tmp_path / "page.png")
            images.append(imread(tmp_path / "page.png"))
        assert images[0].shape == images[1].shape
        assert images[0].std() > 0.05  # there is something to see
        assert np.abs(images[0] - images[1]).mean() < 2e-3  # coordinates are rounded to 0.01 pt


class TestColours:
    INK = "getComputedStyle(document.body).color"

    def test_follow_the_system_until_the_reader_chooses(self, tab, file):
        tab.open(file)
        assert tab.run(self.INK) == "rgb(27, 28, 31)"
        tab.media(colours="dark")
        assert tab.run(self.INK) == "rgb(231, 232, 234)"
        assert tab.run('document.querySelector(".colours").textContent') == "Light colours"
        tab.click(".colours")
        assert tab.run(self.INK) == "rgb(27, 28, 31)"
        tab.open(file)
        assert tab.run(self.INK) == "rgb(27, 28, 31)"  # the choice was kept
        tab.click(".colours")
        tab.run('localStorage.removeItem("bbi-colours")')

    def test_paper_is_white_whatever_was_chosen(self, opened):
        opened.media(colours="dark", medium="print")
        assert opened.run(self.INK) == "rgb(27, 28, 31)"
        opened.run('document.documentElement.dataset.colours = "dark"')
        assert opened.run(self.INK) == "rgb(27, 28, 31)"


class TestAxes:
    def shown(self, tab):
        return set(
            tab.run(
                """[...document.querySelectorAll("#curves figure[data-axis]")]
                .filter((f) => f.offsetParent).map((f) => f.dataset.axis)"""
            )
        )

    @pytest.mark.parametrize("scripts", [True, False])
    def test_are_switched_by_mouse_and_keyboard_with_and_without_scripts(self, tab, file, scripts):
        if not scripts:
            tab.without_scripts()
        tab.open(file)
        assert self.shown(tab) == {"step"}
        tab.click('#curves input[value="time"]')
        assert self.shown(tab) == {"time"}
        tab.press("ArrowRight")  # from the last choice to the first
        assert self.shown(tab) == {"step"}


class TestAccess:
    def tree(self, tab):
        tab.call("Accessibility.enable")
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
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
    def test_everything_but_the_filters_is_there(self, tab, file, comparison):
        tab.without_scripts()
        tab.open(file)
        shown = """[...document.querySelectorAll("{}")].filter((e) => e.offsetParent).length"""
        assert tab.run(shown.format("#explorer *")) == 0
        assert tab.run(shown.format(".colours, .save")) == 0
        assert tab.run(shown.format(".without-script > summary")) == len(comparison.results)
        tab.click(".without-script > summary")
        assert tab.run(shown.format(".without-script td")) > 16
        links = tab.run(
            '[...document.querySelectorAll("#downloads a")].map((a) => [a.download, a.href.length])'
        )
        assert [name for name, _ in links] == [
            "summary.csv", "replicates.csv", "trials.csv", "digits-figures.zip",
        ]  # fmt: skip
        assert all(length > 500 for _, length in links)

    def test_a_script_that_is_forbidden_hides_nothing(self, tab, file, tmp_path):
        text = file.read_text().replace("script-src 'sha256-", "script-src 'sha256-AAAA")
        other = tmp_path / "page.html"
        other.write_text(text)
        tab.open(other)
        assert tab.run('document.getElementById("explorer").hidden') is True
        assert tab.run('[...document.querySelectorAll(".without-script")].every((e) => e.offsetParent)')


class TestSaving:
    def download(self, tab, folder, selector):
        tab.browser.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True
        )
        tab.click(selector)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            tab.run("new Promise((done) => setTimeout(done, 100))")
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
