"""The pictures: what is in them against the numbers of the comparison, how they look, and what they cost."""

import html
import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison.figures import AXES, SECTIONS, all_pictures, save_figures, svg
from bbi_lightning.comparison.figures import pictures as figures
from bbi_lightning.comparison.figures.matched import matched_loss
from bbi_lightning.comparison.figures.picture import key_of
from bbi_lightning.comparison.figures.progress import progress, spread
from bbi_lightning.comparison.figures.style import PRINT, SCREEN
from bbi_lightning.comparison.figures.targets import times_to_target
from tests.comparison.drawn import SVG, compared, parsed, texts, with_batches
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compared(with_batches(realistic(tmp_path_factory.mktemp("sweeps") / "digits")))


@pytest.fixture(scope="module")
def pictures(comparison):
    return all_pictures(comparison)


class TestAll:
    def test_are_in_the_order_of_the_sections_with_unique_keys(self, pictures):
        places = [SECTIONS.index(picture.section) for picture in pictures]
        assert places == sorted(places)
        keys = [picture.key for picture in pictures]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys)

    def test_cover_what_the_runs_have(self, pictures):
        assert {picture.section for picture in pictures} == set(SECTIONS) - {"tasks", "profiles"}
        keys = {picture.key for picture in pictures}
        assert {
            "outcomes", "differences", "loss", "loss-time", "validation-epoch", "validation-samples",
            "spread", "target", "target-time", "target-loss", "tuning", "near-the-best", "sensitivity-bbi",
            "map-sgd-momentum", "telemetry", "telemetry-ecdsep", "matched",
        } <= keys  # fmt: skip

    def test_are_well_formed_take_the_pages_colours_and_are_described(self, pictures):
        for picture in pictures:
            root = parsed(picture)
            assert root.get("role") == "img"
            assert html.unescape(root.get("aria-label")) == html.unescape(picture.description)
            assert len(picture.description) > 40
            assert "var(--ink)" in picture.markup
            assert "var(--arm-" in picture.markup
            for colour in (*svg.LIGHT, svg.INK, svg.PAPER, "#000000", "nan", "None"):
                assert colour not in picture.markup, (picture.key, colour)

    def test_are_small(self, pictures):
        assert max(len(picture.markup) for picture in pictures) < 150_000
        assert sum(len(picture.markup) for picture in pictures) < 1_500_000
        for picture in pictures:  # a hundredth of a point is more than an eye can see
            assert not re.search(r' d="[^"]*\.\d{3}', picture.markup), picture.key

    def test_are_the_same_at_every_call(self, comparison, pictures):
        again = all_pictures(comparison)
        assert [p.markup for p in again[::5]] == [p.markup for p in pictures[::5]]

    def test_carry_the_numbers_that_they_show(self, pictures):
        for picture in pictures:
            if picture.key == "spread":  # a row for every row of every log is no download
                continue
            assert picture.data, picture.key
            assert len({tuple(row) for row in picture.data}) == 1, picture.key

    def test_of_one_group_differ_in_the_axis_and_show_the_same_arms(self, pictures):
        for group in {picture.group for picture in pictures if picture.group}:
            own = [picture for picture in pictures if picture.group == group]
            assert [picture.axis for picture in own] == list(AXES)
            assert len({picture.title for picture in own}) == 1
            assert len({frozenset(row["arm"] for row in picture.data) for picture in own}) == 1

    def test_are_not_drawn_before_they_are_asked_for(self, comparison, monkeypatch):
        monkeypatch.setattr("bbi_lightning.comparison.figures.style.Style.figure", None)
        assert len(all_pictures(comparison)) > 20

    def test_names_of_arms_cannot_become_markup_and_can_be_anything(self, tmp_path):
        evil = '<b>"$x_1$"</b>&'
        arms = (replace(ARMS[0], label=evil, name="a+b c"), replace(ARMS[2], label=evil, name="a+b_c:d"))
        for picture in all_pictures(compared(SyntheticSweep(tmp_path / "s", arms=arms, trials=4).write())):
            parsed(picture)
            assert "<b>" not in picture.markup
            assert re.fullmatch(r"[A-Za-z0-9_-]+", picture.key)

    def test_arms_whose_names_differ_in_signs_only_have_pictures_of_their_own(self, tmp_path):
        arms = (replace(ARMS[0], name="sgd:a"), replace(ARMS[2], name="sgd a"))
        pictures = all_pictures(compared(SyntheticSweep(tmp_path / "s", arms=arms, trials=4).write()))
        keys = [picture.key for picture in pictures]
        assert len(set(keys)) == len(keys)
        assert {"sensitivity-sgd-a", "sensitivity-sgd-a-2"} <= set(keys)
        assert key_of("a", "b/c", "(d)") == "a-b-c-d"

    @pytest.mark.parametrize(
        "changes",
        [
            {"replicates": 0},
            {"trials": 1, "replicates": 1},
            {"logs": False},
            {"arms": ARMS[1:3]},
            {"arms": (replace(ARMS[0], cliff=0.0), replace(ARMS[2], cliff=0.0))},
            {"arms": (replace(ARMS[0], cliff=0.0), ARMS[2])},
        ],
    )
    def test_of_a_sweep_with_little_in_it(self, tmp_path, changes):
        folder = SyntheticSweep(tmp_path / "s", **({"trials": 4} | changes)).write()
        for picture in all_pictures(compared(folder)):
            parsed(picture)

    def test_of_a_metric_that_can_be_negative(self, tmp_path):
        """A reward: no error rate, no logarithm, more is better."""
        folder = SyntheticSweep(tmp_path / "s", arms=ARMS[:3:2], trials=14).write()
        text = (folder / "sweep.yaml").read_text()
        (folder / "sweep.yaml").write_text(text.replace('"val/acc"', '"val/reward"'))
        for file in [*folder.glob("runs/*/run.json"), *folder.glob("runs/*/metrics.jsonl")]:
            changed = re.sub(
                r'"(val|test)/acc": ([\d.e-]+)',
                lambda m: f'"{m[1]}/reward": {5 * float(m[2]) - 4.9}',
                file.read_text(),
            )
            file.write_text(changed)
        pictures = {picture.key: picture for picture in all_pictures(compared(folder))}
        assert {"validation", "tuning", "target", "matched", "map-sgd-momentum"} <= set(pictures)
        assert "−0.5" in texts(pictures["validation"]) or "−1" in texts(pictures["validation"])
        assert "error" not in " ".join(texts(pictures["validation"]))


