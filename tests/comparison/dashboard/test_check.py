"""W&B's numbers beside ours: agreement is found where there is agreement, and every disagreement is named."""

import math
from dataclasses import replace

import pytest

from bbi_lightning.comparison.dashboard.check import RemoteRun, check, counted
from bbi_lightning.comparison.dashboard.content import dashboard
from bbi_lightning.comparison.dashboard.summary import summarise
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.tracking.wandb_logger import group_of
from tests.comparison.synthetic_sweep import realistic


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compare_sweep(read_sweep(realistic(tmp_path_factory.mktemp("sweeps") / "digits", trials=4)))


@pytest.fixture(scope="module")
def ours(comparison):
    return dashboard(comparison, project="p"), summarise(comparison)


STATES = {"finished": "finished", "diverged": "finished", "failed": "failed", "running": "running"}


def as_w_and_b_has_it(comparison, ours):
    """Every run as training would have sent it, by name; and the run with our numbers."""
    runs = {
        run.name: RemoteRun(
            run.name,
            STATES[run.state],
            group_of("digits", run.arm),
            run.phase,
            run.arm,
            dict(run.record.summary),
        )
        for run in comparison.sweep.runs
    }
    summary = ours[1]
    runs[summary.run] = RemoteRun(summary.run, "finished", "digits", "summary", "", dict(summary.values))
    return runs


def checked(comparison, ours, remote):
    return check(comparison, *ours, remote.values())


def a_replicate(comparison, arm="sgd"):
    return comparison.result(arm).finished[0].name


def test_what_training_sent_agrees(comparison, ours):
    result = checked(comparison, ours, as_w_and_b_has_it(comparison, ours))
    assert result.differences == ()
    assert result.agrees
    assert result.found == result.runs == len(comparison.sweep.runs)
    assert [m.theirs for m in result.means] == pytest.approx([r.mean.value for r in comparison.results])
    assert result.numbers > 4 * len(comparison.result("sgd").finished)


def test_a_number_that_differs_in_the_tenth_digit_is_found_and_moves_the_mean(comparison, ours):
    remote = as_w_and_b_has_it(comparison, ours)
    name = a_replicate(comparison)
    value = remote[name].summary["test/acc"]
    remote[name].summary["test/acc"] = value * (1 + 1e-7)
    result = checked(comparison, ours, remote)
    assert [(d.kind, d.where, d.what) for d in result.differences] == [
        ("number", name, "test/acc"),
        ("mean", "sgd", "test/acc"),
    ]
    assert not result.agrees


def test_rounding_of_the_last_bit_is_no_difference(comparison, ours):
    remote = as_w_and_b_has_it(comparison, ours)
    name = a_replicate(comparison)
    remote[name].summary["test/acc"] = math.nextafter(remote[name].summary["test/acc"], 2)
    assert checked(comparison, ours, remote).agrees


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        ({"state": "failed"}, "state", "state"),
        ({"group": "digits"}, "place", "group"),
        ({"job_type": "train"}, "place", "job type"),
        ({"arm": "adamw"}, "place", "config arm"),
    ],
)
def test_a_run_that_is_filed_elsewhere_is_found(comparison, ours, change, kind, what):
    remote = as_w_and_b_has_it(comparison, ours)
    name = a_replicate(comparison)
    remote[name] = replace(remote[name], **change)
    (difference,) = checked(comparison, ours, remote).differences
    assert (difference.kind, difference.where, difference.what) == (kind, name, what)


def test_a_run_that_w_and_b_lacks_is_missing_and_the_mean_says_of_how_many(comparison, ours):
    remote = as_w_and_b_has_it(comparison, ours)
    name = a_replicate(comparison)
    del remote[name]
    result = checked(comparison, ours, remote)
    assert counted(result.differences) == {"missing": 1, "mean": 1}
    assert result.found == result.runs - 1
    mean = next(d for d in result.differences if d.kind == "mean")
    assert mean.ours.endswith("of 10")
    assert mean.theirs.endswith("of 9")


def test_a_run_that_only_w_and_b_has_is_unknown(comparison, ours):
    remote = as_w_and_b_has_it(comparison, ours)
    remote["stray"] = RemoteRun("stray", "finished", "digits/sgd", "replicate", "sgd", {})
    (difference,) = checked(comparison, ours, remote).differences
    assert (difference.kind, difference.where) == ("unknown", "stray")


def test_numbers_of_yesterday_s_results_are_found(comparison, ours):
    remote = as_w_and_b_has_it(comparison, ours)
    remote[ours[1].run].summary["compare/bbi/mean"] += 0.001
    remote[ours[1].run].summary.pop("compare/bbi/p_holm")
    differences = checked(comparison, ours, remote).differences
    assert {(d.kind, d.what) for d in differences} == {
        ("summary", "compare/bbi/mean"),
        ("summary", "compare/bbi/p_holm"),
    }


def test_numbers_that_json_does_not_have_are_equal_however_they_are_spelt(comparison, ours):
    remote = as_w_and_b_has_it(comparison, ours)
    lost = next(run for run in comparison.sweep.runs if run.state == "diverged")
    assert math.isnan(lost.record.summary["train/loss"])
    remote[lost.name].summary["train/loss"] = "NaN"
    assert checked(comparison, ours, remote).agrees
    remote[lost.name].summary["train/loss"] = 0.5
    (difference,) = checked(comparison, ours, remote).differences
    assert (difference.kind, difference.what) == ("number", "train/loss")


def test_an_empty_project_lacks_everything(comparison, ours):
    result = check(comparison, *ours, ())
    assert result.found == 0
    assert counted(result.differences)["missing"] == len(comparison.sweep.runs) + 1
