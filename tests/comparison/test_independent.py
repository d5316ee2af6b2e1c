"""The verdict against a computation that shares nothing with ours: JSON files, scipy, the rules as stated."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


def independent_verdict(folder: Path, baseline: str) -> dict[str, tuple[str, float, float]]:
    """Arm → (conclusion, mean difference, corrected p), from the run records alone."""
    records = [json.loads(file.read_text()) for file in folder.glob("runs/*/run.json")]
    outcome: dict[str, dict[int, float]] = {}
    lost: dict[str, int] = {}
    for arm in json.loads((folder / "sweep.yaml").read_text())["arms"]:
        own = [r for r in records if r["labels"]["arm"] == arm]
        searched = [r for r in own if r["labels"]["phase"] == "search" and r["state"] == "finished"]
        best = min(searched, key=lambda r: (-r["summary"]["val/acc"], r["summary"]["val/loss"]))
        again = [
            r
            for r in own
            if r["labels"]["phase"] == "replicate" and r["labels"]["params"] == best["labels"]["params"]
        ]
        lost[arm] = sum(r["state"] == "diverged" for r in again)
        outcome[arm] = {
            int(re.search(r"-s(\d+)$", r["name"])[1]): r["summary"]["test/acc"]
            for r in again
            if r["state"] == "finished"
        }
    found = {}
    for arm, by_seed in outcome.items():
        if arm == baseline:
            continue
        seeds = sorted(by_seed.keys() & outcome[baseline].keys())
        # images, so that equal sums are equal
        d = np.array([round(360 * by_seed[s]) - round(360 * outcome[baseline][s]) for s in seeds])
        p = stats.permutation_test(
            (d,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        ).pvalue
        interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
        found[arm] = (float(d.mean()) / 360, float(p), interval, d)
    order = sorted(found, key=lambda arm: found[arm][1])
    corrected, highest = {}, 0.0
    for place, arm in enumerate(order):
        highest = max(highest, min(1.0, found[arm][1] * (len(order) - place)))
        corrected[arm] = highest
    verdicts = {}
    for arm, (mean, _, interval, _) in found.items():
        shown = corrected[arm] <= 0.05 and not interval.low <= 0 <= interval.high
        survivor = arm if mean > 0 else baseline
        word = "unstable" if lost[survivor] else "better" if mean > 0 else "worse"
        verdicts[arm] = (word if shown else "undecided", mean, corrected[arm])
    return verdicts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("error", [0.004, 0.012, 0.016, 0.03, 0.08])
def test_every_conclusion_is_the_independent_one(tmp_path: Path, error: float, seed: int):
    bbi, ecdsep, sgd, adamw = ARMS
    arms = (replace(bbi, test_error=error), ecdsep, sgd, adamw)
    states = {("bbi", "replicate", 3): "diverged"} if seed == 5 else {}
    folder = SyntheticSweep(
        tmp_path / "sweep", arms=arms, trials=20, replicates=12, seed=seed, states=states, logs=False
    ).write()
    ours = compare_sweep(read_sweep(folder), "sgd")
    for arm, (word, mean, p) in independent_verdict(folder, "sgd").items():
        result = ours.result(arm)
        assert result.versus.difference.value == pytest.approx(mean, abs=1e-9)
        assert result.p_value == pytest.approx(p, abs=1e-9)
        if word == result.conclusion:
            continue
        # where they differ, the bootstrap interval and Student's end on different sides of zero, close to it
        gap = min(abs(result.versus.difference.low), abs(result.versus.difference.high))
        assert gap < 0.1 * abs(mean), (arm, word, result.conclusion)


def test_the_cases_cover_every_conclusion(tmp_path: Path):
    seen = set()
    for seed, error in ((0, 0.0005), (0, 0.016), (0, 0.2), (5, 0.0005)):
        bbi, _, sgd, _ = ARMS
        states = {("bbi", "replicate", 3): "diverged"} if seed == 5 else {}
        folder = SyntheticSweep(
            tmp_path / f"{seed}{error}", arms=(replace(bbi, test_error=error), replace(sgd, test_error=0.05)),
            trials=8, replicates=12, seed=seed, states=states, logs=False,
        ).write()  # fmt: skip
        seen.add(independent_verdict(folder, "sgd")["bbi"][0])
    assert seen >= {"better", "worse", "unstable"}