class TestOutcomes:
    def test_every_replicate_is_drawn_and_listed(self, comparison):
        picture = figures.outcomes(comparison)
        finished = [run for r in comparison.results for run in r.finished]
        assert len(re.findall(r"<use ", picture.markup)) >= len(finished)
        listed = {(row["arm"], row["seed"]): row["value"] for row in picture.data}
        assert listed == {(run.arm, run.seed): run.final("test/acc") for run in finished}
        for r in comparison.results:
            assert comparison.test.number(r.mean.value) in picture.description

    def test_differences_are_those_of_the_pairs(self, comparison):
        picture = figures.differences(comparison)
        for r in comparison.contestants:
            own = [row["value"] for row in picture.data if row["arm"] == r.arm.name]
            assert np.mean(own) == pytest.approx(r.versus.difference.value)
            assert len(own) == r.versus.difference.n


class TestCurves:
    def test_every_axis_is_the_same_training_seen_otherwise(self, comparison):
        """18 steps of 64 samples an epoch, 0.04 seconds each: positions are multiples, values are equal."""
        losses = [p for p in progress(comparison) if p.group == "loss"]
        own = {p.axis: [row for row in p.data if row["arm"] == "sgd"] for p in losses}
        assert list(own) == list(AXES)
        steps = np.array([row["step"] for row in own["step"]])
        assert [row["epoch"] for row in own["epoch"]] == pytest.approx(steps / 18)
        assert [row["samples"] for row in own["samples"]] == pytest.approx(steps * 64)
        assert [row["time"] for row in own["time"]] == pytest.approx(steps / 18 * 0.04)
        for axis in AXES:
            assert [r["median"] for r in own[axis]] == pytest.approx([r["median"] for r in own["step"]])

    def test_an_axis_that_one_arm_does_not_know_is_left_out(self, tmp_path):
        folder = with_batches(SyntheticSweep(tmp_path / "s", arms=ARMS[:2], trials=2, replicates=3).write())
        for run in (folder / "runs").glob("*-bbi-*"):
            (run / "config.yaml").unlink()
        assert "samples" not in {picture.axis for picture in progress(compared(folder))}

    def test_medians_are_those_of_the_runs(self, comparison):
        row = figures.validation_curve(comparison).data[0]
        runs = comparison.results[0].replicates
        first = [run.curve("val/acc").value[0] for run in runs]
        assert row["median"] == pytest.approx(np.median(first))
        assert row["low"] == pytest.approx(np.quantile(first, 0.25))

    def test_every_replicate_has_a_line(self, comparison):
        picture = spread(comparison)
        replicates = sum(len(r.replicates) for r in comparison.results)
        lines = [p for p in parsed(picture).iter(f"{SVG}path") if "stroke-width: 0.8" in p.get("style", "")]
        assert len([p for p in lines if p.get("d", "").count("L") > 3]) == replicates

    def test_values_that_are_not_numbers_leave_no_trace(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", arms=ARMS[:3:2], trials=2, replicates=3).write()
        for file in folder.glob("runs/*/metrics.jsonl"):
            lines = file.read_text().splitlines()
            bad = json.loads(lines[-2]) | dict.fromkeys(
                ("val/acc", "train/loss", "energy/energy_error"), "nan"
            )
            lines[-2] = json.dumps(bad)
            lines[5] = json.dumps(json.loads(lines[5]) | {"train/loss": "inf", "val/loss": "inf"})
            file.write_text("\n".join(lines) + "\n")
        for picture in all_pictures(compared(folder, "sgd")):
            parsed(picture)
            assert not re.search(r"\b(nan|inf)\b", picture.markup)
            assert not re.search(r"\b(nan|inf)\b", picture.caption)

    def test_targets_name_the_value_and_how_many_got_there(self, comparison):
        picture = next(p for p in times_to_target(comparison) if p.key == "target")
        target = picture.data[0]["target"]
        assert comparison.validation.text(target) in picture.caption
        for r in comparison.results:
            own = [row for row in picture.data if row["arm"] == r.arm.name]
            assert len(own) == len(r.replicates)
            reached = sum((run.curve("val/acc").value >= target).any() for run in r.replicates)
            assert sum(row["reached"] for row in own) == reached
            assert f"{reached} of {len(own)} there" in picture.description

    def test_matched_loss_has_the_arms_at_common_losses(self, comparison):
        picture = matched_loss(comparison)
        arms = {row["arm"] for row in picture.data}
        assert arms == {r.arm.name for r in comparison.results}
        levels = [{row["training loss"] for row in picture.data if row["arm"] == arm} for arm in arms]
        assert len(set.intersection(*levels)) > 10


class TestEnergy:
    def test_is_shown_for_the_middle_replicate(self, comparison):
        picture = figures.telemetry(comparison)
        result = comparison.result("bbi")
        ranked = sorted(run.final("test/acc") for run in result.finished)
        run = next(run for run in result.finished if f"seed {run.seed};" in picture.caption)
        assert run.final("test/acc") == ranked[4]
        assert "the 4 bounces" in picture.caption
        assert picture.description.startswith("training loss, V / E, energy error, speed / limit of")

    def test_bounces_are_marked_on_the_loss(self, comparison):
        root = parsed(figures.telemetry(comparison))
        marks = [u for u in root.iter(f"{SVG}use") if "var(--ink)" in u.get("style", "") and u.get("y")]
        heights = {u.get("y") for u in marks}
        assert len(heights) >= 4  # on the falling curve, not in a row above it

    def test_without_a_bounce_there_is_none(self, comparison):
        ecdsep = next(p for p in all_pictures(comparison) if p.key == "telemetry-ecdsep")
        assert "no bounce took place" in ecdsep.caption


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    arms = (ARMS[0], ARMS[2])
    c = compared(SyntheticSweep(folder / "s", arms=arms, trials=4, replicates=3).write(), "sgd")
    files = save_figures(c, folder / "made" / "here")
    assert {file.suffix for file in files} == {".pdf", ".png", ".txt"}
    assert all(file.stat().st_size > 200 for file in files)
    assert {file.stem for file in files} == {p.key for p in all_pictures(c)} | {"figures"}
    return folder / "made" / "here"


class TestSaving:
    def test_fonts_are_embedded_as_truetype(self, folder):
        pdf = (folder / "loss.pdf").read_bytes()
        assert b"/Type3" not in pdf
        assert b"/FontFile2" in pdf
        assert b"/Subtype /CIDFontType2" in pdf

    @pytest.mark.parametrize(
        ("name", "width"), [("loss", 3.3), ("spread", 6.9), ("sensitivity-sgd", 2.2), ("near-the-best", 6.9)]
    )
    def test_widths_are_those_of_columns(self, folder, name, width):
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", (folder / f"{name}.pdf").read_bytes())
        assert float(box[1]) / 72 == pytest.approx(width, abs=0.01)
        assert float(box[2]) / 72 < 4

    def test_every_figure_has_a_caption(self, folder):
        text = (folder / "figures.txt").read_text()
        for file in folder.glob("*.pdf"):
            assert f"\n{file.stem}  " in f"\n{text}"
        assert "the middle half of them" in text
        assert "a star is the best of a search" in " ".join(text.split())

    def test_the_same_runs_give_the_same_files(self, folder, tmp_path):
        c = compared(folder.parents[1] / "s", "sgd")
        save_figures(c, tmp_path, ("pdf", "svg"))
        assert (tmp_path / "tuning.pdf").read_bytes() == (folder / "tuning.pdf").read_bytes()
        assert (tmp_path / "tuning.svg").read_text().count("<text") == 0

    def test_an_unknown_format_is_refused_before_anything_is_written(self, comparison, tmp_path):
        with pytest.raises(ValueError, match="format 'gif' cannot be written: use pdf, png, svg"):
            save_figures(comparison, tmp_path / "x", ("pdf", "gif"))
        assert not (tmp_path / "x").exists()

    def test_a_picture_drawn_for_paper_has_no_title_of_its_own(self, comparison):
        picture = figures.outcomes(comparison)
        for style in (SCREEN, PRINT):
            figure = picture.draw(style)
            assert figure.get_suptitle() == ""
            assert [axes.get_title(loc="left") for axes in figure.axes] == [""]
            assert all(axes.get_xlabel() for axes in figure.axes)
        assert figure.get_figwidth() == 3.3


def test_a_thousand_runs_are_drawn_in_seconds(tmp_path):
    c = compared(SyntheticSweep(tmp_path / "large", trials=240, replicates=10).write())
    start = time.process_time()
    size = sum(len(picture.markup) for picture in all_pictures(c))
    assert time.process_time() - start < 10
    assert size < 1_500_000


def test_as_are_a_thousand_replicates(tmp_path):
    """All their logs are read, once."""
    c = compared(SyntheticSweep(tmp_path / "large", trials=2, replicates=250, planned_replicates=250).write())
    start = time.process_time()
    size = sum(len(picture.markup) for picture in all_pictures(c))
    assert time.process_time() - start < 12
    assert size < 3_000_000
