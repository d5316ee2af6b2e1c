"""What stands on the page: all numbers of the comparison, in well-formed HTML that loads nothing."""

import hashlib
import html
import json
import re
import time
from base64 import b64encode
from dataclasses import replace

import pytest

from bbi_lightning.comparison.audit import audit
from bbi_lightning.comparison.figures import all_pictures, over_tasks
from bbi_lightning.comparison.page.page import csv_files, render_page, write_page
from bbi_lightning.comparison.page.runs import search
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.suite import compare_suite, read_suite, sentences_over_tasks
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.tables import conclusion_words
from bbi_lightning.comparison.verdict import verdict
from tests.comparison.page.outline import Outline, columns_of, inside, text_of
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


def compared(folder, against=None):
    return compare_sweep(read_sweep(folder), against)


@pytest.fixture(scope="module")
def page(comparison):
    return render_page(comparison)


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def two_tasks(root, **changes):
    """A suite of two tasks with the same arms."""
    folders = []
    for seed, name in enumerate(("alpha", "beta")):
        folder = SyntheticSweep(root / name, trials=4, replicates=4, seed=seed, **changes).write()
        spec = json.loads((folder / "sweep.yaml").read_text())
        spec |= {"base": [f"data={name}"], "title": f"Task {name}"}
        (folder / "sweep.yaml").write_text(json.dumps(spec))
        folders.append(folder)
    return compare_suite(read_suite(folders))


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return two_tasks(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def suite_page(suite):
    return render_page(suite)


def own_ids(outline):
    """Ids that the page gives, without those that matplotlib makes from a picture's name and content."""
    return [i for i in outline.ids if not re.fullmatch(r"[mpCh][0-9a-f]{8,}|[A-Z]\w*_\d+_[0-9a-f]+", i)]


class TestWords:
    def test_says_the_verdict_with_its_intervals(self, comparison, page):
        text = text_of(page)
        v = verdict(comparison)
        for sentence in (v.headline, v.status, *v.sentences):
            assert sentence in text

    def test_says_every_finding_of_the_audit_with_its_remedy_gravest_first(self, comparison, page):
        text, found = text_of(page), audit(comparison)
        assert len({finding.level for finding in found}) > 1
        places = []
        for finding in found:
            words = " ".join(f"{finding.sentence} {finding.remedy}".split()).replace("`", "")
            text_without = re.sub(r" ?([.:,;])", r"\1", text)
            place = text_without.find(re.sub(r" ?([.:,;])", r"\1", words))
            assert place >= 0, words
            places.append(place)
        assert places == sorted(places)

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

    def test_shows_every_estimate_with_its_interval(self, comparison, page):
        text = text_of(page)
        for r in comparison.results:
            assert comparison.test.interval(r.mean) in text
            assert comparison.test.text(r.iqm.value) in text
        for r in comparison.contestants:
            assert comparison.test.interval(r.versus.difference, signed=True) in text
            better = r.improvement
            assert f"{better.value:.2f} {better.low:.2f} to {better.high:.2f}" in text

    def test_lists_failures_and_divergence_by_arm(self, page):
        text = text_of(page)
        assert "3 trials diverged: 1 (lr 0.655); 9 (lr 0.561); 14 (lr 0.721)" in text
        assert "trial 3 failed: RuntimeError: DataLoader worker was killed" in text
        assert "1 replicate diverged: 4" in text
        assert "1 replicate not finished: 9" in text

    def test_many_failures_are_cut_short_and_counted(self, tmp_path):
        states = {("sgd", "search", number): "failed" for number in range(15)}
        folder = SyntheticSweep(tmp_path / "s", trials=20, states=states).write()
        text = text_of(render_page(compared(folder)))
        assert text.count("failed: RuntimeError") == 12
        assert "3 more trials failed, see All runs" in text

    def test_shows_every_replicate(self, comparison, page):
        for result in comparison.results:
            for run in result.finished:
                assert f">{comparison.test.number(run.final('test/acc'))}</td>" in page

    def test_a_loss_as_the_objective(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=4).write()
        spec = json.loads((folder / "sweep.yaml").read_text())
        spec["objective"] = {"metric": "val/loss", "direction": "minimize", "tie_breaker": None}
        (folder / "sweep.yaml").write_text(json.dumps(spec))
        text = text_of(render_page(compared(folder)))
        assert "Test loss of the replicates" in text
        assert "percentage points" not in text

    def test_imported_runs_are_marked(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=3, replicates=2).write()
        for file in (folder / "runs").glob("*adamw*/run.json"):
            record = json.loads(file.read_text())
            record["labels"]["imported"] = "W&B export"
            file.write_text(json.dumps(record))
        c = compared(folder)
        text = text_of(render_page(c))
        assert "AdamW optim=adamw imported: W&B export" in text
        assert "5 runs from W&B export" in text
        assert "imported from W&B export" in columns_of(c)["Notes"]["words"]


class TestForm:
    def test_loads_nothing_and_runs_only_its_own_script(self, page, outline):
        for target in outline.loads:
            assert target.startswith(("#", "data:"))
        assert not re.search(r"url\((?!#)", page)
        assert "@import" not in page
        assert not [tag for tag, _ in outline.tags if tag in ("iframe", "object", "embed", "base")]
        assert not [a for _, values in outline.tags for a in values if a.startswith("on")]
        (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = next(m["content"] for m in outline.of("meta") if m.get("http-equiv"))
        assert f"script-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'")

    @pytest.mark.parametrize("which", ["page", "suite_page"])
    def test_is_well_formed_with_unique_ids_that_all_links_reach(self, which, request):
        outline = Outline(request.getfixturevalue(which))
        assert outline.open == []
        own = own_ids(outline)
        assert len(own) == len(set(own))
        for target in outline.loads:
            assert not target.startswith("#") or target[1:] in outline.ids
        for _, values in outline.tags:
            for reference in (values.get("aria-labelledby"), values.get("aria-describedby")):
                assert reference is None or reference in outline.ids

    @pytest.mark.parametrize("which", ["page", "suite_page"])
    def test_has_headings_in_order_landmarks_and_texts_for_pictures(self, which, request):
        outline = Outline(request.getfixturevalue(which))
        assert outline.headings[0] == 1
        assert outline.headings.count(1) == 1
        assert all(b <= a + 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
        assert all(len(outline.of(landmark)) == 1 for landmark in ("header", "nav", "main", "footer"))
        assert outline.of("html") == [{"lang": "en"}]
        pictures = outline.of("svg")
        assert all(p["role"] == "img" and len(p["aria-label"]) > 40 for p in pictures)
        assert all(a.get("scope") for a in outline.of("th"))
        assert all(a["aria-labelledby"] in outline.ids for a in outline.of("section"))

    @pytest.mark.parametrize("which", ["page", "suite_page"])
    def test_every_table_has_a_caption(self, which, request):
        page = request.getfixturevalue(which)
        tables = re.findall(r"<table\b[^>]*>\s*<(\w+)", page)
        assert len(tables) > 8
        assert set(tables) == {"caption"}

    def test_every_picture_is_on_the_page_once(self, comparison, outline):
        keys = [p.key for p in all_pictures(comparison)]
        assert [f["id"] for f in outline.of("figure")] == [f"figure-{key}" for key in keys]
        assert len(outline.of("svg")) == len(keys)
        labels = {p.description for p in all_pictures(comparison)}
        assert {p["aria-label"] for p in outline.of("svg")} == labels

    def test_pictures_of_one_group_stand_behind_a_choice_of_axis(self, comparison, outline):
        axes = list(
            dict.fromkeys(p.axis for p in all_pictures(comparison) if p.section == "curves" and p.axis)
        )
        choices = [i for i in outline.of("input") if i.get("name") == "curves-axis"]
        assert [choice["value"] for choice in choices] == axes
        assert len(axes) >= 3
        assert ["checked" in choice for choice in choices] == [True] + [False] * (len(axes) - 1)

    def test_is_small(self, page):
        assert len(page.encode()) < 1_500_000

    def test_texts_of_the_runs_cannot_become_markup(self, tmp_path):
        evil = '</script><script>alert("1")</script>&amp;'
        arms = (replace(ARMS[0], label=evil), ARMS[2])
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=3).write()
        page = render_page(compared(folder))
        outline = Outline(page)
        assert outline.open == []
        assert len(outline.of("script")) == 2
        assert "<script>alert" not in page
        assert html.escape(evil, quote=False) in page or html.escape(evil) in page
        assert evil in inside(page)["columns"][0]["words"]

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
        outline = Outline(render_page(compared(folder)))
        assert outline.open == []
        for target in outline.loads:
            assert not target.startswith("#") or target[1:] in outline.ids


class TestSeveralTasks:
    def test_each_has_its_verdict_tables_and_pictures(self, suite, suite_page):
        outline, text = Outline(suite_page), text_of(suite_page)
        assert len(suite.comparisons) == 2
        for c in suite.comparisons:
            v = verdict(c)
            for sentence in (c.sweep.title, v.headline, *v.sentences):
                assert sentence in text
        own = [f"figure-{i}-{p.key}" for i, c in enumerate(suite.comparisons, 1) for p in all_pictures(c)]
        common = [f"figure-{p.key}" for p in over_tasks(suite)]
        assert common
        assert sorted(f["id"] for f in outline.of("figure")) == sorted(common + own)

    def test_says_what_holds_over_all_of_them(self, suite, suite_page):
        text = text_of(suite_page)
        metric = suite.comparisons[0].test
        for row in suite.over_tasks:
            assert f"{metric.text(row.iqm.value)} {metric.interval(row.iqm)}" in text
        for sentence in sentences_over_tasks(suite):
            assert sentence in text
        assert "not what other tasks would" in text

    def test_has_every_arm_on_every_task(self, suite, suite_page):
        text = text_of(suite_page)
        for c in suite.comparisons:
            cells = [f"{c.test.text(r.mean.value)} {conclusion_words(r)}" for r in c.results]
            assert f"{c.sweep.title} {c.test.label} {' '.join(cells)}" in text

    def test_an_arm_of_one_task_only_is_no_arm_of_all(self, tmp_path):
        suite = two_tasks(tmp_path, arms=ARMS[1:3])
        spec = json.loads((tmp_path / "beta" / "sweep.yaml").read_text())
        spec["arms"]["other"] = spec["arms"].pop("ecdsep")
        (tmp_path / "beta" / "sweep.yaml").write_text(json.dumps(spec))
        for file in (tmp_path / "beta" / "runs").glob("*ecdsep*/run.json"):
            record = json.loads(file.read_text())
            record["labels"]["arm"] = "other"
            file.write_text(json.dumps(record))
        suite = compare_suite(read_suite([tmp_path / "alpha", tmp_path / "beta"]))
        page = render_page(suite)
        assert Outline(page).open == []
        assert [row.arm.name for row in suite.over_tasks] == ["sgd"]

    def test_their_runs_are_one_table(self, suite, suite_page):
        columns = {column["name"]: column for column in inside(suite_page)["columns"]}
        assert columns["Task"]["words"] == ["Task alpha", "Task beta"]
        assert len(columns["Run"]["values"]) == sum(len(c.sweep.runs) for c in suite.comparisons)

    def test_each_has_files_of_its_own(self, suite):
        tables = ("summary", "replicates", "trials")
        assert set(csv_files(suite)) == {f"{t}-{task}.csv" for t in tables for task in ("alpha", "beta")}


def test_a_page_can_be_written_over_another(comparison, page, tmp_path):
    (tmp_path / "page.html").write_text("longer than the page that will be written" * 100_000)
    assert write_page(comparison, str(tmp_path / "page.html")).read_text() == page
    assert page.startswith("<!doctype html>\n")


def test_a_thousand_runs_make_a_page_in_seconds(tmp_path):
    folder = SyntheticSweep(tmp_path / "large", trials=240, replicates=10).write()
    start = time.process_time()
    page = write_page(compared(folder))
    assert time.process_time() - start < 20
    assert page.stat().st_size < 3_000_000


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_trials_of_one_value_stand_in_the_order_of_what_breaks_ties(tmp_path, direction, sign):
    folder = SyntheticSweep(tmp_path / "s", trials=6, replicates=0, logs=False).write()
    spec = json.loads((folder / "sweep.yaml").read_text())
    spec["objective"]["tie_breaker"]["direction"] = direction
    (folder / "sweep.yaml").write_text(json.dumps(spec))
    for file in folder.glob("runs/*/run.json"):
        record = json.loads(file.read_text())
        record["summary"]["val/acc"] = 0.9
        file.write_text(json.dumps(record))
    c = compared(folder)
    table = search(c, c.result("adamw"))
    losses = [float(cells[-2]) for _, _, cells in table["rows"]]
    assert losses == sorted(losses, key=lambda loss: sign * loss)
    assert [chosen for _, chosen, _ in table["rows"]] == [True] + 5 * [False]


def test_an_exception_about_a_name_that_is_no_text_can_be_written_and_runs_no_script(tmp_path):
    states = {("sgd", "replicate", 0): "failed"}
    folder = SyntheticSweep(tmp_path / "s", trials=2, replicates=2, states=states, logs=False).write()
    (file,) = folder.glob("runs/*sgd*-s1000/run.json")
    record = json.loads(file.read_text())
    record["attempts"][-1]["exception"] = "OSError: </script><script>alert(1)</script> caf\udce9"
    file.write_text(json.dumps(record))
    text = write_page(compared(folder)).read_text(encoding="utf-8")
    assert "failed: OSError: &lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; caf?" in text
    assert "<script>alert" not in text
