"""The pictures about several tasks, against counts made by hand."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison.figures import all_pictures, over_tasks
from bbi_lightning.comparison.suite import compare_suite
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.drawn import compared, with_batches
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compared(with_batches(realistic(tmp_path_factory.mktemp("sweeps") / "digits")))


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    root, sweeps = tmp_path_factory.mktemp("suite"), []
    for place, (name, times) in enumerate((("digits", 1), ("harder", 5), ("hardest", 20))):
        arms = tuple(replace(arm, test_error=arm.test_error * times) for arm in ARMS)
        folder = SyntheticSweep(root / name, arms=arms, trials=6, replicates=8, seed=place).write()
        spec = json.loads((folder / "sweep.yaml").read_text()) | {"base": [f"data={name}"]}
        (folder / "sweep.yaml").write_text(json.dumps(spec))
        sweeps.append(read_sweep(folder))
    return compare_suite(sweeps)


class TestOverTasks:
    def test_a_single_task_has_none(self, comparison, suite):
        one = replace(suite, comparisons=suite.comparisons[:1], over_tasks=())
        assert over_tasks(one) == ()
        assert [p.key for p in all_pictures(one)] == [p.key for p in all_pictures(suite.comparisons[0])]

    def test_pictures_of_several_tasks_have_keys_of_their_own(self, suite):
        pictures = all_pictures(suite)
        keys = [picture.key for picture in pictures]
        assert len(set(keys)) == len(keys)
        assert {p.task for p in pictures} == {"", "digits", "harder", "hardest"}
        assert {"1-outcomes", "3-outcomes", "tasks-score", "profile-score", "profile-cost"} <= set(keys)
        assert {p.group for p in pictures if p.key.startswith("2-loss")} == {"2-loss"}

    def test_intervals_are_those_of_the_suite(self, suite):
        pictures = {picture.key: picture for picture in over_tasks(suite)}
        for o in suite.over_tasks:
            row = next(r for r in pictures["tasks-score"].data if r["arm"] == o.arm.name)
            assert (row["value"], row["low"], row["high"]) == (o.iqm.value, o.iqm.low, o.iqm.high)
        arms = {row["arm"] for row in pictures["tasks-difference"].data}
        assert arms == {"bbi", "ecdsep", "adamw"}

    def test_the_score_profile_counts_runs(self, suite):
        picture = next(p for p in over_tasks(suite) if p.key == "profile-score")
        label = next(key for key in picture.data[0] if "error" in key)
        for row in picture.data[::37]:
            own = next(o for o in suite.over_tasks if o.arm.name == row["arm"])
            expected = np.mean([np.mean(100 * (1 - s) <= row[label] + 1e-9) for s in own.scores])
            assert row["share"] == pytest.approx(expected)

    def test_a_diverged_replicate_never_counts_as_good(self, suite, tmp_path):
        folder = suite.comparisons[0].sweep.folder
        runs = [r for r in suite.comparisons[0].sweep.runs if r.arm == "bbi" and r.phase == "replicate"]
        file = runs[0].folder / "run.json"
        before = file.read_text()
        file.write_text(before.replace('"state": "finished"', '"state": "diverged"'))
        try:
            sweeps = [read_sweep(c.sweep.folder) for c in suite.comparisons]
            picture = next(p for p in over_tasks(compare_suite(sweeps)) if p.key == "profile-score")
        finally:
            file.write_text(before)
        shares = [row["share"] for row in picture.data if row["arm"] == "bbi"]
        assert max(shares) == pytest.approx((7 / 8 + 1 + 1) / 3)
        assert folder.is_dir()

    def test_the_cost_profile_starts_with_the_fastest(self, suite):
        """At ratio one the shares of the arms add up to one task each, more where they tie."""
        picture = next(p for p in over_tasks(suite) if p.key == "profile-cost")
        first = {row["arm"]: row["share"] for row in reversed(picture.data)}
        assert sum(first.values()) >= 1 - 1e-9
        assert all(share * 3 == pytest.approx(round(share * 3)) for share in first.values())

    def test_an_arm_that_never_gets_there_has_no_cost(self, tmp_path):
        """BBI is stuck on the second of two tasks: it can solve half of them, at whatever cost."""
        sweeps = []
        for name in ("easy", "stuck"):
            folder = SyntheticSweep(tmp_path / name, arms=ARMS[:3:2], trials=1, replicates=3).write()
            spec = json.loads((folder / "sweep.yaml").read_text()) | {"base": [f"data={name}"]}
            (folder / "sweep.yaml").write_text(json.dumps(spec))
            for log in folder.glob("runs/*-bbi-*/metrics.jsonl") if name == "stuck" else ():
                log.write_text(re.sub(r'"val/acc": [\d.]+', '"val/acc": 0.1', log.read_text()))
            sweeps.append(read_sweep(folder))
        picture = next(p for p in over_tasks(compare_suite(sweeps)) if p.key == "profile-cost")
        last = {row["arm"]: row["share"] for row in picture.data}
        assert last["bbi"] <= 0.5
        assert last["sgd"] == 1
