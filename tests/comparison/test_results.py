"""What a comparison says is what the runs say: checked against an independent computation from the files."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison import results as comparing
from bbi_lightning.comparison.audit import audit
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.statistics import Estimate, PairedDifference
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.verdict import verdict
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic

BBI, ECDSEP, SGD, ADAMW = ARMS


def compared(folder, against=None):
    return compare_sweep(read_sweep(folder), against)


def records(folder):
    return [json.loads(file.read_text()) for file in (folder / "runs").glob("*/run.json")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return realistic(tmp_path_factory.mktemp("sweeps") / "digits")


@pytest.fixture(scope="module")
def comparison(folder):
    return compared(folder)


def finals(folder, arm):
    """Seed to test accuracy of an arm's replicates, straight from the files."""
    return {
        1000 + r["labels"]["replicate"]: r["summary"]["test/acc"]
        for r in records(folder)
        if (r["labels"]["arm"], r["labels"]["phase"], r["state"]) == (arm, "replicate", "finished")
    }


@pytest.mark.parametrize("arm", ["bbi", "ecdsep", "adamw"])
def test_difference_and_p_value_by_an_independent_computation(folder, comparison, arm):
    values, baseline = finals(folder, arm), finals(folder, "sgd")
    d = np.array([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())])
    result = comparison.result(arm)
    assert result.versus.difference.n == d.size
    assert result.versus.difference.value == pytest.approx(d.mean())
    patterns = np.array(list(itertools.product([1, -1], repeat=d.size)))
    expected = np.mean(np.abs(patterns @ d) >= abs(d.sum()) - 1e-12)
    assert result.versus.p_value == pytest.approx(expected)
    assert result.mean.value == pytest.approx(np.mean(list(values.values())))
    # a normal interval is not the same, but cannot be far off
    half = 2.2 * d.std(ddof=1) / math.sqrt(d.size)
    assert result.versus.difference.low == pytest.approx(d.mean() - half, abs=0.7 * half)
    assert result.versus.difference.high == pytest.approx(d.mean() + half, abs=0.7 * half)


def test_the_choice_is_made_on_validation_and_never_on_test(folder, comparison):
    for result in comparison.results:
        trials = [
            r for r in records(folder) if r["state"] == "finished"
            and (r["labels"]["arm"], r["labels"]["phase"]) == (result.arm.name, "search")
        ]  # fmt: skip
        best = max(trials, key=lambda r: (r["summary"]["val/acc"], -r["summary"]["val/loss"]))
        assert result.best.name == best["name"]


def test_changing_test_results_of_the_search_changes_nothing(folder, comparison, tmp_path):
    for file in (realistic(tmp_path / "digits") / "runs").glob("*/run.json"):
        record = json.loads(file.read_text())
        if record["labels"]["phase"] == "search" and record["summary"]:
            record["summary"]["test/acc"] = 0.123
            file.write_text(json.dumps(record))
    again = compared(tmp_path / "digits")
    assert verdict(again) == verdict(comparison)
    assert [r.best.name for r in again.results] == [r.best.name for r in comparison.results]


def test_is_deterministic(folder, comparison):
    again = compared(folder)
    assert [r.versus for r in again.results] == [r.versus for r in comparison.results]
    assert [r.mean for r in again.results] == [r.mean for r in comparison.results]


@pytest.mark.parametrize("seed", range(25))
def test_never_claims_a_difference_that_the_interval_does_not_show(tmp_path, seed):
    """Arms that hardly differ and arms that do, few replicates and many: the words follow the numbers."""
    rng = np.random.default_rng(seed)
    arms = tuple(replace(arm, test_error=rng.uniform(0.008, 0.02), cliff=math.inf) for arm in ARMS)
    n = int(rng.integers(1, 13))
    folder = SyntheticSweep(
        tmp_path / "s", arms=arms, trials=1, replicates=n, planned_replicates=n, seed=seed, logs=False
    )
    c = compared(folder.write())
    v = verdict(c)
    for result, sentence in zip(c.contestants, v.sentences, strict=True):
        interval = result.versus.difference
        claimed = "is better." in sentence or "is worse." in sentence
        assert claimed == (result.conclusion in ("better", "worse"))
        if claimed:
            assert interval.low > 0 or interval.high < 0
            assert result.p_value <= 0.05
            assert (interval.low > 0) == ("is better." in sentence)
        else:
            assert "no difference is shown" in sentence.lower() or "No verdict" in sentence
        named = f"{result.arm.label} (" in v.headline
        assert named == claimed


@pytest.mark.parametrize(
    ("low", "high", "p", "conclusion"),
    [
        (0.001, 0.009, 0.01, "better"),
        (-0.009, -0.001, 0.01, "worse"),
        (-0.001, 0.009, 1e-6, "undecided"),
        (-0.009, 0.0, 1e-6, "undecided"),
        (0.001, 0.009, 0.06, "undecided"),
        (math.nan, math.nan, 1e-6, "undecided"),
    ],
)
def test_a_claim_needs_the_interval_and_the_test(tmp_path, monkeypatch, low, high, p, conclusion):
    estimate = Estimate(0.005 if low > 0 else -0.004, low, high, 10, 0.95, "given")
    monkeypatch.setattr(comparing, "paired_difference", lambda *_, **__: PairedDifference(estimate, p, 1e-9))
    arms = (replace(BBI, cliff=math.inf), SGD)
    c = compared(SyntheticSweep(tmp_path / "s", arms=arms, trials=1, logs=False).write())
    assert c.result("bbi").conclusion == conclusion
    claims = (" is better.", " is worse.", "reaches a higher", "reaches a lower")
    said = f"{verdict(c).headline} {verdict(c).sentences[0]}"
    assert any(claim in said for claim in claims) == (conclusion != "undecided")


