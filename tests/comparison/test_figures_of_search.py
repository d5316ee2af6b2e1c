"""The pictures of searches: every trial, choices, keys that depend on others, several searches an arm."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison.figures import pictures as figures
from bbi_lightning.comparison.figures.forgiving import near_the_best
from bbi_lightning.comparison.figures.importance import importance, importances
from bbi_lightning.comparison.figures.maps import maps
from bbi_lightning.comparison.statistics import rank_trials
from tests.comparison.drawn import SVG, compared, parsed, texts, with_batches
from tests.comparison.rich_sweep import rich
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compared(with_batches(realistic(tmp_path_factory.mktemp("sweeps") / "digits")))


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return compared(rich(tmp_path_factory.mktemp("sweeps") / "rich"), "sgd")


class TestSearch:
    def test_every_trial_is_drawn(self, comparison):
        for result, picture in zip(comparison.results, figures.sensitivities(comparison), strict=True):
            trials = result.count("search", "finished", "diverged")
            assert len(re.findall(r"<use ", picture.markup)) >= trials - 1
            assert f"{result.count('search', 'diverged')} diverged" in picture.description
            assert len(picture.data) == len(result.trials)

    def test_the_best_of_every_search_is_a_star(self, hard):
        for picture in (*figures.sensitivities(hard), *maps(hard, {})):
            arm = hard.result(picture.data[0]["arm"])
            chosen = {(row["study"], row["trial"]) for row in picture.data if row["chosen"]}
            best = set()
            for study in (0, 1):
                own = [(run, v) for run, v in zip(arm.trials, arm.values, strict=True) if run.study == study]
                place = rank_trials([v for _, v in own], tie_breaker=[r.final("val/loss") for r, _ in own])[0]
                best.add((study, own[place][0].number))
            drawn = {(row["study"], row["trial"]) for row in picture.data}
            assert chosen == best & drawn
            assert len(drawn) == len(picture.data)

    def test_a_key_that_depends_on_another_is_drawn_where_it_was_searched(self, hard):
        picture = next(p for p in maps(hard, {}) if p.key == "map-bbi-momentum")
        kinds = {run.number: run.params["optim.kind"] for run in hard.result("bbi").trials}
        assert len(picture.data) == sum(kind == "nesterov" for kind in kinds.values())
        assert all(kinds[row["trial"]] == "nesterov" for row in picture.data)

    def test_choices_are_rows_of_their_own(self, hard):
        picture = next(p for p in maps(hard, {}) if p.key == "map-bbi-kind")
        assert {"plain", "nesterov"} <= set(texts(picture))
        assert len(picture.data) == len(hard.result("bbi").trials)

    def test_a_map_has_no_colour_where_nothing_was_tried(self, hard):
        """All shades lie inside the hull of the finished trials: diverged ones, at the right, are outside."""
        picture = next(p for p in maps(hard, {}) if p.key == "map-bbi-model-width")
        root = parsed(picture)
        filled = [p for p in root.iter(f"{SVG}path") if "fill-opacity" in p.get("style", "")]
        shades = [p for p in filled if p.get("d", "").count("L") > 5]  # not the legend's squares
        points = list(root.iter(f"{SVG}use"))
        assert shades
        reach = [float(x) for p in shades for x in re.findall(r"[ML] ([\d.]+) ", p.get("d"))]
        finished = [float(u.get("x")) for u in points if "fill-opacity" in u.get("style", "")]
        assert min(reach) >= min(finished) - 0.1
        assert max(reach) <= max(finished) + 0.1

    def test_trials_on_one_line_have_no_surface_and_no_error(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", arms=ARMS[2:4], trials=8).write()
        for file in folder.glob("runs/*-sgd-*/run.json"):
            record = json.loads(file.read_text())
            record["labels"]["params"]["optim.momentum"] = 0.9
            file.write_text(json.dumps(record))
        (picture,) = maps(compared(folder), {})
        parsed(picture)
        assert len(picture.data) == 8

    def test_importance_finds_what_the_metric_was_made_of(self, hard):
        known = importances(hard)
        picture = importance(hard, known)
        share = {row["key"]: row["share"] for row in picture.data if row["arm"] == "bbi"}
        assert known["bbi"].trustworthy
        assert share["optim.lr"] > 0.5
        assert share["optim.lr"] > share["optim.kind"] > share["model.width"]
        assert "BBI: learning rate" in texts(picture)

    def test_importance_is_silent_about_noise(self, tmp_path):
        arms = tuple(replace(arm, momentum=True, cliff=math.inf, best=1.0) for arm in ARMS[:2])
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=14, replicates=0).write()
        rng = np.random.default_rng(0)
        for file in folder.glob("runs/*/run.json"):
            record = json.loads(file.read_text())
            record["summary"]["val/acc"] = 0.9 + 0.05 * rng.random()
            file.write_text(json.dumps(record))
        c = compared(folder)
        known = importances(c)
        if not any(k.trustworthy for k in known.values()):
            assert importance(c, known) is None
        for name, k in known.items():
            assert k.trustworthy or not any(
                text.startswith(f"{name}:") for text in texts(importance(c, known) or figures.tuning(c))
            )

    def test_maps_of_an_arm_with_many_keys_are_those_that_matter(self, hard, monkeypatch):
        known = importances(hard)
        assert len([p for p in maps(hard, known) if p.key.startswith("map-bbi")]) == 3
        monkeypatch.setattr("bbi_lightning.comparison.figures.maps._MOST", 1)
        assert [p.key for p in maps(hard, known) if p.key.startswith("map-bbi")] == ["map-bbi-kind"]

    def test_the_share_near_the_best_is_counted_over_all_trials(self, comparison):
        picture = near_the_best(comparison)
        best = max(max(v for v in r.values if math.isfinite(v)) for r in comparison.results)
        for r in comparison.results:
            near = sum(v >= best - 0.01 - 1e-9 for v in r.values)
            assert f"{r.arm.label} {100 * near / len(r.trials):.0f} %" in picture.description
            last = [row for row in picture.data if row["arm"] == r.arm.name][-1]
            finite = sum(math.isfinite(v) for v in r.values)
            assert last["share"] == pytest.approx(finite / len(r.trials))
