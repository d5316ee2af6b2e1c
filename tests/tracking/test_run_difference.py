"""In what two runs differ."""

import json
import re

from bbi_lightning.tracking.run_difference import Changed, difference
from bbi_lightning.tracking.run_folder import RunFolder
from tests.tracking.made_runs import make


def log(folder, rows):
    text = "".join(json.dumps({"step": step, "epoch": 0, **values}) + "\n" for step, values in rows)
    folder.metrics_file.write_text(text)


def test_two_runs_differ_in_what_they_differ(tmp_path):
    one = make(tmp_path / "one-s0", lr="0.1", accuracy=0.9)
    other = make(tmp_path / "other-s0", lr="0.2", accuracy=0.8)
    log(
        one,
        [
            (1, {"train/loss": 2.0}),
            (2, {"train/loss": "nan"}),
            (3, {"train/loss": 1.0, "energy/E": 1}),
            (5, {"a": 1}),
        ],
    )
    log(
        other, [(1, {"train/loss": 2.0}), (2, {"train/loss": "nan"}), (3, {"train/loss": 1.5}), (4, {"a": 1})]
    )
    found = difference(one, other)
    assert found.config == (Changed("optim.lr", 0.1, 0.2),)
    assert found.environment == ()
    assert found.results == (Changed("test/acc", 0.9, 0.8),)
    parts = {pair.metric: (pair.shared, pair.parts_at) for pair in found.curves}
    assert parts == {"train/loss": (3, 3), "energy/E": (0, None), "a": (0, None)}
    assert difference(one, one).config == difference(one, one).results == ()
    assert {pair.parts_at for pair in difference(one, one).curves} == {None}


def test_without_a_config_the_command_lines_are_compared(tmp_path):
    runs = []
    for name, rate in (("one-s0", "0.1"), ("other-s0", "2e-3")):
        words = ["optim=sgd", f"optim.lr={rate}", "+trainer.fast=true"]
        runs.append(RunFolder.create(tmp_path / name, config="", overrides=words))
    runs[0].config_file.unlink()
    found = difference(*runs)
    assert found.config == (Changed("optim.lr", 0.1, 2e-3),)
    assert found.same_leaves == 2


def test_other_code_and_other_machines_are_differences(tmp_path):
    one, other = make(tmp_path / "one-s0"), make(tmp_path / "other-s0")
    facts = json.loads(other.record_file.read_text())
    attempt = facts["attempts"][0]
    attempt.update(commit="f" * 40, host="elsewhere", dirty=True, diff_sha256="ab")
    attempt["versions"]["torch"] = "1.0"
    other.record_file.write_text(json.dumps(facts))
    one_facts = json.loads(one.record_file.read_text())
    one_facts["attempts"][0].update(commit="e" * 40, dirty=False, diff_sha256=None)
    one.record_file.write_text(json.dumps(one_facts))
    found = difference(one, other)
    assert {change.key for change in found.environment} == {"commit", "uncommitted changes", "host", "torch"}
    assert found.same_code is False
    other.metrics_file.write_text("no row\n")
    assert re.search("line 1 is damaged", difference(one, other).problems[0])