def test_the_same_optimizer_twice_is_hardly_ever_told_apart(tmp_path):
    arms = (replace(SGD, name="a", label="A"), replace(SGD, name="sgd", label="B"))
    claims = 0
    for seed in range(60):
        sweep = SyntheticSweep(tmp_path / str(seed), arms=arms, trials=1, seed=seed, logs=False)
        claims += compared(sweep.write()).result("a").conclusion != "undecided"
    assert claims <= 7  # 5 % of 60, give or take


def test_no_verdict_for_an_arm_that_is_ahead_but_loses_runs(tmp_path):
    arms = (replace(ADAMW, test_error=0.002), replace(SGD, test_error=0.04))
    states = {("adamw", "replicate", 3): "diverged"}
    c = compared(SyntheticSweep(tmp_path / "ahead", arms=arms, states=states, logs=False).write())
    assert c.result("adamw").conclusion == "unstable"
    assert "1 of 10 replicates of AdamW diverged" in verdict(c).sentences[0]
    assert any(f.sentence.startswith("Replicates diverged (AdamW 1)") for f in audit(c))

    # the one behind may lose runs: it is worse all the same
    arms = (replace(ADAMW, test_error=0.04), replace(SGD, test_error=0.002))
    c = compared(SyntheticSweep(tmp_path / "behind", arms=arms, states=states, logs=False).write())
    assert c.result("adamw").conclusion == "worse"


def test_a_loss_is_better_when_it_is_lower(tmp_path):
    arms = (replace(BBI, test_error=0.003, cliff=math.inf), replace(SGD, test_error=0.04))
    folder = SyntheticSweep(tmp_path / "loss", arms=arms, trials=1, logs=False).write()
    spec = json.loads((folder / "sweep.yaml").read_text())
    spec["objective"] = {"metric": "val/loss", "direction": "minimize", "tie_breaker": None}
    (folder / "sweep.yaml").write_text(json.dumps(spec))
    c = compared(folder)
    assert c.result("bbi").versus.difference.value < 0
    assert c.result("bbi").conclusion == "better"
    assert "lower test loss than SGD" in verdict(c).headline


def test_the_baseline_can_be_chosen(folder, comparison):
    assert comparison.baseline.name == "sgd"
    against = compared(folder, "adamw")
    assert against.result("adamw").conclusion == "baseline"
    assert against.result("sgd").versus.difference.value == pytest.approx(
        -comparison.result("adamw").versus.difference.value
    )
    with pytest.raises(
        ValueError, match="'lion' is no arm of sweep digits: use one of bbi, ecdsep, sgd, adamw"
    ):
        compared(folder, "lion")


def test_without_an_arm_sgd_the_first_is_the_baseline(tmp_path):
    c = compared(SyntheticSweep(tmp_path / "s", arms=(ADAMW, BBI), trials=1, logs=False).write())
    assert c.baseline.name == "adamw"


def test_nothing_to_compare_is_said_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="has no runs yet: start it with"):
        compared(SyntheticSweep(tmp_path / "new", trials=0).write())
    with pytest.raises(ValueError, match="a comparison needs two"):
        compared(SyntheticSweep(tmp_path / "one", arms=(SGD,), trials=1, logs=False).write())


class TestHalfFinished:
    def test_during_the_search(self, tmp_path):
        c = compared(SyntheticSweep(tmp_path / "s", replicates=0, logs=False).write())
        assert all(r.conclusion == "no data" for r in c.contestants)
        assert verdict(c).headline.startswith("No verdict yet")
        assert verdict(c).status.startswith("Preliminary: 40 planned runs")

    def test_counts_what_is_missing(self, comparison):
        # two failed trials and a replicate that is still running
        assert verdict(comparison).status.startswith("Preliminary: 3 planned runs")

    def test_pairs_only_the_seeds_that_both_have(self, comparison):
        assert comparison.result("adamw").versus.difference.n == 9
        assert comparison.result("bbi").versus.difference.n == 10

    def test_an_arm_whose_every_trial_diverged(self, tmp_path):
        arms = (replace(BBI, cliff=0.0), SGD)
        c = compared(SyntheticSweep(tmp_path / "s", arms=arms, logs=False).write())
        assert c.result("bbi").best is None
        assert "16 trials diverged" in verdict(c).sentences[0]
        assert verdict(c).status.startswith("Complete")


def test_replicates_of_several_studies_are_no_more_seeds_than_there_are(tmp_path):
    """Each study's best is trained with the same seeds: their mean for each seed is what is compared."""
    folder = SyntheticSweep(tmp_path / "s", logs=False, trials=6, replicates=8).write()
    once = compare_sweep(read_sweep(folder), "sgd")
    for file in sorted(folder.glob("runs/*-s1*/run.json")):  # a second study whose best is the same point
        record = json.loads(file.read_text())
        record["labels"]["study"] = 1
        record["summary"]["test/acc"] = record["summary"].get("test/acc", 0.9) + 0.01
        twin = file.parent.with_name(f"again-{file.parent.name}")
        twin.mkdir()
        (twin / "run.json").write_text(json.dumps(record | {"name": twin.name}))
    twice = compare_sweep(read_sweep(folder), "sgd")
    for before, after in zip(once.results, twice.results, strict=True):
        assert len(after.replicates) == 2 * len(before.replicates)
        assert after.mean.n == before.mean.n == 8
        assert after.mean.value == pytest.approx(before.mean.value + 0.005)
        if before.versus is not None:
            assert after.versus.difference.n == 8
            assert after.p_value == before.p_value
