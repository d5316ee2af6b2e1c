"""Several sweeps at once: which are one task, and what may be said over all tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bbi_lightning.comparison.suite import Suite, compare_suite, read_suite, sentences_over_tasks
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


def sweep(folder: Path, **changes: object) -> Path:
    """A written sweep; `base` and `metric` of its sweep.yaml may be changed."""
    spec_changes = {key: changes.pop(key) for key in ("base",) if key in changes}
    SyntheticSweep(folder, **{"trials": 6, "logs": False, **changes}).write()
    file = folder / "sweep.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | spec_changes))
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("a") / "digits")


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("b") / "letters", base=["data=letters", "model=cnn"], seed=5)


def test_sweeps_of_one_task_are_one_comparison_and_their_arms_stay_apart(tmp_path: Path, digits: Path):
    later = sweep(tmp_path / "later", arms=ARMS[2:], trials=9, replicates=4, planned_replicates=4, seed=3)
    (task,) = read_suite([digits, later])
    assert [arm.name for arm in task.arms] == ["bbi", "ecdsep", "sgd", "adamw", "later:sgd", "later:adamw"]
    assert task.arm("later:sgd").label == "SGD (later)"
    assert len(task.trials("sgd")) == 6
    assert len(task.trials("later:sgd")) == 9
    assert (task.plan("sgd").trials, task.plan("later:sgd").trials) == (6, 9)
    (comparison,) = compare_suite([task]).comparisons
    assert comparison.baseline.name == "sgd"
    assert comparison.missing() == 0
    assert comparison.result("later:adamw").versus.difference.n == 4  # the seeds that both have


def test_the_same_sweep_twice_is_once(digits: Path):
    (task,) = read_suite([digits, digits])
    assert len(task.arms) == 4


def test_a_single_task_is_compared_as_ever(digits: Path):
    suite = compare_suite(read_suite([digits]), "adamw")
    assert suite.over_tasks == ()
    assert suite.comparisons[0].baseline.name == "adamw"
    assert suite.title == "Handwritten digits: BBI, ECDSep, SGD and AdamW"


def over(suite: Suite, arm: str):
    return next(o for o in suite.over_tasks if o.arm.name == arm)


def test_over_tasks_every_task_counts_alike(digits: Path, letters: Path):
    suite = compare_suite(read_suite([digits, letters]))
    assert [o.arm.name for o in suite.over_tasks] == ["bbi", "ecdsep", "sgd", "adamw"]
    assert suite.score == "test accuracy"
    means = [c.result("bbi").versus.difference.value for c in suite.comparisons]
    assert over(suite, "bbi").difference.value == pytest.approx(np.mean(means))
    assert over(suite, "bbi").task_differences == pytest.approx(means)
    wins = [c.result("bbi").improvement.value for c in suite.comparisons]
    assert over(suite, "bbi").improvement.value == pytest.approx(np.mean(wins))
    assert over(suite, "sgd").difference is None
    scores = np.concatenate(over(suite, "bbi").scores)
    assert scores.min() <= over(suite, "bbi").iqm.value <= scores.max()


def test_the_words_are_the_numbers_and_claim_only_what_the_interval_allows(digits: Path, letters: Path):
    suite = compare_suite(read_suite([digits, letters]))
    words = sentences_over_tasks(suite)
    assert len(words) == 3
    for name, sentence in zip(("bbi", "ecdsep", "adamw"), words, strict=True):
        difference = over(suite, name).difference
        assert f"{100 * difference.value:+.2f}".replace("-", "−") in sentence
        shown = difference.low > 0 or difference.high < 0
        assert sentence.endswith("Over all tasks: no difference is shown.") != shown
    assert sentences_over_tasks(compare_suite(read_suite([digits]))) == ()


def test_an_arm_without_results_in_one_task_is_not_said_to_hold_over_all(digits: Path, tmp_path: Path):
    two = sweep(tmp_path / "two", arms=ARMS[1:], base=["data=two"])
    suite = compare_suite(read_suite([digits, two]))
    assert [o.arm.name for o in suite.over_tasks] == ["ecdsep", "sgd", "adamw"]


def test_sweeps_without_a_common_arm_are_refused(digits: Path, tmp_path: Path):
    bbi = sweep(tmp_path / "two", arms=ARMS[:2], base=["data=two"])
    adam = sweep(tmp_path / "three", arms=ARMS[2:], base=["data=three"])
    with pytest.raises(ValueError, match=r"share no arm \(two: bbi, ecdsep; three: sgd, adamw\)"):
        compare_suite(read_suite([bbi, adam]))
    with pytest.raises(ValueError, match="'adamw' is no arm of sweep two"):
        compare_suite(read_suite([bbi, adam]), "adamw")


def test_imported_sweeps_that_do_not_say_their_task_are_not_taken_for_one(tmp_path: Path):
    folders = [sweep(tmp_path / name, base=[]) for name in ("one", "two")]
    assert len(read_suite(folders)) == 1
    for file in tmp_path.glob("*/runs/*/run.json"):
        record = json.loads(file.read_text())
        record["labels"]["imported"] = "W&B export"
        file.write_text(json.dumps(record))
    assert [task.name for task in read_suite(folders)] == ["one", "two"]


def test_joined_arms_of_one_label_can_be_told_apart(tmp_path: Path):
    other = replace(ARMS[0], name="bbi_wide")
    (task,) = read_suite([sweep(tmp_path / "one"), sweep(tmp_path / "two", arms=(other,))])
    assert [arm.label for arm in task.arms] == ["BBI (bbi)", "ECDSep", "SGD", "AdamW", "BBI (bbi_wide)"]
